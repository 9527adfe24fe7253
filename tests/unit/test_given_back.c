/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "../../src/engine/inline_reuse.h"
#include "pyleak/probe.h"
#include "pyleak/units.h"
#include "recorder_host.h"

/*
 * Chunks of the recorder's map that are given back while threads go on (see PL_INLINE_CHUNK_LEFT): the recorder in this
 * process, and what the tracer does, by the same steps and the same grace. Whatever was recorded is known afterwards.
 */

enum { WORKERS = 3, PLACES = 4096, STEP = 64, CHUNKS = 2 };
#define FIRST UINT64_C(0x40000000)
#define SECONDS_NSEC (2 * PL_NSEC_PER_SEC)

static struct inline_memory tables;
static const char magic[8] = PL_PROBE_MAGIC;
static _Thread_local struct host_thread *tls_current;
static _Atomic uint8_t places[CHUNKS][PLACES]; /* 0 free, 1 in somebody's hands, 2 a block */
static _Atomic bool filling, done;
static _Atomic unsigned int seldom = 1000; /* a block now and then: one try in so many */
static _Atomic uint64_t made;

static void use_tls(struct pl_inline_config *config)
{
	config->thread_current = 0;
	config->thread_tls = (int64_t)((uint64_t)&tls_current - (uint64_t)__builtin_thread_pointer());
}

static void begin(void)
{
	host_plant(1, 0, PL_INLINE_THREADS, use_tls);
	inline_memory_init(&tables, getpid(), (uint64_t)magic);
	cr_assert(inline_memory_open(&tables));
}

static void end(void)
{
	inline_memory_close(&tables);
	host_unplant();
}

static _Atomic uint64_t *word_of(uint64_t address)
{
	return (_Atomic uint64_t *)host_config->directory + (address >> PL_INLINE_CHUNK_SHIFT);
}

static bool change(uint64_t address, uint64_t expected, uint64_t desired)
{
	return atomic_compare_exchange_strong(word_of(address), &expected, desired);
}

static bool is_empty(uint64_t chunk)
{
	/* What the test has touched of it. */
	for (const uint64_t *at = (const uint64_t *)chunk; at < (const uint64_t *)(chunk + PLACES * STEP / 4); at++)
		if (*(const volatile uint64_t *)at)
			return false;
	return true;
}

/* As inline_give.c does. What it came to: 0: it was no use; 1: another chunk came; 2: given back. */
static int give_back(uint64_t address)
{
	const uint64_t chunk = *word_of(address), left = chunk | PL_INLINE_CHUNK_LEFT, empty = chunk | PL_INLINE_CHUNK_EMPTY;
	struct inline_slots slots;
	int code;

	if (!chunk || !is_empty(chunk) || !change(address, chunk, left))
		return 0;
	code = inline_slots_look(&slots, &tables, host_config);
	if (code == 0)
		code = inline_slots_grace(&slots, pl_now_ns() + INLINE_GRACE_NSEC);
	inline_slots_free(&slots);
	if (code < 0 || !is_empty(chunk) || !change(address, left, empty)) {
		(void)change(address, left, chunk);
		return 0;
	}
	sched_yield();
	cr_assert_eq(madvise((void *)chunk, PL_INLINE_CHUNK_BYTES, MADV_DONTNEED), 0);
	return change(address, empty, chunk) ? 2 : 1;
}

static uint64_t allocate(uint64_t address, uint64_t size)
{
	host_next = address;
	return host_malloc(PL_INLINE_OBJ, size);
}

static uint64_t alive(void)
{
	const struct host_totals sum = host_sum();

	return sum.allocated_count - sum.freed_count;
}

Test(given_back, what_comes_to_a_chunk_that_leaves_has_it_back)
{
	uint64_t chunk;

	begin();
	cr_assert_eq(allocate(FIRST, 100), FIRST);
	chunk = *word_of(FIRST);
	/* As a tracer leaves it that was killed. */
	cr_assert(change(FIRST, chunk, chunk | PL_INLINE_CHUNK_LEFT));
	host_free(PL_INLINE_OBJ, FIRST);
	cr_assert_eq(*word_of(FIRST), chunk);
	cr_assert_eq(alive(), 0);
	cr_assert(change(FIRST, chunk, chunk | PL_INLINE_CHUNK_LEFT));
	cr_assert_eq(allocate(FIRST + 64, 100), FIRST + 64);
	cr_assert_eq(*word_of(FIRST), chunk);
	cr_assert_eq(alive(), 1);
	host_free(PL_INLINE_OBJ, FIRST + 64);
	cr_assert_eq(alive(), 0);
	cr_assert_eq(host_control()->freed_unknown, 0);
	cr_assert_eq(host_control()->next_chunk, 1);
	end();
}

