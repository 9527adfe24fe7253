/* SPDX-License-Identifier: MIT */
/* Restartable sequences: threads add to one counter for each processor, without a lock and without an atomic instruction. Who is
 * interrupted in between must begin anew; one that commits what it read before loses what others have added. */
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "victim.h"

enum { SIGNATURE = 0x53053053, PROCESSORS = 1024, STRIDE = 8, THREADS = 4, ROUNDS = 20000 };

struct area { /* struct rseq of <linux/rseq.h> */
	uint32_t cpu_id_start, cpu_id;
	uint64_t rseq_cs;
	uint32_t flags, padding[3];
} __attribute__((aligned(32)));

static long counters[PROCESSORS * STRIDE];
static long done;
static pthread_barrier_t added, looked_at;
static bool is_away;
static __thread struct area own;

VICTIM_API void rseq_serve(void);

/* The C library's, from glibc 2.35 on; else one of our own. */
static struct area *find_area(void)
{
	const ptrdiff_t *offset = dlsym(RTLD_DEFAULT, "__rseq_offset");
	const unsigned int *size = dlsym(RTLD_DEFAULT, "__rseq_size");

	if (offset && size && *size)
		return (struct area *)((char *)__builtin_thread_pointer() + *offset);
	return syscall(SYS_rseq, &own, sizeof(own), 0, SIGNATURE) == 0 ? &own : NULL;
}

/* Adds one to the counter of this processor; 0: it was interrupted, and nothing was added. Most of its time it is within. */
static int add_one(struct area *area)
{
	const uint32_t cpu = *(volatile uint32_t *)&area->cpu_id_start;
	long *counter = &counters[cpu % PROCESSORS * STRIDE];

	__asm__ goto volatile(".pushsection __rseq_cs, \"aw\"\n"
			      ".balign 32\n"
			      "3:	.long 0, 0\n"
			      "	.quad 1f, 2f - 1f, 4f\n"
			      ".popsection\n"
			      "	lea 3b(%%rip), %%rax\n"
			      "	mov %%rax, %[cs]\n"
			      "1:	cmp %[cpu], %[cpu_id]\n"
			      "	jne %l[interrupted]\n"
			      "	mov (%[counter]), %%rax\n"
			      "	mov $1000, %%ecx\n"
			      "5:	dec %%ecx\n"
			      "	jnz 5b\n"
			      "	inc %%rax\n"
			      "	mov %%rax, (%[counter])\n"
			      "2:\n"
			      ".pushsection __rseq_failure, \"ax\"\n"
			      "	.byte 0x0f, 0xb9, 0x3d\n" /* ud1, whose operand is the signature */
			      "	.long 0x53053053\n"
			      "4:	jmp %l[interrupted]\n"
			      ".popsection\n"
			      :
			      : [cs] "m"(area->rseq_cs), [cpu_id] "m"(area->cpu_id), [cpu] "r"(cpu), [counter] "r"(counter)
			      : "rax", "rcx", "cc", "memory"
			      : interrupted);
	return 1;
interrupted:
	return 0;
}

static void add_many(struct area *area)
{
	for (int n = 0; n < ROUNDS;)
		n += add_one(area);
	(void)__atomic_fetch_add(&done, ROUNDS, __ATOMIC_RELAXED);
	(void)pthread_barrier_wait(&added);
}

static void *work(void *unused)
{
	struct area *area = find_area();

	(void)unused;
	if (!area) {
		victim_break("no restartable sequences: %d", errno);
		return NULL;
	}
	for (;;) {
		add_many(area);
		(void)pthread_barrier_wait(&looked_at);
	}
}

static void look(void)
{
	long sum = 0;

	for (int i = 0; i < PROCESSORS; i++)
		sum += counters[i * STRIDE];
	if (sum != done)
		victim_break("%ld of %ld were added", sum, done);
	victim_round();
}

/* The calling thread adds too, until there is something to read on stdin: then all others wait, until it comes again. */
void rseq_serve(void)
{
	struct area *area = find_area();
	struct pollfd input = {.fd = 0, .events = POLLIN};

	for (; area;) {
		if (is_away)
			(void)pthread_barrier_wait(&looked_at);
		is_away = true;
		add_many(area);
		look();
		if (poll(&input, 1, 0) == 1)
			return;
	}
}

int victim_start(void)
{
	int r;

	if (!find_area())
		return ENOSYS;
	(void)pthread_barrier_init(&added, NULL, THREADS + 1);
	(void)pthread_barrier_init(&looked_at, NULL, THREADS + 1);
	for (int i = 0; i < THREADS; i++) {
		r = victim_thread(work, NULL);
		if (r)
			return r;
	}
	return 0;
}
