/* SPDX-License-Identifier: MIT */
/* An extension whose functions all allocate through one of its own: which of them forgets its blocks, only the stack can
 * say. Compiled without frame pointers. Driven by frames.py. */
#include <alloca.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "victim.h"

enum { STACK_BYTES = 16384, GUARD_BYTES = 4096 };

VICTIM_API void frames_work(int uses, int keeps);
VICTIM_API void frames_varied(int count);
VICTIM_API void frames_python(void *(*take)(size_t), int count);
VICTIM_API void frames_pythons(void *(*mem)(size_t), void *(*obj)(size_t), void (*drop)(void *), int uses, int keeps);
VICTIM_API long frames_contexts(int rounds);
VICTIM_API long frames_signals(int rounds);
VICTIM_API int frames_threads(int threads, int blocks);

struct buffer {
	struct buffer *next;
	char bytes[];
};

static struct buffer *kept;
static volatile size_t size = 1000; /* no constant that functions could be made for */

static __attribute__((noinline)) struct buffer *allocate(size_t bytes)
{
	struct buffer *buffer = malloc(sizeof(*buffer) + bytes); /* line: allocate */

	buffer->bytes[bytes - 1] = 1;
	return buffer;
}

static inline __attribute__((always_inline)) struct buffer *make_buffer(size_t bytes)
{
	struct buffer *buffer = allocate(bytes + 8); /* line: inlined */

	buffer->bytes[0] = 2;
	return buffer;
}

static __attribute__((noinline)) void keep_buffer(void)
{
	struct buffer *buffer = make_buffer(size); /* line: keep */

	buffer->next = __atomic_exchange_n(&kept, buffer, __ATOMIC_RELAXED);
}

static __attribute__((noinline)) void use_buffer(void)
{
	struct buffer *buffer = make_buffer(size);

	buffer->next = NULL;
	free(buffer);
}

void frames_work(int uses, int keeps)
{
	for (int i = 0; i < uses; i++)
		use_buffer();
	for (int i = 0; i < keeps; i++)
		keep_buffer(); /* line: work */
}

/* A frame whose size nobody knows before it is there: its caller is found by rbp alone. */
void frames_varied(int count)
{
	char *room = alloca(size + (size_t)count);

	memset(room, count, size);
	for (int i = 0; i < count; i++)
		keep_buffer(); /* line: varied */
	__asm__ volatile("" : : "r"(room) : "memory");
}

/* By an allocator of Python's. */
static __attribute__((noinline)) void keep_pythons(void *(*take)(size_t))
{
	char *bytes = take(size); /* line: python's */

	bytes[0] = 1;
}

void frames_python(void *(*take)(size_t), int count)
{
	for (int i = 0; i < count; i++)
		keep_pythons(take); /* line: all of python's */
}

static __attribute__((noinline)) void use_pythons(void *(*take)(size_t), void (*drop)(void *))
{
	char *bytes = take(size);

	bytes[0] = 1;
	drop(bytes);
}

/* With the GIL: the one that is freed is of the mem domain, the one that stays of the obj domain. */
void frames_pythons(void *(*mem)(size_t), void *(*obj)(size_t), void (*drop)(void *), int uses, int keeps)
{
	for (int i = 0; i < uses; i++)
		use_pythons(mem, drop);
	for (int i = 0; i < keeps; i++)
		keep_pythons(obj); /* line: with the gil */
}

/* -- other stacks: nothing of them may be taken for the thread's, and a byte above them kills ----------------------- */

/* A stack between two pages that nobody may touch. */
static char *make_stack(void)
{
	char *map = mmap(NULL, STACK_BYTES + 2 * GUARD_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED || mprotect(map + GUARD_BYTES, STACK_BYTES, PROT_READ | PROT_WRITE) < 0)
		_exit(70);
	return map + GUARD_BYTES;
}

static ucontext_t main_context, other_context;
static int switches;

static void run_context(void)
{
	for (;;) {
		use_buffer();
		keep_buffer();
		switches--;
		(void)swapcontext(&other_context, &main_context);
	}
}

long frames_contexts(int rounds)
{
	char *stack = make_stack();
	long done = 0;

	(void)getcontext(&other_context);
	other_context.uc_stack.ss_sp = stack;
	other_context.uc_stack.ss_size = STACK_BYTES;
	other_context.uc_link = &main_context;
	makecontext(&other_context, run_context, 0);
	for (switches = rounds; switches > 0; done++)
		(void)swapcontext(&main_context, &other_context);
	(void)munmap(stack - GUARD_BYTES, STACK_BYTES + 2 * GUARD_BYTES);
	return done;
}

static volatile long handled;

static void on_signal(int number)
{
	use_buffer();
	keep_buffer();
	handled++;
}

/* Synchronous ones: malloc is not in the midst of anything. */
long frames_signals(int rounds)
{
	char *stack = make_stack();
	const stack_t alternate = {.ss_sp = stack, .ss_size = STACK_BYTES};
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK}, old;

	handled = 0;
	if (sigaltstack(&alternate, NULL) < 0 || sigaction(SIGUSR2, &action, &old) < 0)
		return -1;
	for (int i = 0; i < rounds; i++)
		(void)raise(SIGUSR2);
	(void)sigaction(SIGUSR2, &old, NULL);
	(void)sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL);
	(void)munmap(stack - GUARD_BYTES, STACK_BYTES + 2 * GUARD_BYTES);
	return handled;
}

static void *run_thread(void *blocks)
{
	for (long i = 0; i < (long)blocks; i++) {
		use_buffer();
		keep_buffer();
		(void)usleep(500);
	}
	return NULL;
}

/* Some with the smallest stack that there may be, some without a guard, whose stack is not told from what lies beside. */
int frames_threads(int threads, int blocks)
{
	pthread_t ids[64];
	pthread_attr_t attributes;
	int started = 0;

	(void)pthread_attr_init(&attributes);
	for (; started < threads && started < 64; started++) {
		(void)pthread_attr_setstacksize(&attributes, started % 2 ? 65536 : 32768);
		(void)pthread_attr_setguardsize(&attributes, started % 4 == 3 ? 0 : 4096);
		if (pthread_create(&ids[started], &attributes, run_thread, (void *)(long)blocks) != 0)
			break;
	}
	for (int i = 0; i < started; i++)
		(void)pthread_join(ids[i], NULL);
	(void)pthread_attr_destroy(&attributes);
	return started;
}
