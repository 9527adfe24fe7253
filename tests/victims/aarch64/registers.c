/* SPDX-License-Identifier: MIT */
/* Every general register but x16 and x17, and the flags, keep their values, wherever the thread is stopped. */
#include "../victim.h"

long registers_spin(unsigned long iterations);

#define EACH(m) m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9) m(10) m(11) m(12) m(13) m(14) m(15) \
	m(18) m(19) m(20) m(21) m(22) m(23) m(24) m(25) m(26) m(27) m(28) m(29) m(30)
/* x0 looks like -ERESTARTSYS, which only the result of a system call may do. */
#define LOAD(n) "	ldr x" #n ", 9f + 8 * " #n "\n"
#define WORD(n) "	.org 9b + 8 * " #n "\n	.quad 0xbad5eed00cafe00 + " #n "\n"
#define COMPARE(n) \
	"	ldr x17, 9f + 8 * " #n "\n" \
	"	cmp x" #n ", x17\n" \
	"	mov x16, #" #n " + 1\n" \
	"	b.ne 3f\n"

__asm__(".text\n"
	".balign 8\n"
	".type registers_spin, %function\n"
	"registers_spin:\n"
	"	stp x29, x30, [sp, #-112]!\n"
	"	stp x19, x20, [sp, #16]\n	stp x21, x22, [sp, #32]\n	stp x23, x24, [sp, #48]\n"
	"	stp x25, x26, [sp, #64]\n	stp x27, x28, [sp, #80]\n	str x18, [sp, #96]\n"
	"	mov x16, x0\n" EACH(LOAD)
	"	mov x0, #-512\n"
	"	mov x17, #0xa0000000\n" /* N and C */
	"	msr nzcv, x17\n"
	"1:	sub x16, x16, #1\n"
	"	cbnz x16, 1b\n"
	"	mrs x17, nzcv\n"
	"	str x17, [sp, #104]\n"
	"	add x0, x0, #512\n"
	"	mov x16, #1\n"
	"	cbnz x0, 3f\n"
	"	ldr x0, 9f\n" EACH(COMPARE)
	"	ldr x17, [sp, #104]\n"
	"	mov x0, #0xa0000000\n"
	"	mov x16, #0x99\n"
	"	cmp x17, x0\n"
	"	b.ne 3f\n"
	"	mov x16, #0\n"
	"3:	mov x0, x16\n"
	"	ldp x19, x20, [sp, #16]\n	ldp x21, x22, [sp, #32]\n	ldp x23, x24, [sp, #48]\n"
	"	ldp x25, x26, [sp, #64]\n	ldp x27, x28, [sp, #80]\n	ldr x18, [sp, #96]\n"
	"	ldp x29, x30, [sp], #112\n"
	"	ret\n"
	"	.balign 8\n"
	"9:\n" EACH(WORD)
	".size registers_spin, . - registers_spin\n");

static void *body(void *argument)
{
	for (;;) {
		long which = registers_spin(200000);

		if (which == 0x99)
			victim_break("the flags changed");
		else if (which)
			victim_break("general register x%ld changed", which - 1);
		victim_round();
	}
	return NULL;
}

int victim_start(void)
{
	int r = victim_thread(body, NULL);

	return r ? r : victim_thread(body, NULL);
}
