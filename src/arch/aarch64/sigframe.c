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

/* SVE: what NT_ARM_SVE begins with (struct user_sve_header), and the record (struct sve_context). Behind both are Z0 to
 * Z31, P0 to P15 and FFR; behind those, 16-aligned, the note has FPSR and FPCR. */
struct wide_state {
	uint32_t size, max_size;
	uint16_t vector_bytes, max_vector_bytes, flags, reserved;
};
struct wide_record {
	uint32_t magic, size;
	uint16_t vector_bytes, flags, reserved[2];
};
enum { WIDE_FLAG = 1 /* else what follows is a struct vector_state */, WIDE_BYTES_MAX = 256 };

struct extra_record { /* struct extra_context: the records go on behind the end of the others */
	uint32_t magic, size;
	uint64_t address;
	uint32_t bytes, reserved[3];
};

enum { RECORDS_BYTES = 4096 - sizeof(struct vector_record), END_BYTES = 16 /* a record of no kind */ };

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
	uint8_t records[RECORDS_BYTES];
};

_Static_assert(offsetof(struct signal_frame, flags) == 128, "as the kernel lays it out");
_Static_assert(offsetof(struct signal_frame, mask) == 168, "as the kernel lays it out");
_Static_assert(offsetof(struct signal_frame, fault_address) == 304, "as the kernel lays it out");
_Static_assert(offsetof(struct signal_frame, vectors) == 592 && sizeof(struct signal_frame) == 592 + 4096, "no padding");
_Static_assert(PL_ARCH_SIGFRAME_FIRST_REGISTER == offsetof(struct signal_frame, registers) &&
		PL_ARCH_SIGFRAME_FIRST_REGISTER + 8 * (PL_ARCH_SIGFRAME_REGISTERS - 1) == offsetof(struct signal_frame, pc),
	"as arch.h says");
_Static_assert(sizeof(struct vector_record) == 528 && sizeof(struct vector_state) == 528, "as the kernel lays it out");
_Static_assert(sizeof(struct wide_state) == 16 && sizeof(struct wide_record) == 16 && sizeof(struct extra_record) == 32,
	"as the kernel lays it out");

/* What the notes say of a thread's vector registers: `wide` is NULL where it uses no SVE. */
struct vectors {
	struct vector_state narrow;
	const uint8_t *wide; /* Z0 and so on */
	size_t wide_size;
	uint16_t vector_bytes;
};

static size_t rounded(size_t size)
{
	return (size + 15) & ~(size_t)15;
}

/* xstate: NT_ARM_SVE, or NT_PRFPREG where there is no SVE. */
static int read_vectors(const uint8_t *xstate, size_t size, struct vectors *ret)
{
	struct wide_state wide;
	size_t bytes;

	*ret = (struct vectors){.wide = NULL};
	if (size == sizeof(ret->narrow)) {
		memcpy(&ret->narrow, xstate, sizeof(ret->narrow));
		return 0;
	}
	if (size < sizeof(wide))
		return -EINVAL;
	memcpy(&wide, xstate, sizeof(wide));
	xstate += sizeof(wide);
	size -= sizeof(wide);
	if (!(wide.flags & WIDE_FLAG)) {
		if (size < sizeof(ret->narrow))
			return -EINVAL;
		memcpy(&ret->narrow, xstate, sizeof(ret->narrow));
		return 0;
	}
	bytes = 32 * (size_t)wide.vector_bytes + 17 * (size_t)wide.vector_bytes / 8;
	if (!wide.vector_bytes || wide.vector_bytes % 16 || wide.vector_bytes > WIDE_BYTES_MAX || size < rounded(bytes) + 8)
		return -EINVAL;
	/* The lower halves are the other registers. */
	for (size_t i = 0; i < 32; i++)
		memcpy(&ret->narrow.registers[2 * i], xstate + i * wide.vector_bytes, 16);
	memcpy(&ret->narrow.status, xstate + rounded(bytes), 4);
	memcpy(&ret->narrow.control, xstate + rounded(bytes) + 4, 4);
	ret->wide = xstate;
	ret->wide_size = bytes;
	ret->vector_bytes = wide.vector_bytes;
	return 0;
}

