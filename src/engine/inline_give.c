/* SPDX-License-Identifier: MIT */
#include "inline_give.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "inline_reuse.h"
#include "pyleak/cleanup.h"
#include "pyleak/log.h"
#include "pyleak/resident.h"
#include "pyleak/units.h"

enum {
	CHUNKS_MAX = 100, /* at a time */
	PAGES_LEAST = 16, /* of a chunk, to be worth it */
	RUN_PAGES = 64,
	WORDS = PL_PAGE / sizeof(uint64_t),
	CHUNK_PAGES = PL_INLINE_CHUNK_BYTES / PL_PAGE,
	DIRECTORY_PAGES = PL_INLINE_DIRECTORY_ENTRIES / WORDS,
};
/* A peak may come and go between two passes: it is told by what was freed since the last look. */
#define FREED_LEAST (UINT64_C(8) << 20)
#define LOOK_NSEC (2 * PL_NSEC_PER_SEC)
enum { TIME_SHARE = 20 };

struct looking {
	struct inline_memory *memory;
	const struct pl_inline_config *config;
	int pagemap;
	struct pl_probe_change left[CHUNKS_MAX];   /* undo of what a pyleak that was killed has left */
	struct pl_probe_change empty[CHUNKS_MAX];  /* chunks that look empty */
	struct pl_probe_giving giving[CHUNKS_MAX]; /* those that are, after a grace */
	struct pl_range lost[CHUNKS_MAX];          /* chunks that no word leads to, and none will */
	size_t left_count, empty_count, giving_count, lost_count;
	uint8_t *seen; /* by the number of a chunk: a word leads to it */
	uint64_t chunks;
	uint64_t pages;
	uint8_t in_memory[CHUNK_PAGES], directory[DIRECTORY_PAGES];
	uint64_t run[RUN_PAGES * WORDS];
};

static bool is_chunk(const struct pl_inline_config *config, uint64_t chunk)
{
	return chunk >= config->pool && (chunk - config->pool) % PL_INLINE_CHUNK_BYTES == 0 &&
	       (chunk - config->pool) / PL_INLINE_CHUNK_BYTES < config->chunk_count;
}

static uint64_t number_of(const struct pl_inline_config *config, uint64_t chunk)
{
	return (chunk - config->pool) / PL_INLINE_CHUNK_BYTES;
}

static bool is_zero(const uint64_t *words, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (words[i])
			return false;
	return true;
}

/* Pages of the chunk in memory, if all of it is zeros, and else 0. < 0: it cannot be read. What is in swap is not brought
 * back for that. */
static int empty_pages(struct looking *looking, uint64_t chunk)
{
	const struct pl_range range = {chunk, chunk + PL_INLINE_CHUNK_BYTES};
	int pages = 0, code = pl_resident_pages(looking->pagemap, range, looking->in_memory);

	if (code < 0)
		return code;
	if (memchr(looking->in_memory, PL_SWAPPED, CHUNK_PAGES))
		return 0;
	for (size_t i = 0, length; i < CHUNK_PAGES; i += length) {
		length = 1;
		if (!looking->in_memory[i])
			continue;
		while (length < RUN_PAGES && i + length < CHUNK_PAGES && looking->in_memory[i + length])
			length++;
		code = inline_memory_read(looking->memory, chunk + i * PL_PAGE, looking->run, length * PL_PAGE);
		if (code < 0)
			return code;
		if (!is_zero(looking->run, length * WORDS))
			return 0;
		pages += (int)length;
	}
	return pages;
}

static int see_word(struct looking *looking, uint64_t address, uint64_t word)
{
	const uint64_t chunk = word & ~PL_INLINE_CHUNK_STATE;
	int pages;

	/* EMPTY: who left it so may have a call under way that empties the chunk (a thread makes it late). So it is lost. */
	if (!word || !is_chunk(looking->config, chunk) || (word & PL_INLINE_CHUNK_STATE) == PL_INLINE_CHUNK_EMPTY)
		return 0;
	if (number_of(looking->config, chunk) < looking->chunks)
		looking->seen[number_of(looking->config, chunk)] = 1;
	if (word != chunk) {
		if (looking->left_count < CHUNKS_MAX && looking->empty_count < CHUNKS_MAX)
			looking->left[looking->left_count++] = (struct pl_probe_change){address, word, chunk, false};
		return 0;
	}
	if (looking->empty_count == CHUNKS_MAX)
		return 0;
	pages = empty_pages(looking, chunk);
	if (pages >= PAGES_LEAST)
		looking->empty[looking->empty_count++] =
			(struct pl_probe_change){address, chunk, chunk | PL_INLINE_CHUNK_LEFT, false};
	return pages < 0 ? pages : 0;
}

