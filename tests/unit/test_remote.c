/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pyleak/maps.h"
#include "pyleak/memory.h"
#include "pyleak/process.h"
#include "pyleak/trace.h"
#include "pyleak/units.h"

/*
 * System calls made in a child that checks itself all the while: it counts in registers and below
 * its stack pointer, and exits with 1 as soon as something is not what it wrote. Once with nobody
 * in its way, then with a tracer that is killed after each of its steps.
 */

static volatile uint64_t *shared; /* progress of the child */

__attribute__((noinline)) static int spin_and_check(void)
{
	uint64_t bad;

	/* The red zone, a callee-saved register and a vector register hold a pattern. */
	__asm__ volatile("mov $0x1122334455667788, %%rbx\n\t"
			 "movq %%rbx, %%xmm7\n\t"
			 "mov $200000, %%rcx\n"
			 "1:\n\t"
			 "mov %%rbx, -8(%%rsp)\n\t"
			 "mov %%rcx, -128(%%rsp)\n\t"
			 "pause\n\t"
			 "cmp %%rbx, -8(%%rsp)\n\t"
			 "jne 2f\n\t"
			 "cmp %%rcx, -128(%%rsp)\n\t"
			 "jne 2f\n\t"
			 "movq %%xmm7, %%rax\n\t"
			 "cmp %%rbx, %%rax\n\t"
			 "jne 2f\n\t"
			 "dec %%rcx\n\t"
			 "jnz 1b\n\t"
			 "xor %%eax, %%eax\n\t"
			 "jmp 3f\n"
			 "2:\n\t"
			 "mov $1, %%eax\n"
			 "3:\n\t"
			 : "=a"(bad)
			 :
			 : "rbx", "rcx", "xmm7", "memory", "cc");
	return (int)bad;
}

static void child_main(bool sleeping)
{
	sigset_t mask;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR2);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	for (;;) {
		sigset_t now;

		if (sleeping) {
			const struct timespec nap = {0, 2000000};

			if (nanosleep(&nap, NULL) < 0)
				_exit(2);
		} else if (spin_and_check()) {
			_exit(1);
		}
		sigprocmask(SIG_BLOCK, NULL, &now);
		if (!sigismember(&now, SIGUSR2) || sigismember(&now, SIGUSR1) || sigismember(&now, SIGTRAP))
			_exit(3);
		(*shared)++;
	}
}

static pid_t start_child(bool sleeping)
{
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	pid_t pid = fork();

	if (pid == 0)
		child_main(sleeping);
	while (!*shared)
		usleep(1000);
	return pid;
}

static void assert_goes_on(pid_t pid)
{
	uint64_t before = *shared;
	int status;

	for (int i = 0; i < 2000 && *shared < before + 3; i++)
		usleep(1000);
	cr_assert_eq(waitpid(pid, &status, WNOHANG), 0, "the child ended with %#x", status);
	cr_assert_geq(*shared, before + 3, "the child does not go on");
}

static void end_child(pid_t pid)
{
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
}

/* Maps a page in the child and unmaps it. */
static int map_and_unmap(pid_t pid, struct pl_error *err)
{
	struct pl_maps maps = {0};
	struct pl_gadgets gadgets;
	struct pl_tracee *tracee = NULL;
	struct pl_remote *remote = NULL;
	int64_t address = 0, result = -1;
	int code = pl_maps_read(pid, &maps);

	if (code == 0)
		code = pl_gadgets_find(pid, &maps, &gadgets, err);
	if (code == 0)
		code = pl_tracee_seize(pid, PL_NSEC_PER_SEC, &tracee, err);
	if (code == 0)
		code = pl_remote_begin(tracee, &maps, &gadgets, &remote, err);
	if (code == 0)
		code = pl_remote_call(remote, SYS_mmap,
			(const uint64_t[6]){0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, (uint64_t)-1, 0},
			&address);
	if (code == 0)
		code = pl_tracee_write(tracee, (uint64_t)address, "\xc3", 1);
	if (code == 0)
		code = pl_remote_call(remote, SYS_munmap, (const uint64_t[6]){(uint64_t)address, 4096, 0, 0, 0, 0}, &result);
	if (code == 0)
		code = (int)result;
	(void)pl_remote_end(remote);
	pl_tracee_detach(tracee);
	pl_maps_free(&maps);
	return code;
}

static void repeat(bool sleeping)
{
	pid_t pid = start_child(sleeping);

	for (int i = 0; i < 50; i++) {
		struct pl_error err = {0};

		cr_assert_eq(map_and_unmap(pid, &err), 0, "%s", err.text);
	}
	assert_goes_on(pid);
	end_child(pid);
}

Test(remote, leaves_a_spinning_thread_as_it_was)
{
	repeat(false);
}

