/* SPDX-License-Identifier: MIT */
/*
 * What runs in the tracee for the breakpoint engine. Position-independent: every reference stays
 * inside the image or reaches the data page behind it, and is resolved by the assembler, so the
 * bytes are carried in .rodata and copied as they are.
 *
 * An entry that finds the probe disarmed (detaching, or a forked child, whose data page is zeros)
 * jumps to the original as if it had never been there. int3 without a tracer raises SIGTRAP, whose
 * handler below returns, and the thread goes on behind the int3.
 */
#include "pyleak/breakpoint_abi.h"

	.section .rodata.pyleak_probe, "a", @progbits
	.globl pl_breakpoint_image
	.balign 4096
pl_breakpoint_image:
.Limage:
	.skip PL_PROBE_CODE_OFFSET, 0

#define DATA(offset) (.Limage + PL_BREAKPOINT_CODE_SIZE + offset)(%rip)
#define ORIGINAL(hook) \
	(.Limage + PL_PROBE_HOOKS_OFFSET + hook * PL_PROBE_HOOK_SIZE + PL_PROBE_HOOK_ORIGINAL)(%rip)

/* malloc and calloc stop once, when the result is known; realloc also before the call, since its
 * old block's address can belong to another thread as soon as the original has freed it. */
.macro CALLING hook, stop_before
	.balign 64, 0xcc
.Lentry\hook:
	endbr64
	cmpl $0, DATA(PL_BREAKPOINT_ARMED)
	je 1f
	lock incl DATA(PL_BREAKPOINT_INSIDE)
	sub $PL_BREAKPOINT_FRAME_SIZE, %rsp
	mov %rsi, (%rsp)
	mov %rdx, 8(%rsp)
	lea PL_BREAKPOINT_FRAME_MARK(%rsp), %r11
	movabs $PL_BREAKPOINT_MARK, %rax
	xor %r11, %rax
	mov %rax, PL_BREAKPOINT_FRAME_MARK(%rsp)
	.if \stop_before
	int3
.Lbefore\hook:
	.endif
	call *ORIGINAL(\hook)
	int3
.Lafter\hook:
	movq $0, PL_BREAKPOINT_FRAME_MARK(%rsp)
	add $PL_BREAKPOINT_FRAME_SIZE, %rsp
	lock decl DATA(PL_BREAKPOINT_INSIDE)
	ret
1:	jmp *ORIGINAL(\hook)
.endm

/* free stops before the call: afterwards the address may already be somebody else's. */
.macro FREEING hook
	.balign 64, 0xcc
.Lentry\hook:
	endbr64
	cmpl $0, DATA(PL_BREAKPOINT_ARMED)
	je 1f
	int3
.Lbefore\hook:
1:	jmp *ORIGINAL(\hook)
.endm

	CALLING 0, 0
	CALLING 1, 0
	CALLING 2, 1
	FREEING 3
	CALLING 4, 0
	CALLING 5, 0
	CALLING 6, 1
	FREEING 7
	CALLING 8, 0
	CALLING 9, 0
	CALLING 10, 1
	FREEING 11

/*
 * The handler of SIGTRAP (signal, siginfo, ucontext). A trap inside the probe is ours and needs
 * nothing; any other goes to the handler that the program had, if it had one.
 */
	.balign 64, 0xcc
.Ltrap_handler:
	endbr64
	mov 168(%rdx), %rax		/* uc_mcontext.rip */
	lea .Limage(%rip), %rcx
	sub %rcx, %rax
	cmp $PL_BREAKPOINT_CODE_SIZE, %rax
	jb 1f
	mov (.Limage + PL_PROBE_SAVED_HANDLER)(%rip), %rax
	cmp $1, %rax			/* SIG_DFL, SIG_IGN */
	jbe 1f
	jmp *%rax
1:	ret

	.balign 16, 0xcc
.Lrestorer:
	mov $15, %eax			/* rt_sigreturn */
	syscall
	int3

	.org PL_BREAKPOINT_CODE_SIZE, 0xcc

	.section .rodata.pyleak_probe_table, "a", @progbits
	.globl pl_breakpoint_entries, pl_breakpoint_trap_handler, pl_breakpoint_restorer
	.balign 16
pl_breakpoint_entries:
.macro CALLING_ENTRY hook, stop_before
	.long .Lentry\hook - .Limage
	.if \stop_before
	.long .Lbefore\hook - .Limage
	.else
	.long 0
	.endif
	.long .Lafter\hook - .Limage
	.long 0
.endm
.macro FREEING_ENTRY hook
	.long .Lentry\hook - .Limage
	.long .Lbefore\hook - .Limage
	.long 0
	.long 0
.endm
	CALLING_ENTRY 0, 0
	CALLING_ENTRY 1, 0
	CALLING_ENTRY 2, 1
	FREEING_ENTRY 3
	CALLING_ENTRY 4, 0
	CALLING_ENTRY 5, 0
	CALLING_ENTRY 6, 1
	FREEING_ENTRY 7
	CALLING_ENTRY 8, 0
	CALLING_ENTRY 9, 0
	CALLING_ENTRY 10, 1
	FREEING_ENTRY 11
pl_breakpoint_trap_handler:
	.long .Ltrap_handler - .Limage
pl_breakpoint_restorer:
	.long .Lrestorer - .Limage

	.section .note.GNU-stack, "", @progbits
