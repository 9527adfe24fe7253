/* SPDX-License-Identifier: MIT */
#include "inline_limit.h"

#include "pyleak/headroom.h"
#include "pyleak/log.h"
#include "pyleak/process.h"
#include "pyleak/resident.h"
#include "pyleak/units.h"

/* To count pages takes some milliseconds. */
#define LOOK_NSEC (2 * PL_NSEC_PER_SEC)
enum {
	SITES_LEAST = 4096, /* whatever else there is: lines, and what calls them */
	SITE_BYTES = sizeof(struct pl_inline_totals) + sizeof(struct pl_inline_site) + sizeof(uint16_t),
	FRAME_WORDS = 16,   /* of a site, where nothing is known yet */
};

uint64_t inline_limit_sites(uint64_t limit, uint64_t tables, uint64_t sites, uint64_t frame_words)
{
	const uint64_t each = SITE_BYTES + sizeof(uint64_t) * (sites >= SITES_LEAST ? frame_words / sites + 1 : FRAME_WORDS);
	const uint64_t others = tables > sites * each ? tables - sites * each : 0;
	const uint64_t most = limit > others ? (limit - others) / each : 0;

	return most > SITES_LEAST ? most : SITES_LEAST;
}

enum { RATE_FIRST = 19, RATE_STEP = 2, RATE_MOST = 30, GROWN_SHARE = 32 };

uint32_t inline_limit_rate(uint64_t limit, uint64_t tables, uint64_t sampled_at, uint32_t sampling, uint64_t given, bool cut)
{
	uint32_t wanted = RATE_FIRST;

	if (tables <= limit || !cut || (sampled_at && tables <= sampled_at + sampled_at / GROWN_SHARE))
		return 0;
	/* Rarer than what is in force. */
	while (sampling && wanted <= RATE_MOST && pl_inline_rate(wanted, 0) <= 2 * pl_inline_rate(sampling, given))
		wanted += RATE_STEP;
	return wanted <= RATE_MOST ? wanted : 0;
}

uint64_t inline_limit_sampling(const struct pl_inline_reader *reader)
{
	const uint32_t sampling = pl_inline_sampling(reader->control.mode);

	return sampling > PL_INLINE_SAMPLE_GIVEN ? pl_inline_rate(sampling, 0) : 0;
}

static uint64_t bounded(uint64_t value, uint64_t most)
{
	return value < most ? value : most;
}

static void say(const struct inline_limit *limit, pid_t pid)
{
	char text[PL_SIZE_TEXT];

	pl_format_size((int64_t)limit->bytes, false, text);
	pl_log_warning("the recorder's tables in process %d are at their limit (%s): tracebacks that are new are cut to one frame "
		       "while that is so, lines stay right; --tables SIZE sets it, --frames N makes them smaller",
		(int)pid, text);
}

static void say_sampled(const struct inline_limit *limit, pid_t pid, uint32_t sampling)
{
	char text[PL_SIZE_TEXT], rate[PL_SIZE_TEXT];

	pl_format_size((int64_t)limit->bytes, false, text);
	pl_format_size((int64_t)pl_inline_rate(sampling, 0), false, rate);
	pl_log_warning("the recorder's tables in process %d have outgrown their limit (%s) by the map of live blocks: from now on one "
		       "allocation per %s is recorded, figures of what is new are estimates; --tables SIZE sets the limit",
		(int)pid, text, rate);
}

/* What the map has of a peak that is over is given back first. */
static bool was_given_back(struct inline_limit *limit, struct inline_give *give)
{
	if (!limit->pressed) {
		limit->pressed = true;
		limit->looks = give->looks;
	}
	give->wanted = give->looks == limit->looks;
	return !give->wanted;
}

