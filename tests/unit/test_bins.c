/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../src/heap/heap_private.h"
#include "pyleak/heap.h"
#include "pyleak/maps.h"
#include "pyleak/memory.h"
#include "pyleak/python.h"
#include "spaces.h"

/* What is free in glibc's heaps, by its lists, of a program that says so itself (bins_victim.c). */

struct victim {
	pid_t pid;
	FILE *says;
	uint64_t free; /* in lists and tops */
	struct pl_python python;
	struct pl_heap_reader reader;
	struct pl_maps maps;
	struct heap heaps[HEAPS_MAX];
	size_t count;
	struct free_chunk *chunks;
	size_t chunk_count;
};
static struct victim victim;

static void start(const char *seed, const char *threads, const char *blocks, const char *keep, const char *busy)
{
	uint64_t nothing, all, fast;
	int ends[2];

	cr_assert_eq(pipe(ends), 0);
	victim.pid = fork();
	if (victim.pid == 0) {
		(void)dup2(ends[1], STDOUT_FILENO);
		execl(BINS_VICTIM, BINS_VICTIM, seed, threads, blocks, keep, busy, NULL);
		_exit(127);
	}
	(void)close(ends[1]);
	victim.says = fdopen(ends[0], "r");
	cr_assert_eq(fscanf(victim.says, "%lu %lu %lu", &nothing, &all, &fast), 3);
	victim.free = all - fast;
	victim.python.space = space_of(victim.pid);
	victim.reader.python = &victim.python;
}

static struct moment look(void)
{
	const struct moment moment = {&victim.reader, &victim.maps};

	cr_assert_eq(pl_maps_read(victim.pid, &victim.maps), 0);
	victim.count = heaps_find(&moment, victim.heaps, HEAPS_MAX);
	cr_assert_neq(victim.count, 0);
	for (size_t i = 0; i < victim.count; i++) {
		victim.heaps[i].pages = malloc((victim.heaps[i].range.end - victim.heaps[i].range.start) / PL_PAGE);
		cr_assert_eq(pl_space_pages(victim.python.space, victim.heaps[i].range, victim.heaps[i].pages), 0);
	}
	return moment;
}

static void forget(void)
{
	for (size_t i = 0; i < victim.count; i++)
		free(victim.heaps[i].pages);
	free(victim.chunks);
	victim.chunks = NULL;
	pl_maps_free(&victim.maps);
}

static void end(void)
{
	(void)kill(victim.pid, SIGKILL);
	(void)waitpid(victim.pid, NULL, 0);
	(void)fclose(victim.says);
}

static bool read_bins(const struct moment *moment)
{
	return bins_read(moment, victim.heaps, victim.count, &victim.chunks, &victim.chunk_count);
}

static uint64_t sum(void)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < victim.chunk_count; i++)
		bytes += victim.chunks[i].end - victim.chunks[i].start;
	return bytes;
}

static void add(void *context, uint64_t from, uint64_t to)
{
	*(uint64_t *)context += to - from;
}

static uint64_t by_walk(const struct moment *moment)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < victim.count; i++) {
		struct heap_walk walk = {.context = &bytes, .free = add};

		heaps_walk(moment, &victim.heaps[i], victim.heaps[i].pages, &walk);
	}
	return bytes;
}

/* To the byte what malloc says, and what a walk over all chunks finds. */
Test(bins, as_malloc_says)
{
	static const char *const seeds[] = {"1", "200", "3000"}, *const threads[] = {"0", "1", "5"};

	for (int i = 0; i < 3; i++)
		for (int j = 0; j < 3; j++) {
			struct moment moment;

			start(seeds[i], threads[j], "3000", "20", "0");
			moment = look();
			cr_assert(read_bins(&moment), "seed %s, %s threads", seeds[i], threads[j]);
			cr_assert_eq(sum(), victim.free, "%lu of %lu", sum(), victim.free);
			cr_assert_eq(sum(), by_walk(&moment));
			forget();
			end();
		}
}

/* Nothing was freed: the first heap of each arena has a top. */
Test(bins, tops)
{
	struct moment moment;

	start("1", "2", "100", "1", "0");
	moment = look();
	cr_assert(read_bins(&moment));
	cr_assert_eq(sum(), victim.free);
	forget();
	end();
}

/* Half of all chunks: they are walked over. */
Test(bins, too_many)
{
	struct pl_chunk_figures figures;
	struct moment moment;

	start("1", "1", "20000", "2", "0");
	moment = look();
	cr_assert(!read_bins(&moment));
	cr_assert(pl_heap_count_chunks(&victim.reader, &victim.maps, &figures));
	/* Of what is free, pages at the end may not be in memory. */
	cr_assert_leq(figures.free, (int64_t)victim.free);
	cr_assert_geq(figures.free, (int64_t)victim.free / 10 * 9);
	forget();
	end();
}

static uint64_t word_at(uint64_t address)
{
	uint64_t word;

	cr_assert_eq(pl_memory_read_u64(victim.pid, address, &word), 0);
	return word;
}

static void put(uint64_t address, uint64_t word)
{
	cr_assert_eq(pl_memory_write(victim.pid, address, &word, sizeof(word)), 0);
}

enum { NEXT = 16, PREVIOUS = 24, SIZE = 8 };

static bool is_chunk(uint64_t address)
{
	for (size_t i = 0; i < victim.chunk_count; i++)
		if (victim.chunks[i].start == address)
			return true;
	return false;
}