Test(given_back, an_empty_one_makes_room_for_another)
{
	uint64_t chunk;

	begin();
	cr_assert_eq(allocate(FIRST, 100), FIRST);
	host_free(PL_INLINE_OBJ, FIRST);
	chunk = *word_of(FIRST);
	cr_assert(change(FIRST, chunk, chunk | PL_INLINE_CHUNK_EMPTY));
	host_free(PL_INLINE_OBJ, FIRST + 128); /* from before the recorder */
	cr_assert_eq(host_control()->freed_unknown, 1);
	cr_assert_eq(*word_of(FIRST), chunk | PL_INLINE_CHUNK_EMPTY);
	cr_assert_eq(allocate(FIRST, 5000), FIRST);
	cr_assert_neq(*word_of(FIRST), chunk);
	cr_assert(!change(FIRST, chunk | PL_INLINE_CHUNK_EMPTY, chunk));
	cr_assert_eq(alive(), 1);
	host_free(PL_INLINE_OBJ, FIRST);
	cr_assert_eq(alive(), 0);
	cr_assert_eq(host_control()->lost_events, 0);
	end();
}

Test(given_back, a_realloc_that_fails_after_all)
{
	begin();
	cr_assert_eq(allocate(FIRST, 100), FIRST);
	host_next = 0;
	cr_assert_eq(host_realloc(PL_INLINE_OBJ, FIRST, 200), 0);
	cr_assert_eq(alive(), 1);
	cr_assert_eq(host_control()->slotless, 0);
	end();
}

static void *work(void *argument)
{
	unsigned int seed = (unsigned int)(uintptr_t)argument;

	while (!done) {
		const unsigned int chunk = (unsigned int)rand_r(&seed) % CHUNKS, place = (unsigned int)rand_r(&seed) % PLACES;
		const uint64_t address = FIRST + ((uint64_t)chunk << PL_INLINE_CHUNK_SHIFT) + (uint64_t)place * STEP;
		const bool few = (unsigned int)rand_r(&seed) % seldom == 0;
		uint8_t state = 0;

		/* Most of the time it is emptied, with a block now and then: that is when it is given back. */
		if ((filling || few) && atomic_compare_exchange_strong(&places[chunk][place], &state, 1)) {
			cr_assert_eq(allocate(address, 1 + (unsigned int)rand_r(&seed) % 48), address);
			places[chunk][place] = 2;
			made++;
		} else if ((state = 2, atomic_compare_exchange_strong(&places[chunk][place], &state, 1))) {
			host_free(PL_INLINE_OBJ, address);
			places[chunk][place] = 0;
		}
		if (!filling && (unsigned int)rand_r(&seed) % 512 == 0)
			sched_yield();
	}
	return NULL;
}

/* All places, so that the chunks become empty. */
static void empty(void)
{
	filling = false;
	for (int chunk = 0; chunk < CHUNKS; chunk++)
		for (int place = 0; place < PLACES; place++) {
			uint8_t state = 2;

			if (atomic_compare_exchange_strong(&places[chunk][place], &state, 1)) {
				host_free(PL_INLINE_OBJ,
					FIRST + ((uint64_t)chunk << PL_INLINE_CHUNK_SHIFT) + (uint64_t)place * STEP);
				places[chunk][place] = 0;
			}
		}
}

Test(given_back, while_threads_go_on, .timeout = 120)
{
	const int64_t until = pl_now_ns() + SECONDS_NSEC;
	pthread_t threads[WORKERS];
	uint64_t live = 0, came[3] = {0};

	begin();
	for (uintptr_t i = 0; i < WORKERS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, work, (void *)(i + 1)), 0);
	for (uint64_t round = 0; pl_now_ns() < until && host_control()->next_chunk < host_config->chunk_count / 2; round++) {
		filling = round % 8 == 0;
		seldom = 1000u << (round * 5 % 12);
		if (filling)
			sched_yield();
		else
			empty();
		for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
			came[give_back(FIRST + (chunk << PL_INLINE_CHUNK_SHIFT))]++;
	}
	done = true;
	for (int i = 0; i < WORKERS; i++)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	for (int chunk = 0; chunk < CHUNKS; chunk++)
		for (int place = 0; place < PLACES; place++)
			live += places[chunk][place] == 2;
	cr_log_info("%lu blocks; given back %lu times, %lu of them for another chunk; %lu times to no use", (unsigned long)made,
		(unsigned long)(came[1] + came[2]), (unsigned long)came[1], (unsigned long)came[0]);
	cr_assert_gt(came[2], 0);
	cr_assert_eq(alive(), live, "%lu blocks are recorded, %lu are alive", (unsigned long)alive(), (unsigned long)live);
	empty();
	cr_assert_eq(alive(), 0);
	cr_assert_eq(host_control()->freed_unknown, 0);
	cr_assert_eq(host_control()->lost_events, 0);
	end();
}
