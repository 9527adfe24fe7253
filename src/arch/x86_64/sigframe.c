/* SPDX-License-Identifier: MIT */
#include <asm/sigcontext.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/arch.h"

/*
 * The kernel's struct rt_sigframe (arch/x86/include/asm/sigframe.h), with the XSAVE image that its
 * fpstate points to laid above it:
 *
 *   regs.rsp          ┌──────────────────────────┐
 *                     │ 128 bytes of red zone     │  belongs to the thread: never written
 *   regs.rsp − 128    ├──────────────────────────┤
 *                     │ XSAVE image, 64-aligned   │  <── fpstate
 *                     ├──────────────────────────┤
 *                     │ sigmask                   │
 *                     │ ucontext (registers)      │
 *   call.rsp ──>      │ pretcode = rt_sigreturn   │  popped by the gadget's `ret`
 *                     └──────────────────────────┘
 *
 * rt_sigreturn takes the frame at sp − 8, which is where call.rsp stood before that `ret`.
 */

#define XSTATE_SOFTWARE_OFFSET 464 /* sw_reserved of the legacy FXSAVE area */
#define XSTATE_MIN_SIZE (512 + 64) /* the legacy area and the XSAVE header */

/* What the kernel says of its own in uc_flags: the fpstate is an XSAVE image; ss is saved, and is
 * to be restored as it stands. */
#define UC_FLAGS 0x7UL

/* do_sigaltstack() answers -EINVAL to this and rt_sigreturn ignores the answer, so that the
 * thread's own alternate stack stays as it is (tests/victims: altstack). */
#define INVALID_ALTSTACK_FLAGS 0x40

struct signal_stack {
	uint64_t sp;
	int32_t flags;
	int32_t padding;
	uint64_t size;
};

struct signal_frame {
	uint64_t pretcode;
	uint64_t flags;
	uint64_t link;
	struct signal_stack stack;
	struct sigcontext_64 context;
	uint64_t mask;
};

_Static_assert(sizeof(struct sigcontext_64) == 256, "as the kernel lays it out");
_Static_assert(sizeof(struct signal_frame) == 8 + 8 + 8 + 24 + 256 + 8, "no padding");
_Static_assert(PL_ARCH_SIGFRAME_FIRST_REGISTER == offsetof(struct signal_frame, context.r8) &&
		PL_ARCH_SIGFRAME_FIRST_REGISTER + 8 * (PL_ARCH_SIGFRAME_REGISTERS - 1) == offsetof(struct signal_frame, context.ip) &&
		PL_ARCH_SIGFRAME_INFO == sizeof(struct signal_frame),
	"as arch.h says");
_Static_assert(PL_ARCH_SIGFRAME_BYTES <= sizeof(struct signal_frame), "what a candidate is judged by");

/* A system call that a stop interrupted is restarted by the kernel when the thread goes on with its
 * own registers. Out of a signal frame it must be done by hand: back to the system call
 * instruction, or EINTR where only the kernel's own restart block could continue it. */
static void restart_by_hand(struct sigcontext_64 *context, const pl_registers *regs)
{
	if ((int64_t)regs->orig_rax < 0)
		return;
	switch ((int64_t)regs->rax) {
	case -512: /* ERESTARTSYS */
	case -513: /* ERESTARTNOINTR */
	case -514: /* ERESTARTNOHAND */
		context->ax = regs->orig_rax;
		context->ip = regs->rip - 2;
		break;
	case -516: /* ERESTART_RESTARTBLOCK: rt_sigreturn resets the block */
		context->ax = (uint64_t)-EINTR;
		break;
	default:
		break;
	}
}

static void fill_context(struct sigcontext_64 *context, const pl_registers *regs, uint64_t fpstate)
{
	*context = (struct sigcontext_64){
		.r8 = regs->r8,
		.r9 = regs->r9,
		.r10 = regs->r10,
		.r11 = regs->r11,
		.r12 = regs->r12,
		.r13 = regs->r13,
		.r14 = regs->r14,
		.r15 = regs->r15,
		.di = regs->rdi,
		.si = regs->rsi,
		.bp = regs->rbp,
		.bx = regs->rbx,
		.dx = regs->rdx,
		.ax = regs->rax,
		.cx = regs->rcx,
		.sp = regs->rsp,
		.ip = regs->rip,
		.flags = regs->eflags,
		.cs = (uint16_t)regs->cs,
		.ss = (uint16_t)regs->ss,
		.fpstate = fpstate,
	};
	restart_by_hand(context, regs);
}

