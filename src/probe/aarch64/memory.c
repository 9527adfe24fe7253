/* SPDX-License-Identifier: MIT */
#include <stddef.h>
#include <stdint.h>

/* What GCC calls here where it clears or copies a struct. The loops are hidden from it, or they would become these calls. */
void *memset(void *to, int byte, size_t size);
void *memcpy(void *restrict to, const void *restrict from, size_t size);

void *memset(void *to, int byte, size_t size)
{
	for (uint8_t *at = to, *end = at + size; at < end; at++) {
		*at = (uint8_t)byte;
		__asm__ volatile("" : "+r"(at));
	}
	return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
	const uint8_t *source = from;

	for (uint8_t *at = to, *end = at + size; at < end; at++) {
		*at = *source++;
		__asm__ volatile("" : "+r"(at));
	}
	return to;
}
