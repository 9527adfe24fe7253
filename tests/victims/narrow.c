/* SPDX-License-Identifier: MIT */
/* A 32-bit program without a C library, so that it builds wherever the compiler knows -m32. */
void _start(void);

void _start(void)
{
	for (;;)
		__asm__ volatile("int $0x80" : : "a"(29) : "memory"); /* pause */
}