static int look_at_directory(struct looking *looking)
{
	const uint64_t directory = looking->config->directory;
	uint64_t words[WORDS];
	int code = pl_resident_pages(looking->pagemap,
		(struct pl_range){directory, directory + (uint64_t)DIRECTORY_PAGES * PL_PAGE}, looking->directory);

	for (uint64_t page = 0; code == 0 && page < DIRECTORY_PAGES; page++) {
		/* What is in swap leads to chunks too, which would else be taken for lost. */
		if (!looking->directory[page])
			continue;
		code = inline_memory_read(looking->memory, directory + page * PL_PAGE, words, sizeof(words));
		for (uint64_t i = 0; code == 0 && i < WORDS; i++)
			code = see_word(looking, directory + page * PL_PAGE + i * sizeof(words[0]), words[i]);
	}
	return code;
}

/*
 * A pyleak that was killed between the two changes of a word may have left pages of a chunk that was empty, and which another
 * has replaced since. `again`: after a grace, those that were found before: then nobody is about to put it into the
 * directory either, as was perhaps when it was read first, and nobody ever will: a number is given out once.
 */
static int find_lost(struct looking *looking, bool again)
{
	size_t count = 0;
	int code = 0;

	for (size_t i = 0; again && i < looking->lost_count; i++)
		if (!looking->seen[number_of(looking->config, looking->lost[i].start)])
			looking->lost[count++] = looking->lost[i];
	for (uint64_t i = 0; !again && code >= 0 && i < looking->chunks && count < CHUNKS_MAX; i++) {
		const uint64_t chunk = looking->config->pool + i * PL_INLINE_CHUNK_BYTES;

		code = looking->seen[i] ? 0 : empty_pages(looking, chunk);
		if (code > 0)
			looking->lost[count++] = (struct pl_range){chunk, chunk + PL_INLINE_CHUNK_BYTES};
	}
	looking->lost_count = count;
	return code < 0 ? code : 0;
}

static void drop_lost(struct looking *looking, const struct pl_probe *probe, int code, int64_t *ret_stop_ns)
{
	const size_t empty_count = looking->empty_count;

	if (code < 0 || !looking->lost_count)
		return;
	looking->empty_count = CHUNKS_MAX; /* only what there is is asked for */
	code = look_at_directory(looking);
	looking->empty_count = empty_count;
	if (code == 0 && find_lost(looking, true) == 0 && looking->lost_count)
		(void)pl_probe_drop(probe, looking->lost, looking->lost_count, ret_stop_ns);
}

/* Once nobody has a chunk that has left: gives back those that hold nothing, and has the others back. */
static int after_grace(struct looking *looking, const struct pl_probe *probe, int64_t *ret_stop_ns)
{
	struct inline_slots slots;
	int code = inline_slots_look(&slots, looking->memory, looking->config);

	if (code == 0)
		code = inline_slots_grace(&slots, pl_now_ns() + INLINE_GRACE_NSEC);
	inline_slots_free(&slots);
	drop_lost(looking, probe, code, ret_stop_ns);
	looking->left_count = 0;
	for (size_t i = 0; i < looking->empty_count; i++) {
		const struct pl_probe_change *change = &looking->empty[i];
		const uint64_t chunk = change->expected, left = change->desired;
		int pages = 0;

		if (!change->done)
			continue;
		if (code == 0)
			pages = empty_pages(looking, chunk);
		if (pages > 0)
			looking->giving[looking->giving_count++] = (struct pl_probe_giving){
				{change->address, left, chunk | PL_INLINE_CHUNK_EMPTY, false},
				{change->address, chunk | PL_INLINE_CHUNK_EMPTY, chunk, false},
				{chunk, chunk + PL_INLINE_CHUNK_BYTES}, false};
		else
			looking->left[looking->left_count++] = (struct pl_probe_change){change->address, left, chunk, false};
		looking->pages += pages > 0 ? (uint64_t)pages : 0;
	}
	if (looking->left_count)
		(void)pl_probe_change(probe, looking->left, looking->left_count, ret_stop_ns);
	if (looking->giving_count) {
		int64_t stop_ns = 0;

		code = pl_probe_give_back(probe, looking->giving, looking->giving_count, &stop_ns);
		*ret_stop_ns = stop_ns > *ret_stop_ns ? stop_ns : *ret_stop_ns;
	}
	return code;
}

