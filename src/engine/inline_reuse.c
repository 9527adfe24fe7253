/* SPDX-License-Identifier: MIT */
#include "inline_sweep.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pyleak/cleanup.h"
#include "pyleak/log.h"
#include "pyleak/units.h"

/* A sweep is worth it for so many rows of a room of which the recorder has none left … */
enum { SITES_LEAST = 512, CODES_LEAST = 1024 };
/* … or this part of all. */
enum { SITES_SHARE = 16, CODES_SHARE = 8, PRESSED_LEAST = 8192, PRESSED_SHARE = 4 };
/* Sweeps take no more of a processor than one part in so many. */
#define TIME_SHARE 8
enum { ROUNDS = 8 };

void inline_reuse_free(struct inline_reuse *reuse)
{
	if (reuse->sweeps)
		pl_log_debug("%" PRIu64 " rows of tracebacks and %" PRIu64 " of code objects were given back in %" PRIu64
			     " sweeps, in %.1f ms",
			reuse->sites, reuse->codes, reuse->sweeps, (double)reuse->taken_ns / PL_NSEC_PER_MSEC);
	free(reuse->counts);
	free(reuse->idle);
	*reuse = (struct inline_reuse){0};
}

static bool make_room(struct inline_reuse *reuse, uint64_t capacity)
{
	if (capacity <= reuse->capacity)
		return true;

	uint32_t *counts = reallocarray(reuse->counts, capacity, sizeof(*counts));

	if (counts)
		reuse->counts = counts;

	uint8_t *idle = counts ? realloc(reuse->idle, capacity) : NULL;

	if (!idle)
		return false;
	reuse->idle = idle;
	memset(counts + reuse->capacity, 0, (capacity - reuse->capacity) * sizeof(*counts));
	memset(idle + reuse->capacity, 0, capacity - reuse->capacity);
	reuse->capacity = capacity;
	return true;
}

static bool is_dead(const struct pl_inline_totals *row)
{
	const struct pl_totals sum = pl_inline_row_sum(row);

	return sum.allocated_count == sum.freed_count && sum.allocated_size == sum.freed_size;
}

void inline_reuse_note(struct inline_reuse *reuse, const struct pl_inline_reader *reader)
{
	const bool pressed = reader->control.site_limit && reader->control.next_site >= reader->control.site_limit / 4 * 3;

	if (!make_room(reuse, reader->capacity))
		return;
	for (uint64_t i = PL_INLINE_SITE_FIRST; i < reader->known; i++) {
		const struct pl_inline_totals *row = &reader->totals[i];
		const uint32_t count = (uint32_t)pl_inline_row_sum(row).allocated_count;

		/* What is allocated at again and again is not worth a row that is made each time, unless rows are short. */
		reuse->idle[i] = reader->local[i] != UINT32_MAX && count && (pressed || count == reuse->counts[i]) && is_dead(row);
		reuse->counts[i] = count;
	}
}

bool inline_reuse_is_pressed(struct inline_memory *memory, const struct pl_inline_reader *reader)
{
	const uint64_t then = reader->control.next_site;
	uint64_t least = then / PRESSED_SHARE > PRESSED_LEAST ? then / PRESSED_SHARE : PRESSED_LEAST, now;

	return inline_memory_open(memory) &&
	       inline_memory_read(memory, reader->config.control + offsetof(struct pl_inline_control, next_site), &now,
		       sizeof(now)) == 0 &&
	       now > then && now - then >= least;
}

/* Whether there is enough to gain of what the recorder has none left of. */
static bool sites_are_wanted(const struct sweep *sweep)
{
	uint64_t rooms[PL_INLINE_SITE_ROOMS] = {0}, least = sweep->site_count / SITES_SHARE;

	if (least < SITES_LEAST)
		least = SITES_LEAST;
	for (uint64_t i = PL_INLINE_SITE_FIRST; i < sweep->reader->known && i < sweep->reuse->capacity; i++)
		if (sweep->reuse->idle[i] && sweep->reader->totals[i].room < PL_INLINE_SITE_ROOMS)
			rooms[sweep->reader->totals[i].room]++;
	for (size_t room = 0; room < PL_INLINE_SITE_ROOMS; room++)
		if (rooms[room] >= least && !sweep->control.spare_sites[room])
			return true;
	return false;
}

static bool codes_are_wanted(const struct sweep *sweep)
{
	const uint64_t then = sweep->reuse->next_code, now = sweep->control.next_code;
	uint64_t least = then / CODES_SHARE > CODES_LEAST ? then / CODES_SHARE : CODES_LEAST;

	return now - then >= least || sweep->control.lost_codes != sweep->reuse->lost_codes;
}