/* A list of which nothing but the bin is behind one chunk. */
static uint64_t find_last(void)
{
	for (size_t i = 1; i < victim.chunk_count; i++)
		if (!is_chunk(word_at(victim.chunks[i].start + NEXT)) && word_at(victim.chunks[i].start + SIZE) & 1)
			return victim.chunks[i].start;
	cr_assert(false, "there is none");
	return 0;
}

/* One that another follows on, which is not the last. */
static uint64_t find_third_last(void)
{
	for (size_t i = 0; i < victim.chunk_count; i++) {
		uint64_t next = word_at(victim.chunks[i].start + NEXT);

		if (is_chunk(next) && is_chunk(word_at(next + NEXT)) && word_at(next + PREVIOUS) == victim.chunks[i].start)
			return victim.chunks[i].start;
	}
	cr_assert(false, "there is none");
	return 0;
}

static void lead_back(void)
{
	uint64_t chunk = find_last();

	put(chunk + NEXT, chunk);
	put(chunk + PREVIOUS, chunk);
}

static void lead_nowhere(void)
{
	put(find_last() + NEXT, 0x4141414141414140);
}

static void lead_out_of_the_heap(void)
{
	put(find_last() + NEXT, victim.maps.items[0].start);
}

/* As it is for a moment when a chunk is taken out. */
static void leave_one_out(void)
{
	uint64_t chunk = find_third_last();

	put(chunk + NEXT, word_at(word_at(chunk + NEXT) + NEXT));
}

/* The top has moved on. */
static void have_another_top(void)
{
	uint64_t top = victim.chunks[0].start;

	put(top + SIZE, word_at(top + SIZE) - 64);
}

/* Each chunk that is free is all that is behind it. */
static void overlap(void)
{
	for (size_t i = 1; i < victim.chunk_count; i++)
		put(victim.chunks[i].start + SIZE,
			(victim.heaps[victim.chunks[i].heap].range.end - victim.chunks[i].start) | 1);
}

static void reach_beyond_the_heap(void)
{
	const struct free_chunk *last = &victim.chunks[1];

	for (size_t i = 2; i < victim.chunk_count; i++)
		last = victim.chunks[i].start > last->start ? &victim.chunks[i] : last;
	put(last->start + SIZE, (victim.heaps[last->heap].range.end - last->start + PL_PAGE) | 1);
}

/* Then it is walked over, and a walk does not look at lists. */
Test(bins, lists_that_are_none)
{
	static const struct {
		void (*damage)(void);
		bool of_sizes; /* which a walk looks at, too */
	} damages[] = {{lead_back, false}, {lead_nowhere, false}, {lead_out_of_the_heap, false}, {leave_one_out, false},
		{have_another_top, true}, {overlap, true}, {reach_beyond_the_heap, true}};

	for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
		struct pl_chunk_figures before, figures;
		struct moment moment;

		start("7", "0", "3000", "20", "0");
		moment = look();
		cr_assert(pl_heap_count_chunks(&victim.reader, &victim.maps, &before));
		cr_assert(read_bins(&moment));
		damages[i].damage();
		free(victim.chunks);
		victim.chunks = NULL;
		cr_assert(!read_bins(&moment), "damage %zu", i);
		if (!damages[i].of_sizes) {
			cr_assert(pl_heap_count_chunks(&victim.reader, &victim.maps, &figures));
			cr_assert_eq(figures.free, before.free, "by a walk it is the same");
			cr_assert_eq(figures.used, before.used);
		}
		forget();
		end();
	}
}

/* Whatever stands in the lists, no more is free than there is. */
Test(bins, noise)
{
	struct moment moment;
	uint64_t size = 0;

	start("9", "2", "3000", "20", "0");
	moment = look();
	cr_assert(read_bins(&moment));
	for (size_t i = 0; i < victim.count; i++)
		size += victim.heaps[i].range.end - victim.heaps[i].range.start;
	srand(1);
	for (int round = 0; round < 300; round++) {
		const struct free_chunk *one = &victim.chunks[(size_t)rand() % victim.chunk_count];
		const struct free_chunk *other = &victim.chunks[(size_t)rand() % victim.chunk_count];
		uint64_t at = one->start + 8 * (uint64_t)(1 + rand() % 3), was;
		uint64_t word = rand() % 4 ? other->start : (uint64_t)rand() << 4;
		struct free_chunk *chunks;
		size_t count;

		cr_assert_eq(pl_memory_read_u64(victim.pid, at, &was), 0);
		cr_assert_eq(pl_memory_write(victim.pid, at, &word, sizeof(word)), 0);
		if (bins_read(&moment, victim.heaps, victim.count, &chunks, &count)) {
			uint64_t bytes = 0;

			for (size_t i = 0; i < count; i++)
				bytes += chunks[i].end - chunks[i].start;
			cr_assert_leq(bytes, size);
			free(chunks);
		}
		/* In a third of the rounds it stays. */
		if (round % 3)
			cr_assert_eq(pl_memory_write(victim.pid, at, &was, sizeof(was)), 0);
	}
	forget();
	end();
}

/* Of one that goes on meanwhile: what is read is near what it said, as it has no more than 300 KB in turn. */
Test(bins, of_one_that_goes_on)
{
	int read = 0;

	start("5", "1", "3000", "20", "1");
	for (int round = 0; round < 100; round++) {
		struct moment moment = look();

		if (read_bins(&moment)) {
			int64_t difference = (int64_t)sum() - (int64_t)victim.free;

			read++;
			cr_assert(difference > -(1 << 20) && difference < 1 << 20, "%ld", (long)difference);
		}
		forget();
	}
	cr_log_info("%d of 100", read);
	end();
}
