/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "pyleak/cleanup.h"
#include "pyleak/memory.h"
#include "pyleak/process.h"
#include "pyleak/trace.h"
#include "pyleak/units.h"
#include "ptrace.h"

#define XSTATE_CAPACITY 16384 /* AMX needs 11 KiB */
#define CALL_PATIENCE_NSEC (2 * PL_NSEC_PER_SEC)
/* One SIGSTOP is reported up to four times, and others may follow. */
#define GROUP_STOP_TRIES 16
#define ROUTINE_STACK 512
#define FAULTS (1ULL << (SIGSEGV - 1) | 1ULL << (SIGBUS - 1))

/*
 * One remote call, step by step, and what happens if the tracer dies right after:
 *
 *   write the frame below the red zone          dead bytes
 *   set all registers, at a system call; ret    the call is made, `ret` leads into rt_sigreturn,
 *                                               which puts registers, state and mask back
 *   block all signals                           the same; rt_sigreturn restores the mask
 *   PTRACE_SYSCALL twice, read the result       the same
 *   restore the mask                            the same
 *   restore what a call loses (SVE)             the same
 *   restore the registers                       an interrupted system call is restarted
 *   INTERRUPT, CONT: stop again                 done
 *
 * The mask is changed after the registers and restored before them, so that whatever instant is the
 * last one, the frame still holds the true mask. tests/torture/kill_storm.py visits each step.
 */
struct pl_remote {
	struct pl_tracee *tracee;
	struct pl_thread *thread;
	pl_registers original;
	struct pl_remote_frame frame;
	uint64_t signal_mask;
	uint64_t mask_now;
	int owed_signal; /* came meanwhile, and is passed on at the end */
	bool redirected;
	bool filter_suspended;
	uint8_t *lost; /* what a call takes of the thread's state (pl_arch_call_loses()); NULL: nothing */
	size_t lost_size;
};

static int find_bytes(pid_t pid, const struct pl_map *map, const uint8_t *pattern, size_t length, uint64_t *ret)
{
	enum { CHUNK = 1 << 16 };
	pl_autofree uint8_t *chunk = malloc(CHUNK);

	if (!chunk)
		return -ENOMEM;
	for (uint64_t at = map->start; at < map->end; at += CHUNK - length) {
		size_t want = map->end - at < CHUNK ? map->end - at : CHUNK;
		ssize_t got = pl_memory_read_some(pid, at, chunk, want);

		if (got < (ssize_t)length)
			break;

		const uint8_t *hit = memmem(chunk, (size_t)got, pattern, length);

		if (hit) {
			*ret = at + (uint64_t)(hit - chunk);
			return 0;
		}
	}
	return -ENOENT;
}

/* By its name, which only says where to look first. */
static bool may_be_c_library(const struct pl_map *map)
{
	const char *slash = strrchr(map->path, '/');

	return slash && (strncmp(slash, "/libc.", 6) == 0 || strncmp(slash, "/libc-", 6) == 0 ||
				strncmp(slash, "/ld-musl-", 9) == 0);
}

/* The C library has both. What is read of the others is in the process's memory from then on, and a library of numerics
 * has 30 MB of code. */
int pl_gadgets_find(pid_t pid, const struct pl_maps *maps, struct pl_gadgets *ret, struct pl_error *err)
{
	*ret = (struct pl_gadgets){0};
	for (int others = 0; others < 2; others++)
		for (size_t i = 0; i < maps->count; i++) {
			const struct pl_map *map = &maps->items[i];

			bool vdso = PL_ARCH_GADGETS_IN_VDSO && strcmp(map->path, "[vdso]") == 0;

			if (!(map->flags & PL_MAP_EXEC) || (!map->inode && !vdso) || may_be_c_library(map) == others)
				continue;
			if (!ret->syscall_return)
				(void)find_bytes(pid, map, pl_arch_syscall_return, pl_arch_syscall_return_size,
					&ret->syscall_return);
			if (!ret->sigreturn)
				(void)find_bytes(pid, map, pl_arch_sigreturn, pl_arch_sigreturn_size, &ret->sigreturn);
			if (ret->syscall_return && ret->sigreturn)
				return 0;
		}
	return pl_fail(err, -ENOEXEC,
		"process %d has no C library whose code pyleak can use for a system call: it cannot be hooked", (int)pid);
}