/* PTRACE_GETREGSET's image has the enabled features where a signal frame has struct _fpx_sw_bytes;
 * without the magic numbers the kernel would restore the legacy part only and clear the rest. */
static void describe_xstate(uint8_t *image, size_t size)
{
	uint64_t features;
	const uint32_t magic2 = FP_XSTATE_MAGIC2;
	struct _fpx_sw_bytes software = {0};

	memcpy(&features, image + XSTATE_SOFTWARE_OFFSET, sizeof(features));
	software.magic1 = FP_XSTATE_MAGIC1;
	software.extended_size = (uint32_t)size + FP_XSTATE_MAGIC2_SIZE;
	software.xfeatures = features;
	software.xstate_size = (uint32_t)size;
	memcpy(image + XSTATE_SOFTWARE_OFFSET, &software, sizeof(software));
	memcpy(image + size, &magic2, sizeof(magic2));
}

int pl_arch_remote_frame(const pl_registers *regs, const void *xstate, size_t xstate_size, uint64_t signal_mask,
	uint64_t syscall_return_gadget, uint64_t sigreturn_gadget, struct pl_remote_frame *ret)
{
	if (xstate_size < XSTATE_MIN_SIZE)
		return -EINVAL;

	uint64_t image = (regs->rsp - PL_ARCH_RED_ZONE - xstate_size - FP_XSTATE_MAGIC2_SIZE) & ~63ULL;
	/* 16-aligned like the kernel's own frames; pretcode then sits where a return address would. */
	uint64_t frame = ((image - sizeof(struct signal_frame)) & ~15ULL) - 8;
	size_t size = image + xstate_size + FP_XSTATE_MAGIC2_SIZE - frame;
	uint8_t *bytes = calloc(1, size);

	if (!bytes)
		return -ENOMEM;

	struct signal_frame *out = (struct signal_frame *)bytes;

	out->pretcode = sigreturn_gadget;
	out->flags = UC_FLAGS;
	out->stack.flags = INVALID_ALTSTACK_FLAGS;
	out->mask = signal_mask;
	fill_context(&out->context, regs, image);
	memcpy(bytes + (image - frame), xstate, xstate_size);
	describe_xstate(bytes + (image - frame), xstate_size);

	*ret = (struct pl_remote_frame){.address = frame, .bytes = bytes, .size = size, .call = *regs};
	ret->call.rip = syscall_return_gadget;
	ret->call.rsp = frame;
	/* The direction and trap flags are the thread's own; they come back with the frame. */
	ret->call.eflags &= ~(0x400ULL | 0x100ULL);
	return 0;
}

bool pl_arch_call_loses(const void *xstate, size_t xstate_size)
{
	return false;
}

void pl_arch_remote_frame_syscall(pl_registers *call, long number, const uint64_t arguments[6])
{
	call->rax = (uint64_t)number;
	call->orig_rax = (uint64_t)-1; /* no system call to restart: the kernel leaves rip alone */
	call->rdi = arguments[0];
	call->rsi = arguments[1];
	call->rdx = arguments[2];
	call->r10 = arguments[3];
	call->r8 = arguments[4];
	call->r9 = arguments[5];
}

void pl_arch_remote_frame_routine(pl_registers *call, uint64_t routine, uint64_t argument)
{
	call->rip = routine;
	call->rdi = argument;
	call->rax = 0;
	call->orig_rax = (uint64_t)-1; /* as above */
}

bool pl_arch_sigframe_registers(const void *frame, size_t size, pl_registers *ret, uint64_t *ret_restorer)
{
	struct signal_frame candidate;

	if (size < PL_ARCH_SIGFRAME_BYTES)
		return false;
	memcpy(&candidate, frame, PL_ARCH_SIGFRAME_BYTES);
	/* Only bits that the kernel sets, native code, and a segment that user space has. */
	if (candidate.flags & ~UC_FLAGS || candidate.context.cs != 0x33)
		return false;

	const struct sigcontext_64 *context = &candidate.context;

	*ret_restorer = candidate.pretcode;
	*ret = (pl_registers){
		.r8 = context->r8,
		.r9 = context->r9,
		.r10 = context->r10,
		.r11 = context->r11,
		.r12 = context->r12,
		.r13 = context->r13,
		.r14 = context->r14,
		.r15 = context->r15,
		.rdi = context->di,
		.rsi = context->si,
		.rbp = context->bp,
		.rbx = context->bx,
		.rdx = context->dx,
		.rax = context->ax,
		.rcx = context->cx,
		.rsp = context->sp,
		.rip = context->ip,
		.eflags = context->flags,
		.cs = context->cs,
	};
	return true;
}
