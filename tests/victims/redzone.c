/* SPDX-License-Identifier: MIT */
/* A leaf function may keep data in the 128 bytes below its stack pointer. */
#include "victim.h"

long redzone_spin(unsigned long iterations);

__asm__(".text\n"
	".type redzone_spin, @function\n"
	"redzone_spin:\n"
	"	movabs $0x7ed20ae5c0ffee00, %rdx\n"
	"	mov $16, %ecx\n"
	"1:	lea (%rdx,%rcx), %rax\n"
	"	neg %rcx\n"
	"	mov %rax, (%rsp,%rcx,8)\n"
	"	neg %rcx\n"
	"	dec %ecx\n"
	"	jnz 1b\n"
	"2:	dec %rdi\n"
	"	jnz 2b\n"
	"	mov $16, %ecx\n"
	"3:	lea (%rdx,%rcx), %rax\n"
	"	neg %rcx\n"
	"	cmp %rax, (%rsp,%rcx,8)\n"
	"	jne 4f\n"
	"	neg %rcx\n"
	"	dec %ecx\n"
	"	jnz 3b\n"
	"	xor %eax, %eax\n"
	"	ret\n"
	"4:	mov %rcx, %rax\n" /* the broken word's index, negative */
	"	ret\n"
	".size redzone_spin, . - redzone_spin\n");

static void *body(void *argument)
{
	for (;;) {
		long word = redzone_spin(200000);

		if (word)
			victim_break("the red zone changed at %ld(%%rsp)", 8 * word);
		victim_round();
	}
	return NULL;
}

int victim_start(void)
{
	int r = victim_thread(body, NULL);

	return r ? r : victim_thread(body, NULL);
}
