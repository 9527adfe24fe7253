/* SPDX-License-Identifier: MIT */
/* Every general register and the flags keep their values, wherever the thread is stopped. */
#include "victim.h"

long registers_spin(unsigned long iterations);

/* lea and jrcxz leave the flags alone, so CF and DF stay set for the whole of the loop. */
#define LOAD(n, reg) "	movabs $0x" #n "bad5eed0cafe" #n ", %" #reg "\n"
#define COMPARE(n, reg)                                                                                                \
	"	movabs $0x" #n "bad5eed0cafe" #n ", %rcx\n"                                                            \
	"	cmp %rcx, %" #reg "\n"                                                                                 \
	"	mov $0x" #n ", %ecx\n"                                                                                 \
	"	jne 3f\n"

__asm__(".text\n"
	".type registers_spin, @function\n"
	"registers_spin:\n"
	"	push %rbx\n	push %rbp\n	push %r12\n	push %r13\n	push %r14\n	push %r15\n"
	"	mov %rdi, %rcx\n" LOAD(11, rax) LOAD(12, rbx) LOAD(13, rdx) LOAD(14, rsi) LOAD(15, rdi) LOAD(16, rbp)
		LOAD(17, r8) LOAD(18, r9) LOAD(19, r10) LOAD(21, r11) LOAD(22, r12) LOAD(23, r13) LOAD(24, r14)
			LOAD(25, r15)
	"	std\n"
	"	stc\n"
	"1:	lea -1(%rcx), %rcx\n"
	"	jrcxz 2f\n"
	"	jmp 1b\n"
	"2:	pushfq\n"
	"	cld\n" COMPARE(11, rax) COMPARE(12, rbx) COMPARE(13, rdx) COMPARE(14, rsi) COMPARE(15, rdi)
		COMPARE(16, rbp) COMPARE(17, r8) COMPARE(18, r9) COMPARE(19, r10) COMPARE(21, r11) COMPARE(22, r12)
			COMPARE(23, r13) COMPARE(24, r14) COMPARE(25, r15)
	"	mov (%rsp), %rdx\n"
	"	and $0x401, %edx\n" /* DF and CF */
	"	mov $0x99, %ecx\n"
	"	cmp $0x401, %edx\n"
	"	jne 3f\n"
	"	xor %ecx, %ecx\n"
	"3:	mov %rcx, %rax\n"
	"	add $8, %rsp\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbp\n	pop %rbx\n"
	"	ret\n"
	".size registers_spin, . - registers_spin\n");

static void *body(void *argument)
{
	for (;;) {
		long which = registers_spin(200000);

		if (which == 0x99)
			victim_break("the flags changed");
		else if (which)
			victim_break("general register %lx changed", which);
		victim_round();
	}
	return NULL;
}

int victim_start(void)
{
	int r = victim_thread(body, NULL);

	return r ? r : victim_thread(body, NULL);
}