static bool gadgets_hold(pid_t pid, const struct pl_gadgets *gadgets)
{
	uint8_t text[16];

	return pl_memory_read(pid, gadgets->syscall_return, text, pl_arch_syscall_return_size) == 0 &&
	       memcmp(text, pl_arch_syscall_return, pl_arch_syscall_return_size) == 0 &&
	       pl_memory_read(pid, gadgets->sigreturn, text, pl_arch_sigreturn_size) == 0 &&
	       memcmp(text, pl_arch_sigreturn, pl_arch_sigreturn_size) == 0;
}

/* Whether the stack pointer lies in the thread's own stack: "[stack]" of the main thread, else the mapping
 * that also holds the thread's control block (glibc and musl put it on top of the stack). A thread
 * on an alternate stack or a coroutine's has foreign bytes below, and is not taken. */
static const struct pl_map *own_stack(const struct pl_maps *maps, const pl_registers *regs)
{
	const struct pl_map *map = pl_maps_find(maps, pl_registers_sp(regs));

	if (!map || (map->flags & (PL_MAP_READ | PL_MAP_WRITE | PL_MAP_SHARED)) != (PL_MAP_READ | PL_MAP_WRITE))
		return NULL;
	if (strcmp(map->path, "[stack]") == 0)
		return map;

	uint64_t pointer = pl_registers_thread_pointer(regs);

	return pointer >= map->start && pointer < map->end ? map : NULL;
}

/* The kernel clears the thread's rseq_cs when it sees a foreign instruction pointer
 * (kernel/rseq.c), and the section would then commit although it was interrupted. */
static bool inside_restartable_sequence(const struct pl_thread *thread, const pl_registers *regs)
{
	struct {
		uint32_t version, flags;
		uint64_t start, length, abort;
	} section;
	uint64_t area = 0, descriptor;

	if (pl_ptrace_get_rseq(thread->tid, &area) < 0 || !area)
		return false;
	/* struct rseq: cpu_id_start, cpu_id, rseq_cs */
	if (pl_memory_read_u64(thread->tid, area + 8, &descriptor) < 0 || !descriptor)
		return false;
	if (pl_memory_read(thread->tid, descriptor, &section, sizeof(section)) < 0)
		return true;
	return pl_registers_ip(regs) - section.start < section.length;
}

static int prepare(struct pl_remote *remote, struct pl_thread *thread, const struct pl_maps *maps,
	const struct pl_gadgets *gadgets, uint8_t *xstate)
{
	size_t xstate_size;
	int code = pl_ptrace_get_registers(thread->tid, &remote->original);

	if (code < 0)
		return code;
	if (!pl_registers_native(&remote->original) || inside_restartable_sequence(thread, &remote->original) ||
		pl_ptrace_is_streaming(thread->tid))
		return -EAGAIN;

	const struct pl_map *stack = own_stack(maps, &remote->original);

	if (!stack)
		return -EAGAIN;
	code = pl_ptrace_get_xstate(thread->tid, xstate, XSTATE_CAPACITY, &xstate_size);
	if (code < 0)
		return code;
	code = pl_ptrace_get_signal_mask(thread->tid, &remote->signal_mask);
	if (code < 0)
		return code;
	code = pl_arch_remote_frame(&remote->original, xstate, xstate_size, remote->signal_mask,
		gadgets->syscall_return, gadgets->sigreturn, &remote->frame);
	if (code < 0)
		return code;
	/* A stack that grows does so under the routine too. */
	if (remote->frame.address < stack->start + ROUTINE_STACK && (strcmp(stack->path, "[stack]") != 0 ||
		remote->frame.address < stack->start)) {
		free(PL_TAKE(remote->frame.bytes));
		return -EAGAIN;
	}
	if (pl_arch_call_loses(xstate, xstate_size)) {
		remote->lost = malloc(xstate_size);
		if (!remote->lost) {
			free(PL_TAKE(remote->frame.bytes));
			return -ENOMEM;
		}
		memcpy(remote->lost, xstate, xstate_size);
		remote->lost_size = xstate_size;
	}
	remote->thread = thread;
	return 0;
}

/* A wait that the kernel cut short with a restart block is the one thing that a signal frame cannot
 * continue (it would end in EINTR if we died); such threads come last. */
static bool has_restart_block(const struct pl_thread *thread)
{
	pl_registers regs;

	return pl_ptrace_get_registers(thread->tid, &regs) == 0 && pl_registers_in_restart_block(&regs);
}