static size_t wide_record_size(const struct vectors *vectors)
{
	return vectors->wide ? rounded(sizeof(struct wide_record) + vectors->wide_size) : 0;
}

static bool needs_extra(const struct vectors *vectors)
{
	return wide_record_size(vectors) + END_BYTES > RECORDS_BYTES;
}

/* Behind the record of the lower halves. Ends are zeros, as everything was at the beginning. */
static void write_wide_record(const struct vectors *vectors, uint8_t *records, uint64_t address)
{
	const struct wide_record wide = {
		.magic = SVE_MAGIC,
		.size = (uint32_t)wide_record_size(vectors),
		.vector_bytes = vectors->vector_bytes,
	};

	if (needs_extra(vectors)) {
		const size_t skip = sizeof(struct extra_record) + END_BYTES;
		const struct extra_record extra = {
			.magic = EXTRA_MAGIC,
			.size = sizeof(extra),
			.address = address + skip,
			.bytes = wide.size + END_BYTES,
		};

		memcpy(records, &extra, sizeof(extra));
		records += skip;
	}
	memcpy(records, &wide, sizeof(wide));
	memcpy(records + sizeof(wide), vectors->wide, vectors->wide_size);
}

int pl_arch_remote_frame(const pl_registers *regs, const void *xstate, size_t xstate_size, uint64_t signal_mask,
	uint64_t syscall_return_gadget, uint64_t sigreturn_gadget, struct pl_remote_frame *ret)
{
	size_t size = sizeof(struct signal_frame);
	struct vectors vectors;
	struct signal_frame *frame;

	if (read_vectors(xstate, xstate_size, &vectors) < 0)
		return -EINVAL;
	if (needs_extra(&vectors))
		size = offsetof(struct signal_frame, records) + sizeof(struct extra_record) + END_BYTES +
		       wide_record_size(&vectors) + END_BYTES;
	if (size < sizeof(*frame))
		size = sizeof(*frame);
	frame = calloc(1, size);
	if (!frame)
		return -ENOMEM;

	const uint64_t address = (regs->set.sp - size) & ~UINT64_C(15);

	frame->stack_flags = INVALID_ALTSTACK_FLAGS;
	frame->mask = signal_mask;
	/* A system call that the stop interrupted has been rolled back already: pc is on it, x0 is what it was. */
	memcpy(frame->registers, regs->set.regs, sizeof(frame->registers));
	frame->sp = regs->set.sp;
	frame->pc = regs->set.pc;
	frame->pstate = regs->set.pstate;
	frame->vectors = (struct vector_record){
		FPSIMD_MAGIC, sizeof(frame->vectors), vectors.narrow.status, vectors.narrow.control, {0}};
	memcpy(frame->vectors.registers, vectors.narrow.registers, sizeof(frame->vectors.registers));
	if (vectors.wide)
		write_wide_record(&vectors, (uint8_t *)frame + offsetof(struct signal_frame, records),
			address + offsetof(struct signal_frame, records));

	*ret = (struct pl_remote_frame){.address = address, .bytes = (uint8_t *)frame, .size = size, .call = *regs};
	ret->call.set.pc = syscall_return_gadget;
	ret->call.set.regs[30] = sigreturn_gadget;
	ret->call.set.sp = ret->address;
	ret->call.set.pstate &= ~(PSTATE_SINGLE_STEP | PSTATE_BRANCH_TYPE);
	return 0;
}

bool pl_arch_call_loses(const void *xstate, size_t xstate_size)
{
	struct vectors vectors;

	return read_vectors(xstate, xstate_size, &vectors) == 0 && vectors.wide;
}

void pl_arch_remote_frame_syscall(pl_registers *call, long number, const uint64_t arguments[6])
{
	call->set.regs[8] = (uint64_t)number;
	memcpy(call->set.regs, arguments, 6 * sizeof(arguments[0]));
}

void pl_arch_remote_frame_routine(pl_registers *call, uint64_t routine, uint64_t argument)
{
	call->set.pc = routine;
	call->set.regs[0] = argument;
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