Test(remote, leaves_a_sleeping_thread_as_it_was)
{
	repeat(true);
}

/* The tracer is a process of its own that dies of SIGKILL after its n-th step, n = 1, 2, … until it
 * comes through. */
static void die_at_each_step(bool sleeping)
{
	pid_t pid = start_child(sleeping);
	int step, status = 0;

	for (step = 1; step < 200; step++) {
		pid_t tracer = fork();

		if (tracer == 0) {
			char text[16];

			snprintf(text, sizeof(text), "%d", step);
			setenv("PYLEAK_FAULT", text, 1);
			_exit(map_and_unmap(pid, NULL) == 0 ? 0 : 1);
		}
		(void)waitpid(tracer, &status, 0);
		assert_goes_on(pid);
		if (WIFEXITED(status))
			break;
		cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "no round came through: status %#x", status);
	cr_assert_gt(step, 15, "only %d steps: the fault point is not where it should be", step);
	end_child(pid);
}

Test(remote, survives_its_tracer_at_each_step_spinning, .timeout = 120)
{
	die_at_each_step(false);
}

/* One that sleeps may see EINTR if the tracer dies while it is redirected and the kernel's restart
 * block is all that could continue it: nanosleep is such a call, so this one polls a pipe instead. */
Test(remote, survives_its_tracer_in_a_read, .timeout = 120)
{
	int pipe_fds[2];
	char byte;

	cr_assert_eq(pipe(pipe_fds), 0);

	pid_t pid = fork();

	if (pid == 0) {
		ssize_t got;

		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		got = read(pipe_fds[0], &byte, 1);

		_exit(got == 1 && byte == 'x' ? 0 : 4);
	}
	usleep(50000);
	for (int step = 1; step < 60; step++) {
		pid_t tracer = fork();

		if (tracer == 0) {
			char text[16];

			snprintf(text, sizeof(text), "%d", step);
			setenv("PYLEAK_FAULT", text, 1);
			_exit(map_and_unmap(pid, NULL) == 0 ? 0 : 1);
		}
		(void)waitpid(tracer, NULL, 0);
		cr_assert_eq(waitpid(pid, NULL, WNOHANG), 0, "read() came back after step %d", step);
	}

	int status;

	cr_assert_eq(write(pipe_fds[1], "x", 1), 1);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", status);
}

static void *sleep_forever(void *unused)
{
	for (;;)
		pause();
	return unused;
}

/* -- a routine in the thread ------------------------------------------------------------------------------ */

#define ROUTINE_END 0xfffffffff000

/* Adds one to a word, and ends as it must. */
void add_one(uint64_t *word);
__asm__(".text\n"
	"add_one:\n\t"
	"push %rbx\n\t"
	"incq (%rdi)\n\t"
	"mov $28, %eax\n\t" /* madvise */
	"movabs $0xfffffffff000, %rdi\n\t"
	"xor %esi, %esi\n\t"
	"xor %edx, %edx\n\t"
	"syscall\n\t"
	"pop %rbx\n\t"
	"ret\n");

static int run_routine(pid_t pid, uint64_t argument, struct pl_error *err)
{
	struct pl_maps maps = {0};
	struct pl_gadgets gadgets;
	struct pl_tracee *tracee = NULL;
	struct pl_remote *remote = NULL;
	int code = pl_maps_read(pid, &maps);

	if (code == 0)
		code = pl_gadgets_find(pid, &maps, &gadgets, err);
	if (code == 0)
		code = pl_remote_hold(pid, &maps, &gadgets, NULL, &tracee, &remote, err);
	if (code == 0)
		code = pl_remote_run(remote, (uint64_t)add_one, argument, ROUTINE_END);
	(void)pl_remote_end(remote);
	pl_tracee_detach(tracee);
	pl_maps_free(&maps);
	return code;
}

Test(remote, runs_a_routine_in_a_thread)
{
	pid_t pid = start_child(false);

	for (uint64_t i = 1; i <= 20; i++) {
		struct pl_error err = {0};

		cr_assert_eq(run_routine(pid, (uint64_t)&shared[100], &err), 0, "%s", err.text);
		cr_assert_eq(shared[100], i);
	}
	assert_goes_on(pid);
	end_child(pid);
}

/* The word is gone: the tracer hears of it, and the process does not. */
Test(remote, takes_a_thread_back_from_a_fault)
{
	pid_t pid = start_child(false);

	for (int i = 0; i < 20; i++) {
		struct pl_error err = {0};

		cr_assert_eq(run_routine(pid, i % 2 ? 0x1000 : (uint64_t)add_one, &err), -EFAULT, "%s", err.text);
		cr_assert_eq(run_routine(pid, (uint64_t)&shared[100], &err), 0, "%s", err.text);
	}
	cr_assert_eq(shared[100], 20);
	assert_goes_on(pid);
	end_child(pid);
}

