/* SPDX-License-Identifier: MIT */
#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pyleak/trace.h"
#include "ptrace.h"

#ifndef PTRACE_GET_RSEQ_CONFIGURATION
#define PTRACE_GET_RSEQ_CONFIGURATION 0x420f
#endif
struct rseq_configuration { /* struct ptrace_rseq_configuration, Linux 5.13 */
	uint64_t address;
	uint32_t size, signature, flags, padding;
};

static unsigned int steps;

unsigned int pl_trace_steps(void)
{
	return steps;
}

void pl_fault_point(void)
{
	static long fault = -1;

	if (fault < 0) {
		const char *text = getenv("PYLEAK_FAULT");

		fault = text ? strtol(text, NULL, 10) : 0;
	}
	if (++steps == (unsigned long)fault)
		(void)kill(getpid(), SIGKILL);
}

static int step(int request, pid_t tid, uintptr_t address, uintptr_t data)
{
	long result = ptrace((enum __ptrace_request)request, tid, (void *)address, (void *)data);
	int code = result < 0 ? -errno : 0;

	pl_fault_point();
	return code;
}

static pid_t held, asked; /* of `asked` the stop is on its way */

void pl_ptrace_hold(pid_t tid)
{
	held = tid;
}

bool pl_ptrace_is_held(pid_t tid)
{
	return tid && held == tid;
}

/* The interrupt is asked for while it stands, so that it cannot come back into the program before that. */
static int take_over(pid_t tid, unsigned long options)
{
	int code = pl_ptrace_set_options(tid, options);

	held = 0;
	if (code == 0)
		code = step(PTRACE_INTERRUPT, tid, 0, 0);
	if (code == 0)
		code = step(PTRACE_CONT, tid, 0, 0);
	asked = code == 0 ? tid : 0;
	return code;
}

int pl_ptrace_seize(pid_t tid, unsigned long options)
{
	return pl_ptrace_is_held(tid) ? take_over(tid, options) : step(PTRACE_SEIZE, tid, 0, options);
}

int pl_ptrace_interrupt(pid_t tid)
{
	/* A second one would make a second stop, at a moment when nobody expects it. */
	if (asked == tid) {
		asked = 0;
		return 0;
	}
	return step(PTRACE_INTERRUPT, tid, 0, 0);
}

int pl_ptrace_continue(pid_t tid, int signal)
{
	return step(PTRACE_CONT, tid, 0, (uintptr_t)signal);
}

int pl_ptrace_listen(pid_t tid)
{
	return step(PTRACE_LISTEN, tid, 0, 0);
}

int pl_ptrace_syscall(pid_t tid, int signal)
{
	return step(PTRACE_SYSCALL, tid, 0, (uintptr_t)signal);
}

int pl_ptrace_detach(pid_t tid, int signal)
{
	return step(PTRACE_DETACH, tid, 0, (uintptr_t)signal);
}

int pl_ptrace_set_options(pid_t tid, unsigned long options)
{
	return step(PTRACE_SETOPTIONS, tid, 0, options);
}

static struct {
	pid_t pid;
	int status;
	bool ended;
} started;

void pl_ptrace_started(pid_t pid)
{
	started.pid = pid;
	started.ended = false;
}

static pid_t wait_for(pid_t tid, int *ret_status, int options)
{
	pid_t got = waitpid(tid, ret_status, __WALL | options);

	if (got > 0 && got == started.pid && !WIFSTOPPED(*ret_status)) {
		started.ended = true;
		started.status = *ret_status;
	}
	return got;
}

pid_t pl_ptrace_wait(pid_t tid, int *ret_status)
{
	return wait_for(tid, ret_status, 0);
}

pid_t pl_ptrace_poll(pid_t tid, int *ret_status)
{
	return wait_for(tid, ret_status, WNOHANG);
}

bool pl_ptrace_ended(pid_t pid, int *ret_status)
{
	if (started.pid != pid || !started.ended)
		return false;
	*ret_status = started.status;
	return true;
}