static int give_back(struct looking *looking, const struct pl_probe *probe, int64_t *ret_stop_ns)
{
	int64_t stop_ns = 0;
	int code = look_at_directory(looking);

	if (code == 0 && looking->left_count)
		code = pl_probe_change(probe, looking->left, looking->left_count, ret_stop_ns);
	if (code == 0)
		code = find_lost(looking, false);
	if (code < 0 || (!looking->empty_count && !looking->lost_count))
		return code;
	if (looking->empty_count)
		code = pl_probe_change(probe, looking->empty, looking->empty_count, &stop_ns);
	*ret_stop_ns = stop_ns > *ret_stop_ns ? stop_ns : *ret_stop_ns;
	/* Also after a failure: some may have left. */
	stop_ns = 0;
	code = after_grace(looking, probe, &stop_ns);
	*ret_stop_ns = stop_ns > *ret_stop_ns ? stop_ns : *ret_stop_ns;
	return code;
}

static bool is_wanted(struct inline_give *give, const struct pl_inline_reader *reader)
{
	uint64_t freed = 0;

	for (uint64_t i = PL_INLINE_SITE_FIRST; i < reader->known; i++)
		freed += pl_inline_row_sum(&reader->totals[i]).freed_size;
	/* Less than there was: of rows that were given back. */
	if (freed < give->freed)
		give->freed = 0;
	if (freed - give->freed < FREED_LEAST)
		return false;
	give->freed = freed;
	return true;
}

int64_t inline_give_look(struct inline_give *give, const struct pl_probe *probe, struct inline_memory *memory,
	const struct pl_inline_reader *reader, bool claimed)
{
	pl_autofree struct looking *looking = NULL;
	pl_autofree uint8_t *seen = NULL;
	const int64_t started = pl_now_ns(), cpu = pl_thread_cpu_ns();
	int64_t stop_ns = 0;
	size_t given = 0;
	int code;

	if (!give->wanted && (started < give->next_ns || !is_wanted(give, reader)))
		return 0;
	/* A chunk may be lost that way, which is addresses. */
	if (!probe->header.errand_entry || reader->control.next_chunk > reader->config.chunk_count / 2) {
		give->wanted = false;
		give->looks++;
		return 0;
	}
	if (!inline_memory_open(memory) || !inline_memory_begin(memory, claimed))
		return 0;
	give->wanted = false;
	give->looks++;
	looking = calloc(1, sizeof(*looking));
	seen = calloc(reader->control.next_chunk + 1, 1);
	if (looking && seen) {
		looking->seen = seen;
		looking->chunks = reader->control.next_chunk;
		looking->memory = memory;
		looking->config = &reader->config;
		looking->pagemap = pl_resident_open(memory->pid);
		code = looking->pagemap < 0 ? looking->pagemap : give_back(looking, probe, &stop_ns);
		if (looking->pagemap >= 0)
			(void)close(looking->pagemap);
		for (size_t i = 0; i < looking->giving_count; i++)
			given += looking->giving[i].given;
		give->chunks += given;
		give->pages += looking->pages;
		if (looking->empty_count || code < 0)
			pl_log_debug("%zu of %zu chunks of the map that look empty were given back, some %" PRIu64 " KiB: %s "
				     "(%.1f ms, a thread held for %.2f ms)",
				given, looking->empty_count, looking->pages * PL_PAGE / 1024,
				code < 0 ? strerror(-code) : "all is well",
				(double)(pl_now_ns() - started) / PL_NSEC_PER_MSEC, (double)stop_ns / PL_NSEC_PER_MSEC);
	}
	inline_memory_end(memory, claimed);
	give->next_ns = pl_now_ns() + LOOK_NSEC + (pl_thread_cpu_ns() - cpu) * TIME_SHARE;
	return stop_ns;
}