static uint64_t site_at(const struct sweep *sweep, uint64_t number)
{
	return sweep->config->sites + number * sizeof(struct pl_inline_site);
}

/* Those that were made since the pass, too. */
static int read_all_sites(struct sweep *sweep, uint64_t *ret_count)
{
	struct pl_inline_site *rows;
	int code = sweep_read_cursor(sweep, offsetof(struct pl_inline_control, next_site), PL_INLINE_SITE_FIRST,
		sweep->config->site_limit, ret_count);

	if (code < 0)
		return code;
	if (*ret_count < sweep->site_count)
		*ret_count = sweep->site_count;
	rows = reallocarray(sweep->rows, *ret_count + 1, sizeof(*rows));
	if (!rows)
		return -ENOMEM;
	sweep->rows = rows;
	return inline_memory_read(sweep->memory, sweep->config->sites, rows, *ret_count * sizeof(*rows));
}

static int read_sites(struct sweep *sweep)
{
	return inline_memory_read(sweep->memory, sweep->config->sites, sweep->rows, sweep->site_count * sizeof(*sweep->rows));
}

/* Rows of blocks from before the probe have the frames of others, which must stay. `count`: of sweep->rows. */
static int keep_shared(const struct sweep *sweep, uint64_t count, uint8_t *aside)
{
	pl_autofree uint8_t *shared = calloc(sweep->config->frames_limit / 8 + 1, 1);
	bool any = false;

	if (!shared)
		return -ENOMEM;
	for (uint64_t i = PL_INLINE_SITE_FIRST; i < count; i++) {
		const struct pl_inline_site *row = &sweep->rows[i];

		if (row->hash && row->kind >= PL_INLINE_KIND_OLDER && row->count && row->frames < sweep->config->frames_limit) {
			shared[row->frames / 8] |= (uint8_t)(1 << row->frames % 8);
			any = true;
		}
	}
	for (uint64_t i = PL_INLINE_SITE_FIRST; any && i < sweep->site_count; i++) {
		const struct pl_inline_site *row = &sweep->rows[i];

		if (row->kind < PL_INLINE_KIND_OLDER && row->frames < sweep->config->frames_limit &&
			shared[row->frames / 8] & 1 << row->frames % 8)
			aside[i] = 0;
	}
	return 0;
}

static bool is_empty(const struct sweep *sweep, uint32_t room)
{
	return room < PL_INLINE_SITE_ROOMS && !sweep->control.spare_sites[room];
}

/* Rows that were used and have no hash, where the list is empty that they would be in: they may be in the recorder's hands,
 * but not for longer than a grace. */
static void find_strays(const struct sweep *sweep)
{
	for (uint64_t i = PL_INLINE_SITE_FIRST; i < sweep->site_count && i < sweep->reader->known; i++) {
		const struct pl_inline_totals *row = &sweep->reader->totals[i];

		sweep->sites_stray[i] = !sweep->rows[i].hash && is_empty(sweep, row->room) && is_dead(row) &&
					(row->generation || pl_inline_row_sum(row).allocated_count);
	}
}

static int set_sites_aside(struct sweep *sweep)
{
	int code = read_sites(sweep);

	for (uint64_t i = PL_INLINE_SITE_FIRST; code == 0 && i < sweep->site_count && i < sweep->reader->known; i++)
		sweep->sites_aside[i] = i < sweep->reuse->capacity && sweep->reuse->idle[i] && sweep->rows[i].hash &&
					sweep->rows[i].kind < PL_INLINE_KIND_OLDER &&
					is_empty(sweep, sweep->reader->totals[i].room);
	if (code == 0)
		find_strays(sweep);
	if (code == 0)
		code = keep_shared(sweep, sweep->site_count, sweep->sites_aside);
	return code < 0 ? code : sweep_set_aside(sweep, sweep->sites_aside, sweep->site_count, sweep->config->sites, sweep->rows,
					 sizeof(*sweep->rows));
}

/* Until no thread and no cache knows what was set aside: none is left in a cache after a grace. */
static int wait_for_graces(struct sweep *sweep)
{
	const int64_t deadline_ns = pl_now_ns() + INLINE_GRACE_NSEC;
	int code = inline_slots_look(&sweep->slots, sweep->memory, sweep->config);
	int found = code < 0 ? code : inline_slots_forget(&sweep->slots, sweep->sites_aside, sweep->site_count);

	for (int i = 0; found >= 0 && i < ROUNDS; i++) {
		code = inline_slots_grace(&sweep->slots, deadline_ns);
		found = code < 0 ? code : inline_slots_forget(&sweep->slots, sweep->sites_aside, sweep->site_count);
		if (found <= 0)
			return found;
	}
	return found < 0 ? found : -EAGAIN;
}

