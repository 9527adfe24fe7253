/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "../victims/aarch64/vectors.c"
#include "pyleak/maps.h"
#include "pyleak/trace.h"
#include "pyleak/units.h"

/* A remote call in a thread that is busy with vectors of any length: in the only thread that there is. */

enum { CALLS = 5 };

static struct {
	volatile int rounds, broken;
} *shared;

void victim_round(void)
{
	shared->rounds++;
}

void victim_break(const char *format, ...)
{
	shared->broken = 1;
}

int victim_thread(void *(*run)(void *), void *argument)
{
	return run(argument) != NULL;
}

static pid_t start(size_t length)
{
	pid_t pid;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(shared, MAP_FAILED);
	pid = fork();
	if (pid == 0)
		(void)body((void *)length);
	return pid;
}

static void wait_for_rounds(void)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	int rounds = shared->rounds;

	while (shared->rounds < rounds + 2 && !shared->broken)
		(void)nanosleep(&pause, NULL);
}

/* `dies`: with the call made, and nothing put back. */
static void call(pid_t pid, bool dies)
{
	struct pl_tracee *tracee = NULL;
	struct pl_remote *remote = NULL;
	struct pl_gadgets gadgets;
	struct pl_maps maps = {0};
	struct pl_error err = {0};
	int64_t result = 0;

	cr_assert_eq(pl_maps_read(pid, &maps), 0);
	cr_assert_eq(pl_gadgets_find(pid, &maps, &gadgets, &err), 0, "%s", err.text);
	cr_assert_eq(pl_tracee_seize(pid, 10 * PL_NSEC_PER_SEC, &tracee, &err), 0, "%s", err.text);
	cr_assert_eq(pl_remote_begin(tracee, &maps, &gadgets, &remote, &err), 0, "%s", err.text);
	cr_assert_eq(pl_remote_call(remote, SYS_getpid, (const uint64_t[6]){0}, &result), 0);
	cr_assert_eq(result, pid);
	if (dies)
		(void)kill(getpid(), SIGKILL);
	cr_assert_eq(pl_remote_end(remote), 0);
	pl_tracee_detach(tracee);
	pl_maps_free(&maps);
}

static void check(size_t length)
{
	pid_t pid = start(length);

	for (int i = 0; i < 2 * CALLS; i++) {
		wait_for_rounds();
		if (i % 2) {
			pid_t tracer = fork();

			if (tracer == 0)
				call(pid, true);
			(void)waitpid(tracer, NULL, 0);
		} else {
			call(pid, false);
		}
	}
	wait_for_rounds();
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
	cr_expect(!shared->broken, "vectors of %zu bytes", length);
}

/* SME: what is loaded from one place is the same afterwards. smstart sm and za, smstop, and ldr and str of a row of ZA by their
 * numbers, for assemblers that have no name for them. */
__asm__(".text\n"
	".arch armv8.2-a+sve\n"
	".type streaming_spin, %function\n"
	"streaming_spin:\n"
	"	.inst 0xd503437f\n" /* smstart sm */
	"	ldr z5, [x0]\n"
	"1:	subs x2, x2, #1\n"
	"	b.ne 1b\n"
	"	str z5, [x1]\n"
	"	.inst 0xd503427f\n" /* smstop sm */
	"	ret\n"
	".size streaming_spin, . - streaming_spin\n"
	".type za_spin, %function\n"
	"za_spin:\n"
	"	.inst 0xd503457f\n" /* smstart za */
	"	mov w12, #0\n"
	"	.inst 0xe1000000\n" /* ldr za[w12, 0], [x0] */
	"1:	subs x2, x2, #1\n"
	"	b.ne 1b\n"
	"	.inst 0xe1200020\n" /* str za[w12, 0], [x1] */
	"	.inst 0xd503447f\n" /* smstop za */
	"	ret\n"
	".size za_spin, . - za_spin\n");
typedef void spin(const uint8_t *in, uint8_t *out, unsigned long iterations);
/* Hidden, or both are the section's first function: by way of the GOT binutils 2.40 takes a local symbol for its section. */
__attribute__((visibility("hidden"))) spin streaming_spin, za_spin;

#define HAS_SME (1UL << 23) /* HWCAP2_SME */

static pid_t start_spinning(spin *spins)
{
	pid_t pid;

	if (!(getauxval(AT_HWCAP2) & HAS_SME))
		cr_skip_test("this processor has no SME");
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(shared, MAP_FAILED);
	pid = fork();
	if (pid == 0)
		for (;;) {
			uint8_t in[256], out[256] = {0};

			for (size_t i = 0; i < sizeof(in); i++)
				in[i] = (uint8_t)(i * 7 + (size_t)shared->rounds + 1);
			spins(in, out, 2000000);
			shared->broken |= memcmp(in, out, 16) != 0;
			shared->rounds++;
		}
	return pid;
}

static void end(pid_t pid)
{
	wait_for_rounds();
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
	cr_expect(!shared->broken);
}

/* A system call would end the mode: such a thread carries none, and loses nothing. */
Test(remote_aarch64, streaming_mode)
{
	pid_t pid = start_spinning(streaming_spin);
	int refused = 0;

	for (int i = 0; i < 20; i++) {
		struct pl_tracee *tracee = NULL;
		struct pl_remote *remote = NULL;
		struct pl_gadgets gadgets;
		struct pl_maps maps = {0};
		struct pl_error err = {0};
		int code;

		wait_for_rounds();
		cr_assert_eq(pl_maps_read(pid, &maps), 0);
		cr_assert_eq(pl_gadgets_find(pid, &maps, &gadgets, &err), 0, "%s", err.text);
		cr_assert_eq(pl_tracee_seize(pid, 10 * PL_NSEC_PER_SEC, &tracee, &err), 0, "%s", err.text);
		code = pl_remote_begin(tracee, &maps, &gadgets, &remote, &err);
		cr_assert(code == 0 || code == -EAGAIN, "%d: %s", code, err.text);
		refused += code == -EAGAIN;
		if (code == 0)
			cr_assert_eq(pl_remote_end(remote), 0);
		pl_tracee_detach(tracee);
		pl_maps_free(&maps);
	}
	cr_expect_gt(refused, 0);
	end(pid);
}

Test(remote_aarch64, matrix_of_sme)
{
	pid_t pid = start_spinning(za_spin);

	for (int i = 0; i < 2 * CALLS; i++) {
		pid_t tracer = 0;

		wait_for_rounds();
		if (i % 2 == 0) {
			call(pid, false);
			continue;
		}
		tracer = fork();
		if (tracer == 0)
			call(pid, true);
		(void)waitpid(tracer, NULL, 0);
	}
	end(pid);
}

Test(remote_aarch64, without_sve)
{
	check(0);
}

Test(remote_aarch64, vectors_of_128_bits)
{
	check(16);
}

Test(remote_aarch64, vectors_of_256_bits)
{
	check(32);
}

Test(remote_aarch64, vectors_of_512_bits)
{
	check(64);
}
