/* SPDX-License-Identifier: MIT */
/*
 * As x86_64/breakpoint.S, for AArch64. A brk that nobody traces raises SIGTRAP with the thread still on it: the handler
 * moves it behind, but only if it stands on one of ours, so that a tracer that did the same before it died does no harm.
 */
#include "pyleak/breakpoint_abi.h"

	.section .rodata.pyleak_probe, "a", @progbits
	.globl pl_breakpoint_image
	.balign 4096
pl_breakpoint_image:
.Limage:
	.skip PL_PROBE_CODE_OFFSET, 0

#define DATA(offset) (.Limage + PL_BREAKPOINT_CODE_SIZE + offset)
#define ORIGINAL(hook) (.Limage + PL_PROBE_HOOKS_OFFSET + hook * PL_PROBE_HOOK_SIZE + PL_PROBE_HOOK_ORIGINAL)

/* x9 to x17 are nobody's at the beginning of a function. */
.macro COUNT instruction
	adr x9, DATA(PL_BREAKPOINT_INSIDE)
2:	ldaxr w10, [x9]
	\instruction w10, w10, #1
	stlxr w11, w10, [x9]
	cbnz w11, 2b
.endm

.macro CALLING hook, stop_before
	.balign 64, 0
.Lentry\hook:
	adr x9, DATA(PL_BREAKPOINT_ARMED)
	ldr w9, [x9]
	cbz w9, 1f
	COUNT add
	sub sp, sp, #PL_BREAKPOINT_FRAME_CALLER
	stp x1, x2, [sp]
	str x30, [sp, #PL_BREAKPOINT_FRAME_RETURN]
	add x9, sp, #PL_BREAKPOINT_FRAME_MARK
	ldr x10, .Lmark
	eor x10, x10, x9
	str x10, [x9]
	.if \stop_before
.Lbefore\hook:
	brk #0
	.endif
	ldr x9, ORIGINAL(\hook)
	blr x9
.Lafter\hook:
	brk #0
	str xzr, [sp, #PL_BREAKPOINT_FRAME_MARK]
	ldr x30, [sp, #PL_BREAKPOINT_FRAME_RETURN]
	add sp, sp, #PL_BREAKPOINT_FRAME_CALLER
	COUNT sub
	ret
1:	ldr x16, ORIGINAL(\hook)
	br x16
.endm

.macro FREEING hook
	.balign 64, 0
.Lentry\hook:
	adr x9, DATA(PL_BREAKPOINT_ARMED)
	ldr w9, [x9]
	cbz w9, 1f
.Lbefore\hook:
	brk #0
1:	ldr x16, ORIGINAL(\hook)
	br x16
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

	.balign 8, 0
.Lmark:
	.quad PL_BREAKPOINT_MARK

/* The handler of SIGTRAP (signal, siginfo, ucontext): pc is at 440 of ucontext. */
	.balign 64, 0
.Ltrap_handler:
	ldr x9, [x2, #440]
	adr x10, .Limage
	sub x10, x9, x10
	cmp x10, #PL_BREAKPOINT_CODE_SIZE
	b.hs 2f
	ldr w10, [x9]
	movz w11, #0xd420, lsl #16	/* brk #0 */
	cmp w10, w11
	b.ne 1f
	add x9, x9, #4
	str x9, [x2, #440]
1:	ret
2:	ldr x9, .Limage + PL_PROBE_SAVED_HANDLER
	cmp x9, #1			/* SIG_DFL, SIG_IGN */
	b.ls 1b
	br x9

	.balign 16, 0
.Lrestorer:
	mov x8, #139			/* rt_sigreturn */
	svc #0
	brk #0

	.org PL_BREAKPOINT_CODE_SIZE, 0

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