/* Each step may be the last: then the routine is gone through or it is not, and the thread goes on. */
Test(remote, survives_its_tracer_at_each_step_of_a_routine, .timeout = 120)
{
	pid_t pid = start_child(false);
	int step, status = 0;

	for (step = 1; step < 100; step++) {
		uint64_t before = shared[100];
		pid_t tracer = fork();

		if (tracer == 0) {
			char text[16];

			snprintf(text, sizeof(text), "%d", step);
			setenv("PYLEAK_FAULT", text, 1);
			_exit(run_routine(pid, (uint64_t)&shared[100], NULL) == 0 ? 0 : 1);
		}
		(void)waitpid(tracer, &status, 0);
		assert_goes_on(pid);
		cr_assert_leq(shared[100] - before, 1);
		if (WIFEXITED(status))
			break;
		cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "no round came through: status %#x", status);
	cr_assert_gt(step, 12, "only %d steps: the fault point is not where it should be", step);
	end_child(pid);
}

/* -- one thread alone --------------------------------------------------------------------------------------- */

/* A thread in vfork cannot be stopped before its child is done; then it must not wait for us. */
Test(trace, lets_go_of_a_thread_that_stops_late)
{
	int pipe_fds[2], status;

	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_eq(pipe(pipe_fds), 0);

	pid_t pid = fork();

	if (pid == 0) {
		char byte;

		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		*shared = 1;
		if (vfork() == 0)
			_exit((int)read(pipe_fds[0], &byte, 1));
		*shared = 2;
		sleep_forever(NULL);
	}
	while (!*shared)
		usleep(1000);
	usleep(50000);

	struct pl_tracee *tracee = NULL;

	cr_assert_eq(pl_tracee_hold(pid, pid, 50 * PL_NSEC_PER_MSEC, &tracee), -ETIMEDOUT);
	cr_assert_null(tracee);
	/* The second time it is ours already. */
	cr_assert_eq(pl_tracee_hold(pid, pid, 50 * PL_NSEC_PER_MSEC, &tracee), -ETIMEDOUT);
	pl_trace_release_late();
	cr_assert_eq(*shared, 1);
	cr_assert_eq(write(pipe_fds[1], "x", 1), 1);
	for (int i = 0; i < 2000 && *shared == 1; i++) {
		usleep(1000);
		pl_trace_release_late();
	}
	cr_assert_eq(*shared, 2, "it stands still");
	cr_assert_eq(waitpid(pid, &status, WNOHANG), 0);
	end_child(pid);
}

Test(remote, keeps_a_stopped_process_stopped)
{
	pid_t pid = start_child(false);
	struct pl_process process;

	(void)kill(pid, SIGSTOP);
	(void)waitpid(pid, NULL, WUNTRACED);
	for (int i = 0; i < 20; i++) {
		struct pl_error err = {0};

		uint64_t before = *shared;

		cr_assert_eq(map_and_unmap(pid, &err), 0, "%s", err.text);
		/* The kernel wakes the thread so that it enters its stop anew: it runs for a moment, but
		 * not a single instruction of its own. */
		for (int wait = 0; wait < 100; wait++) {
			cr_assert_eq(pl_process_read(pid, &process), 0);
			pl_process_free(&process);
			if (process.state == 'T')
				break;
			usleep(1000);
		}
		cr_assert_eq(process.state, 'T', "state %c", process.state);
		cr_assert_eq(*shared, before);
	}
	(void)kill(pid, SIGCONT);
	assert_goes_on(pid);
	end_child(pid);
}

Test(trace, stops_fifty_threads_within_the_goal)
{
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	pid_t pid = fork();

	if (pid == 0) {
		pthread_t thread;

		/* Where the test fails nobody ends it, and whoever reads our output would wait for it for ever. */
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (int i = 0; i < 49; i++)
			pthread_create(&thread, NULL, sleep_forever, NULL);
		*shared = 1;
		sleep_forever(NULL);
	}
	while (!*shared)
		usleep(1000);

	int64_t best = INT64_MAX;

	/* The best of many: these machines have other things to do. */
	for (int i = 0; i < 200 && (i < 15 || best >= 10 * PL_NSEC_PER_MSEC); i++) {
		struct pl_tracee *tracee;
		struct pl_error err = {0};

		cr_assert_eq(pl_tracee_seize(pid, PL_NSEC_PER_SEC, &tracee, &err), 0, "%s", err.text);
		cr_assert_eq(tracee->count, 50);
		pl_tracee_resume(tracee);
		if (tracee->longest_stop < best)
			best = tracee->longest_stop;
		pl_tracee_detach(tracee);
	}
	cr_assert_lt(best, 10 * PL_NSEC_PER_MSEC, "%lld ns", (long long)best);
	end_child(pid);
}