static uint32_t wanted_rate(struct inline_limit *limit, const struct pl_inline_reader *reader)
{
	const struct pl_inline_control *control = &reader->control;
	const uint32_t sampling = pl_inline_sampling(control->mode);

	/* Of another tracer: what the tables took then is not known. */
	if (sampling > PL_INLINE_SAMPLE_GIVEN && !limit->sampled_at)
		limit->sampled_at = limit->tables;
	/* Not before a look that has found the fewest rows that there can be in force. */
	return inline_limit_rate(limit->bytes, limit->tables, limit->sampled_at, sampling, reader->config.sample,
		control->site_limit && (control->site_limit < SITES_LEAST + SITES_LEAST / 16 || limit->next_site >= control->site_limit));
}

/* Samples from now on, or takes them more rarely. */
static void sample(struct inline_limit *limit, const struct inline_memory *memory, const struct pl_inline_config *config,
	uint32_t rate)
{
	const uint64_t at = config->control + offsetof(struct pl_inline_control, mode) + PL_INLINE_SAMPLE_SHIFT / 8;
	uint8_t byte;

	/* Another tracer may have come before. */
	if (inline_memory_read(memory, at, &byte, sizeof(byte)) < 0 || byte >= rate)
		return;
	byte = (uint8_t)rate;
	if (inline_memory_write(memory, at, &byte, sizeof(byte)) < 0)
		return;
	limit->sampled_at = limit->tables;
	say_sampled(limit, memory->pid, rate);
}

/* Where little is left for the process it is the program's first: not more than half of that. */
static uint64_t leave_room(uint64_t bytes, uint64_t tables, pid_t pid)
{
	struct pl_headroom headroom;
	uint64_t most = tables;

	if (pl_headroom_read("", pid, &headroom) < 0)
		return bytes;
	if (headroom.left > headroom.floor)
		most += (headroom.left - headroom.floor) / 2;
	return bytes < most ? bytes : most;
}

void inline_limit_look(struct inline_limit *limit, struct inline_memory *memory, const struct pl_inline_reader *reader,
	struct inline_give *give, bool claimed)
{
	const struct pl_inline_config *config = &reader->config;
	const uint64_t sites = bounded(reader->control.next_site, config->site_limit);
	const uint64_t words = bounded(reader->control.next_frame, config->frames_limit);
	const uint64_t chunks = bounded(reader->control.next_chunk, config->chunk_count);
	const int64_t now = pl_now_ns();
	uint32_t rate = 0;
	uint64_t wanted;

	if (!limit->bytes || now >= limit->next_ns || chunks > limit->next_chunk ||
		sites > limit->next_site + limit->next_site / 8 + SITES_LEAST) {
		const uint64_t rss = (uint64_t)pl_process_rss(memory->pid);

		limit->tables = pl_resident_or_swapped(memory->pid,
			(struct pl_range){config->data_start, config->pool + chunks * PL_INLINE_CHUNK_BYTES});
		limit->bytes = config->tables ? config->tables : rss > limit->tables ? (rss - limit->tables) / 2 : 0;
		if (!config->tables && limit->bytes < INLINE_LIMIT_LEAST)
			limit->bytes = INLINE_LIMIT_LEAST;
		if (!config->tables)
			limit->bytes = leave_room(limit->bytes, limit->tables, memory->pid);
		limit->next_site = sites;
		limit->next_chunk = chunks;
		limit->next_ns = now + LOOK_NSEC;
		rate = wanted_rate(limit, reader);
		limit->pressed &= rate != 0;
		if (rate && !was_given_back(limit, give)) {
			rate = 0;
			limit->next_ns = now; /* by the next pass */
		}
	}
	wanted = inline_limit_sites(limit->bytes, limit->tables, limit->next_site, words);
	if (reader->control.shortened && !limit->said) {
		limit->said = true;
		say(limit, memory->pid);
	}
	/* Not for each page that comes or goes. */
	if (reader->control.site_limit > wanted - wanted / 32 && reader->control.site_limit < wanted + wanted / 32)
		wanted = 0;
	if ((wanted || rate) && inline_memory_open(memory) && inline_memory_begin(memory, claimed)) {
		if (wanted)
			(void)inline_memory_write(memory, config->control + offsetof(struct pl_inline_control, site_limit), &wanted,
				sizeof(wanted));
		if (rate)
			sample(limit, memory, config, rate);
		inline_memory_end(memory, claimed);
	}
}