static unsigned long usual_options(const struct pl_tracee *tracee)
{
	return tracee->follow_threads ? PL_FOLLOW_OPTIONS : PL_TRACE_OPTIONS;
}

int pl_remote_begin(struct pl_tracee *tracee, const struct pl_maps *maps, const struct pl_gadgets *gadgets,
	struct pl_remote **ret, struct pl_error *err)
{
	pl_autofree uint8_t *xstate = malloc(XSTATE_CAPACITY);
	pl_autofree struct pl_remote *remote = calloc(1, sizeof(*remote));
	int code = -EAGAIN;

	if (!xstate || !remote)
		return pl_fail(err, -ENOMEM, "out of memory");
	if (!gadgets_hold(tracee->threads[0].tid, gadgets))
		return pl_fail(err, -EAGAIN, "the code of process %d changed meanwhile", (int)tracee->pid);
	remote->tracee = tracee;
	for (int pass = 0; pass < 2 && !remote->thread; pass++)
		for (size_t i = 0; i < tracee->count && !remote->thread; i++) {
			struct pl_thread *thread = &tracee->threads[i];

			if (thread->state != PL_THREAD_STOPPED || (pass == 0 && has_restart_block(thread)))
				continue;
			code = prepare(remote, thread, maps, gadgets, xstate);
			if (code < 0 && code != -EAGAIN)
				return code;
		}
	if (!remote->thread)
		return pl_fail(err, -EAGAIN, "no thread of process %d can carry a system call at this moment: try again",
			(int)tracee->pid);
	/* Whether it has one is only asked where that is denied: to read it takes longer than all of the rest. */
	code = pl_ptrace_set_options(remote->thread->tid, usual_options(tracee) | PTRACE_O_SUSPEND_SECCOMP);
	remote->filter_suspended = code == 0;
	/* Looked at again here: the program may have put on one of its own since it was found harmless. */
	if (code < 0 && pl_process_has_filter(remote->thread->tid) && !pl_process_filter_is_containers(remote->thread->tid)) {
		code = pl_fail(err, code, "the seccomp filter of process %d cannot be suspended: %s", (int)tracee->pid,
			strerror(-code));
		goto fail;
	}
	code = pl_tracee_write(tracee, remote->frame.address, remote->frame.bytes, remote->frame.size);
	if (code < 0)
		goto fail;
	*ret = PL_TAKE(remote);
	return 0;
fail:
	free(remote->frame.bytes);
	free(remote->lost);
	return code;
}