int pl_ptrace_get_registers(pid_t tid, pl_registers *regs)
{
	struct iovec piece = {regs, PL_ARCH_PRSTATUS_BYTES};
	int code = step(PTRACE_GETREGSET, tid, NT_PRSTATUS, (uintptr_t)&piece);
	uint64_t pointer = 0;

	if (code < 0)
		return code;
	/* A shorter set is that of a 32-bit thread. */
	if (piece.iov_len != PL_ARCH_PRSTATUS_BYTES)
		return -ENOEXEC;
	if (PL_ARCH_NT_THREAD_POINTER) {
		piece = (struct iovec){&pointer, sizeof(pointer)};
		code = step(PTRACE_GETREGSET, tid, PL_ARCH_NT_THREAD_POINTER, (uintptr_t)&piece);
		pl_registers_set_thread_pointer(regs, pointer);
	}
	return code;
}

int pl_ptrace_set_registers(pid_t tid, const pl_registers *regs)
{
	struct iovec piece = {(void *)regs, PL_ARCH_PRSTATUS_BYTES};

	return step(PTRACE_SETREGSET, tid, NT_PRSTATUS, (uintptr_t)&piece);
}

int pl_ptrace_forget_call(pid_t tid)
{
	int none = -1;
	struct iovec piece = {&none, sizeof(none)};

	return PL_ARCH_NT_SYSTEM_CALL ? step(PTRACE_SETREGSET, tid, PL_ARCH_NT_SYSTEM_CALL, (uintptr_t)&piece) : 0;
}

int pl_ptrace_get_xstate(pid_t tid, void *buffer, size_t capacity, size_t *ret_size)
{
	struct iovec piece = {buffer, capacity};
	int code = step(PTRACE_GETREGSET, tid, PL_ARCH_NT_STATE, (uintptr_t)&piece);

	if (PL_ARCH_NT_STATE_ELSE && code == -EINVAL)
		code = step(PTRACE_GETREGSET, tid, PL_ARCH_NT_STATE_ELSE, (uintptr_t)&piece);
	if (code < 0)
		return code;
	/* The kernel fills what fits and says no more than that: a full buffer may be a cut image. */
	if (piece.iov_len >= capacity)
		return -E2BIG;
	*ret_size = piece.iov_len;
	return 0;
}

int pl_ptrace_set_xstate(pid_t tid, const void *buffer, size_t size)
{
	struct iovec piece = {(void *)buffer, size};

	return step(PTRACE_SETREGSET, tid, PL_ARCH_NT_STATE, (uintptr_t)&piece);
}

bool pl_ptrace_is_streaming(pid_t tid)
{
	/* struct user_sve_header: the vectors follow if the thread is in that mode. */
	struct {
		uint32_t size, max_size;
		uint16_t vl, max_vl, flags, reserved;
	} header = {0};
	enum { HAS_VECTORS = 1 };
	struct iovec piece = {&header, sizeof(header)};

	return PL_ARCH_NT_STREAMING && step(PTRACE_GETREGSET, tid, PL_ARCH_NT_STREAMING, (uintptr_t)&piece) == 0 &&
	       header.flags & HAS_VECTORS;
}

int pl_ptrace_get_signal_mask(pid_t tid, uint64_t *ret_mask)
{
	return step(PTRACE_GETSIGMASK, tid, sizeof(*ret_mask), (uintptr_t)ret_mask);
}

int pl_ptrace_set_signal_mask(pid_t tid, uint64_t mask)
{
	return step(PTRACE_SETSIGMASK, tid, sizeof(mask), (uintptr_t)&mask);
}

int pl_ptrace_poke(pid_t tid, uint64_t address, uint64_t word)
{
	return step(PTRACE_POKEDATA, tid, address, word);
}

int pl_ptrace_get_rseq(pid_t tid, uint64_t *ret_address)
{
	struct rseq_configuration configuration = {0};
	int code = step(PTRACE_GET_RSEQ_CONFIGURATION, tid, sizeof(configuration), (uintptr_t)&configuration);

	*ret_address = configuration.address;
	return code == -EIO || code == -EINVAL ? 0 : code;
}

int pl_ptrace_get_new_thread(pid_t tid, pid_t *ret_new)
{
	unsigned long message = 0;
	int code = step(PTRACE_GETEVENTMSG, tid, 0, (uintptr_t)&message);

	*ret_new = (pid_t)message;
	return code;
}

int pl_ptrace_get_signal_code(pid_t tid, int *ret_code)
{
	siginfo_t info;
	int code = step(PTRACE_GETSIGINFO, tid, 0, (uintptr_t)&info);

	if (code < 0)
		return code;
	*ret_code = info.si_code;
	return 0;
}