/* Keeps of those that were set aside what turned out to be needed, and restores what makes it be found. */
static int revive(struct sweep *sweep)
{
	pl_autofree uint8_t *dead = malloc(sweep->site_count);
	pl_autofree struct pl_inline_totals *totals =
		aligned_alloc(_Alignof(struct pl_inline_totals), sweep->site_count * sizeof(*totals));
	uint64_t count = 0;
	int code;

	if (!dead || !totals)
		return -ENOMEM;
	memcpy(dead, sweep->sites_aside, sweep->site_count);
	/* In this order: see the ABI of blocks that are older. */
	code = inline_slots_keep_last(&sweep->slots, dead, sweep->site_count);
	if (code == 0)
		code = read_all_sites(sweep, &count);
	if (code == 0)
		code = keep_shared(sweep, count, dead);
	if (code == 0)
		code = inline_memory_read(sweep->memory, sweep->config->totals, totals, sweep->site_count * sizeof(*totals));
	for (uint64_t i = PL_INLINE_SITE_FIRST; code == 0 && i < sweep->site_count; i++) {
		if (!sweep->sites_aside[i])
			continue;
		if (dead[i] && is_dead(&totals[i]) && totals[i].generation == sweep->reader->totals[i].generation) {
			pl_inline_reader_settle(sweep->reader, i, &totals[i]);
			continue;
		}
		sweep->sites_aside[i] = 0;
		code = sweep_write_hash(sweep, site_at(sweep, i), sweep->rows[i].hash | 1);
	}
	/* After the graces, and as they are now. */
	for (uint64_t i = PL_INLINE_SITE_FIRST; code == 0 && i < sweep->site_count; i++)
		sweep->sites_aside[i] |= sweep->sites_stray[i] && !sweep->rows[i].hash && is_dead(&totals[i]) &&
					 totals[i].generation == sweep->reader->totals[i].generation;
	return code;
}

/* Makes proven rows spare ones, each followed by what was the head of its list. */
static int give_sites_run(struct sweep *sweep, uint32_t first, size_t length, uint32_t heads[PL_INLINE_SITE_ROOMS])
{
	struct pl_inline_totals totals[SWEEP_RUN];
	const uint16_t skips[SWEEP_RUN] = {0};
	int code;

	for (size_t i = length; i-- > 0;) {
		const struct pl_inline_totals *last = &sweep->reader->totals[first + i];

		totals[i] = (struct pl_inline_totals){
			.generation = last->generation + 1, .next = heads[last->room], .room = last->room};
		heads[last->room] = first + (uint32_t)i;
		sweep->rows[first + i].hash = 0;
	}
	code = inline_memory_write(sweep->memory, site_at(sweep, first), &sweep->rows[first], length * sizeof(*sweep->rows));
	if (code == 0)
		code = inline_memory_write(
			sweep->memory, sweep->config->totals + first * sizeof(totals[0]), totals, length * sizeof(totals[0]));
	if (code == 0)
		code = inline_memory_write(
			sweep->memory, sweep->config->skips + first * sizeof(skips[0]), skips, length * sizeof(skips[0]));
	for (size_t i = 0; i < length; i++) {
		pl_inline_reader_forget(sweep->reader, first + i, totals[i].generation, totals[i].room);
		sweep->reuse->counts[first + i] = sweep->reuse->idle[first + i] = 0;
	}
	sweep->reuse->sites += length;
	return code;
}

/* For whoever reads at the same time. */
static int announce(const struct sweep *sweep)
{
	const uint64_t reused = sweep->control.reused + 1;

	if (sweep->reader->reused == sweep->control.reused)
		sweep->reader->reused = reused;
	return inline_memory_write(
		sweep->memory, sweep->config->control + offsetof(struct pl_inline_control, reused), &reused, sizeof(reused));
}

static int give_sites(struct sweep *sweep)
{
	uint32_t heads[PL_INLINE_SITE_ROOMS] = {0};
	int code = 0;

	for (uint64_t at = 0, length; code == 0 && at < sweep->site_count; at += length ? length : 1) {
		length = sweep_run(sweep->sites_aside, at, sweep->site_count);
		if (length)
			code = give_sites_run(sweep, (uint32_t)at, length, heads);
	}
	for (size_t room = 0; code == 0 && room < PL_INLINE_SITE_ROOMS; room++)
		code = sweep_publish(sweep, offsetof(struct pl_inline_control, spare_sites) + room * sizeof(uint64_t), heads[room]);
	return code;
}