/* Goes on to the next system call stop, whatever else is reported in between. */
static int to_syscall_stop(struct pl_remote *remote)
{
	struct pl_thread *thread = remote->thread;
	int64_t deadline = pl_now_ns() + CALL_PATIENCE_NSEC;
	int tries = GROUP_STOP_TRIES;
	int code = pl_ptrace_syscall(thread->tid, 0);

	if (code < 0)
		return code;
	while (pl_now_ns() < deadline) {
		int status;
		pid_t tid = pl_ptrace_wait(thread->tid, &status);

		if (tid < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (!WIFSTOPPED(status)) {
			thread->state = PL_THREAD_GONE;
			return -ESRCH;
		}
		if (WSTOPSIG(status) == (SIGTRAP | 0x80) && status >> 16 == 0)
			return 0;
		/* All signals that can be are blocked, so this is SIGSTOP on its way, or a group stop, that
		 * the process was in or that began just now (it is reported before the thread may go on), or
		 * an interrupt stop. The call is made all the same; the process is then found stopped. */
		bool stop_signal = status >> 16 == 0 && WSTOPSIG(status) == SIGSTOP;

		if (status >> 16 == 0 && (WSTOPSIG(status) == SIGSEGV || WSTOPSIG(status) == SIGBUS)) {
			int origin = 0;

			/* Sent by somebody: it is for the program. */
			if (pl_ptrace_get_signal_code(thread->tid, &origin) == 0 && origin <= 0) {
				remote->owed_signal = WSTOPSIG(status);
				code = pl_ptrace_syscall(thread->tid, 0);
				if (code < 0)
					return code;
				continue;
			}
			return -EFAULT;
		}

		if ((status >> 16 != PTRACE_EVENT_STOP && !stop_signal) || tries-- == 0)
			return -EPROTO;
		code = pl_ptrace_syscall(thread->tid, stop_signal ? SIGSTOP : 0);
		if (code < 0)
			return code;
	}
	/* It goes on by itself, and is known to when it is let go. */
	thread->state = PL_THREAD_RUNNING;
	return -ETIMEDOUT;
}

/* Once the registers are set: see above. */
static int block_signals(struct pl_remote *remote, uint64_t mask)
{
	if (remote->redirected && remote->mask_now == mask)
		return 0;
	remote->redirected = true;
	remote->mask_now = mask;
	return pl_ptrace_set_signal_mask(remote->thread->tid, mask);
}

int pl_remote_call(struct pl_remote *remote, long number, const uint64_t arguments[6], int64_t *ret_result)
{
	pid_t tid = remote->thread->tid;
	pl_registers call = remote->frame.call, after;
	int code;

	pl_arch_remote_frame_syscall(&call, number, arguments);
	code = pl_ptrace_set_registers(tid, &call);
	if (code < 0)
		return code;
	code = block_signals(remote, ~0ULL);
	if (code == 0)
		code = to_syscall_stop(remote);
	if (code == 0)
		code = to_syscall_stop(remote);
	if (code == 0)
		code = pl_ptrace_get_registers(tid, &after);
	if (code)
		return code;
	*ret_result = pl_registers_result(&after);
	return 0;
}

int pl_remote_run(struct pl_remote *remote, uint64_t routine, uint64_t argument, uint64_t done)
{
	pid_t tid = remote->thread->tid;
	pl_registers call = remote->frame.call, now = {0};
	int code;

	pl_arch_remote_frame_routine(&call, routine, argument);
	code = pl_ptrace_set_registers(tid, &call);
	/* A signal of a fault that comes while it is blocked would end the process (kernel/signal.c,
	 * force_sig_info_to_task()); like this it is reported to us, and nobody else sees it. */
	if (code == 0)
		code = block_signals(remote, ~FAULTS);
	while (code == 0) {
		code = to_syscall_stop(remote);
		if (code == 0)
			code = pl_ptrace_get_registers(tid, &now);
		if (code == 0)
			code = to_syscall_stop(remote);
		if (code == 0 && pl_registers_syscall(&now) == SYS_madvise && pl_registers_first_argument(&now) == done)
			return 0;
	}
	return code;
}

/* The thread must be seen in an interrupt stop again before anything else is done with it: at its
 * next CONT or DETACH the kernel then restarts the system call that we interrupted. */
static int stop_again(struct pl_thread *thread, int owed_signal)
{
	int code = pl_ptrace_interrupt(thread->tid);

	if (code == 0)
		code = pl_ptrace_continue(thread->tid, owed_signal);
	while (code == 0) {
		int status;

		if (pl_ptrace_wait(thread->tid, &status) < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (!WIFSTOPPED(status)) {
			thread->state = PL_THREAD_GONE;
			return -ESRCH;
		}
		if (status >> 16 == PTRACE_EVENT_STOP) {
			thread->group_stopped = WSTOPSIG(status) != SIGTRAP;
			return 0;
		}
		/* A signal came first (any trap clears a pending INTERRUPT). */
		(void)pl_ptrace_interrupt(thread->tid);
		code = pl_ptrace_continue(thread->tid, status >> 16 ? 0 : WSTOPSIG(status));
	}
	return code;
}

int pl_remote_end(struct pl_remote *remote)
{
	int code = 0;

	if (!remote)
		return 0;
	if (remote->redirected && remote->thread->state == PL_THREAD_STOPPED) {
		code = pl_ptrace_set_signal_mask(remote->thread->tid, remote->signal_mask);
		if (code == 0 && remote->lost)
			code = pl_ptrace_set_xstate(remote->thread->tid, remote->lost, remote->lost_size);
		/* Else a thread whose own word there looks like -ERESTARTSYS would have its registers "rolled back". */
		if (code == 0)
			code = pl_ptrace_forget_call(remote->thread->tid);
		if (code == 0)
			code = pl_ptrace_set_registers(remote->thread->tid, &remote->original);
		if (code == 0)
			code = stop_again(remote->thread, remote->owed_signal);
	}
	/* The filter guards the program again while it runs under us. */
	if (remote->filter_suspended && remote->thread->state == PL_THREAD_STOPPED) {
		int restored = pl_ptrace_set_options(remote->thread->tid, usual_options(remote->tracee));

		code = code ? code : restored;
	}
	free(remote->frame.bytes);
	free(remote->lost);
	free(remote);
	return code;
}
