/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/arch.h"

/*
 * The kernel's struct rt_sigframe (arch/arm64/kernel/signal.c): siginfo, ucontext, and records of the other registers in
 * its mcontext, the first of them that of the vector registers. rt_sigreturn takes it where the stack pointer is. Nothing
 * below the stack pointer belongs to the thread.
 */

/* User mode, no single step, no branch type: what a tracer may set. */
#define PSTATE_FORBIDDEN UINT64_C(0x1f)
#define PSTATE_SINGLE_STEP (UINT64_C(1) << 21)
#define PSTATE_BRANCH_TYPE (UINT64_C(3) << 10)

/* do_sigaltstack() answers -EINVAL to this and rt_sigreturn ignores the answer, so that the thread's own alternate
 * stack stays as it is. */
#define INVALID_ALTSTACK_FLAGS 0x40

struct vector_state { /* struct user_fpsimd_state */
	uint64_t registers[64];
	uint32_t status, control;
	uint64_t reserved;
};

struct vector_record { /* struct fpsimd_context */
	uint32_t magic, size;
	uint32_t status, control;
	uint64_t registers[64];
};

struct signal_frame {
	uint8_t info[128];
	uint64_t flags;
	uint64_t link;
	uint64_t stack_pointer;
	int32_t stack_flags, stack_padding;
	uint64_t stack_size;
	uint64_t mask;
	uint8_t unused[120];
	uint64_t padding;
	uint64_t fault_address;
	uint64_t registers[31];
	uint64_t sp, pc, pstate;
	uint64_t padding_of_records;
	struct vector_record vectors;
	uint64_t end; /* a record of no kind */
	uint8_t room[4096 - sizeof(struct vector_record) - 8];
};

_Static_assert(offsetof(struct signal_frame, flags) == 128, "as the kernel lays it out");
_Static_assert(offsetof(struct signal_frame, mask) == 168, "as the kernel lays it out");
_Static_assert(offsetof(struct signal_frame, fault_address) == 304, "as the kernel lays it out");
_Static_assert(offsetof(struct signal_frame, vectors) == 592 && sizeof(struct signal_frame) == 592 + 4096, "no padding");
_Static_assert(PL_ARCH_SIGFRAME_FIRST_REGISTER == offsetof(struct signal_frame, registers) &&
		PL_ARCH_SIGFRAME_FIRST_REGISTER + 8 * (PL_ARCH_SIGFRAME_REGISTERS - 1) == offsetof(struct signal_frame, pc),
	"as arch.h says");
_Static_assert(sizeof(struct vector_record) == 528 && sizeof(struct vector_state) == 528, "as the kernel lays it out");

int pl_arch_remote_frame(const pl_registers *regs, const void *xstate, size_t xstate_size, uint64_t signal_mask,
	uint64_t syscall_return_gadget, uint64_t sigreturn_gadget, struct pl_remote_frame *ret)
{
	struct vector_state vectors;
	struct signal_frame *frame;

	if (xstate_size != sizeof(vectors))
		return -EINVAL;
	frame = calloc(1, sizeof(*frame));
	if (!frame)
		return -ENOMEM;
	memcpy(&vectors, xstate, sizeof(vectors));
	frame->stack_flags = INVALID_ALTSTACK_FLAGS;
	frame->mask = signal_mask;
	/* A system call that the stop interrupted has been rolled back already: pc is on it, x0 is what it was. */
	memcpy(frame->registers, regs->set.regs, sizeof(frame->registers));
	frame->sp = regs->set.sp;
	frame->pc = regs->set.pc;
	frame->pstate = regs->set.pstate;
	frame->vectors = (struct vector_record){FPSIMD_MAGIC, sizeof(frame->vectors), vectors.status, vectors.control, {0}};
	memcpy(frame->vectors.registers, vectors.registers, sizeof(frame->vectors.registers));

	*ret = (struct pl_remote_frame){
		.address = (regs->set.sp - sizeof(*frame)) & ~UINT64_C(15),
		.bytes = (uint8_t *)frame,
		.size = sizeof(*frame),
		.call = *regs,
	};
	ret->call.set.pc = syscall_return_gadget;
	ret->call.set.regs[30] = sigreturn_gadget;
	ret->call.set.sp = ret->address;
	ret->call.set.pstate &= ~(PSTATE_SINGLE_STEP | PSTATE_BRANCH_TYPE);
	return 0;
}

void pl_arch_remote_frame_syscall(pl_registers *call, long number, const uint64_t arguments[6])
{
	call->set.regs[8] = (uint64_t)number;
	memcpy(call->set.regs, arguments, 6 * sizeof(arguments[0]));
}

bool pl_arch_sigframe_registers(const void *frame, size_t size, pl_registers *ret, uint64_t *ret_restorer)
{
	struct signal_frame candidate;

	if (size < PL_ARCH_SIGFRAME_BYTES)
		return false;
	memcpy(&candidate, frame, PL_ARCH_SIGFRAME_BYTES);
	if (candidate.flags || candidate.link || candidate.pstate & PSTATE_FORBIDDEN ||
		candidate.vectors.magic != FPSIMD_MAGIC || candidate.vectors.size != sizeof(candidate.vectors))
		return false;
	*ret = (pl_registers){.set = {.sp = candidate.sp, .pc = candidate.pc, .pstate = candidate.pstate}};
	memcpy(ret->set.regs, candidate.registers, sizeof(candidate.registers));
	/* x30 led to the vDSO when the handler began; the frame does not keep it. */
	*ret_restorer = 0;
	return true;
}