/* What was made while there was no row for a code object: found in no cache any more, so that it is made anew. */
static int forget_lost(struct sweep *sweep)
{
	if (!sweep->control.lost_codes)
		return 0;

	int code = inline_slots_forget(&sweep->slots, sweep->sites_lost, sweep->site_count);

	return code < 0 ? code : inline_slots_forget_lost(&sweep->slots);
}

static int sweep_all(struct sweep *sweep, bool sites, bool codes)
{
	int code = sites ? set_sites_aside(sweep) : 0;

	if (code == 0 && codes)
		code = sweep_codes_aside(sweep);
	if (code == 0)
		code = wait_for_graces(sweep);
	if (code == 0 && sites)
		code = revive(sweep);
	if (code == 0 && codes)
		code = sweep_codes_revive(sweep);
	if (code == 0)
		code = announce(sweep);
	/* Code objects that only these sites named are found by the next sweep. */
	if (code == 0 && sites)
		code = give_sites(sweep);
	if (code == 0 && codes)
		code = sweep_codes_give(sweep);
	if (code == 0 && codes)
		code = forget_lost(sweep);
	return code;
}

void inline_reuse_sweep(struct inline_reuse *reuse, struct inline_memory *memory, struct pl_inline_reader *reader,
	bool claimed)
{
	const int64_t started = pl_now_ns(), cpu = pl_thread_cpu_ns();
	struct sweep sweep = {.reuse = reuse, .memory = memory, .reader = reader, .config = &reader->config};
	bool sites, codes;
	int code = 0;

	if (started < reuse->next_ns || !reuse->capacity || !inline_memory_open(memory) ||
		inline_memory_read(memory, reader->config.control, &sweep.control, sizeof(sweep.control)) < 0)
		return;
	sweep.site_count = reader->known;
	sweep.code_count = sweep_bounded(sweep.control.next_code, PL_INLINE_CODE_FIRST, reader->config.code_limit);
	sites = sites_are_wanted(&sweep);
	codes = codes_are_wanted(&sweep);
	if ((!sites && !codes) || !inline_memory_begin(memory, claimed))
		return;
	/* As it is now: another tracer may have swept until it gave up the claim. */
	if (inline_memory_read(memory, reader->config.control, &sweep.control, sizeof(sweep.control)) < 0)
		code = -EFAULT;
	sweep.rows = malloc(sweep.site_count * sizeof(*sweep.rows) + 1);
	sweep.codes = malloc(sweep.code_count * sizeof(*sweep.codes) + 1);
	sweep.sites_aside = calloc(sweep.site_count + 1, 1);
	sweep.codes_aside = calloc(sweep.code_count + 1, 1);
	sweep.sites_lost = calloc(sweep.site_count + 1, 1);
	sweep.sites_stray = calloc(sweep.site_count + 1, 1);
	if (!sweep.rows || !sweep.codes || !sweep.sites_aside || !sweep.codes_aside || !sweep.sites_lost || !sweep.sites_stray)
		code = -ENOMEM;
	if (code == 0)
		code = sweep_all(&sweep, sites, codes);
	if (code == 0 && codes) {
		reuse->next_code = sweep.control.next_code;
		reuse->lost_codes = sweep.control.lost_codes;
	}
	inline_slots_free(&sweep.slots);
	free(sweep.rows);
	free(sweep.codes);
	free(sweep.sites_aside);
	free(sweep.codes_aside);
	free(sweep.sites_lost);
	free(sweep.sites_stray);
	inline_memory_end(memory, claimed);
	reuse->sweeps++;
	reuse->taken_ns += pl_now_ns() - started;
	reuse->next_ns = pl_now_ns() + (pl_thread_cpu_ns() - cpu) * TIME_SHARE;
	if (code < 0)
		pl_log_debug("a sweep of the tables was given up: %s", strerror(-code));
	else
		pl_log_debug("a sweep of %" PRIu64 " rows and %" PRIu64 " code objects: %" PRIu64 " and %" PRIu64
			     " were given back so far (%.1f ms, %.1f of them at work)",
			sweep.site_count, sweep.code_count, reuse->sites, reuse->codes,
			(double)(pl_now_ns() - started) / PL_NSEC_PER_MSEC, (double)(pl_thread_cpu_ns() - cpu) / PL_NSEC_PER_MSEC);
}
