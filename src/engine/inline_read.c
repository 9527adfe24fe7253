/* SPDX-License-Identifier: MIT */
#include "inline_read.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"

/* A row whose two copies differ is in the middle of an event; it comes to rest within nanoseconds. */
#define SETTLE_TRIES 8
#define SITES_AT_ONCE 4096
enum { BULK_WORDS = 1 << 15 };
/* What a process gone wild may make us remember. Not how often rows are named: of a program that comes back to the same traces
 * all its life they are named again without end. */
#define TRANSLATED_MAX (1ULL << 26)

int pl_inline_reader_init(struct pl_inline_reader *reader)
{
	return inline_frames_init(reader);
}

static void free_tables(struct pl_inline_reader *reader)
{
	inline_frames_free(reader);
	free(PL_TAKE(reader->local));
	free(PL_TAKE(reader->totals));
	free(PL_TAKE(reader->words));
	free(PL_TAKE(reader->bulk));
	reader->bulk_count = 0;
	reader->capacity = 0;
}

void pl_inline_reader_free(struct pl_inline_reader *reader)
{
	free_tables(reader);
	free(reader->remainders);
}

static int reader_read(const struct pl_inline_reader *reader, uint64_t address, void *buffer, size_t length)
{
	return reader->read(reader->context, address, buffer, length);
}

/* Those of many new rows lie one after the other, and were read at once. */
static int read_frames(const struct pl_inline_reader *reader, uint64_t first, size_t count, uint64_t *ret)
{
	if (first >= reader->bulk_first && first - reader->bulk_first <= reader->bulk_count &&
		count <= reader->bulk_count - (first - reader->bulk_first)) {
		if (count) /* else it may be NULL */
			memcpy(ret, reader->bulk + (first - reader->bulk_first), count * sizeof(*ret));
		return 0;
	}
	return reader_read(reader, reader->config.frames + 8 * first, ret, 8 * count);
}

static void read_bulk(struct pl_inline_reader *reader, const struct pl_inline_site *rows, size_t count)
{
	uint64_t first = UINT64_MAX, end = 0;

	reader->bulk_count = 0;
	for (size_t i = 0; i < count; i++)
		if (rows[i].hash && rows[i].count && rows[i].frames && rows[i].kind < PL_INLINE_KIND_OLDER) {
			first = rows[i].frames - 1 < first ? rows[i].frames - 1 : first;
			end = (uint64_t)rows[i].frames + rows[i].count > end ? (uint64_t)rows[i].frames + rows[i].count : end;
		}
	if (end > reader->config.frames_limit || first >= end || end - first > BULK_WORDS)
		return;
	if (!reader->bulk)
		reader->bulk = malloc(BULK_WORDS * sizeof(*reader->bulk));
	if (reader->bulk && reader_read(reader, reader->config.frames + 8 * first, reader->bulk, 8 * (end - first)) == 0) {
		reader->bulk_first = first;
		reader->bulk_count = end - first;
	}
}

/* One site that the recorder has made since the last pass. 0; -EAGAIN: not ready. */
static int translate(struct pl_inline_reader *reader, uint64_t number, const struct pl_inline_site *row)
{
	uint64_t words[1 + PL_INLINE_FRAMES_MAX], *frame_words = words + 1;
	struct pl_frame frames[PL_INLINE_FRAMES_MAX];
	const bool native = row->kind == 1, older = row->kind >= PL_INLINE_KIND_OLDER;
	int code;

	if (!row->hash)
		return -EAGAIN;
	if (pl_sites_count(reader->sites) >= TRANSLATED_MAX || row->count > PL_INLINE_FRAMES_MAX || row->kind >= PL_INLINE_KIND_OLDER + PL_INLINE_OLDER_CLASSES || row->frames < native || row->frames + (uint64_t)row->count > reader->config.frames_limit ||
		(!older && native + (uint64_t)row->count > reader->config.frames_limit - reader->frames_read))
		return -EPROTO;
	code = read_frames(reader, (uint64_t)row->frames - native, native + (size_t)row->count, frame_words - native);
	for (unsigned int i = 0; code == 0 && i < row->count; i++)
		code = inline_frames_resolve(reader, frame_words[i], &frames[i]);
	if (code < 0)
		return code;
	/* They have the frames of others. */
	reader->words[number] = older ? 0 : (uint8_t)(native + row->count);
	reader->frames_read += reader->words[number];
	if (native) {
		const bool pool = words[0] & PL_INLINE_CALLER_POOL;
		struct pl_native_caller caller;

		code = (pool ? reader->find_pool : reader->find_caller)(
			reader->caller_context, words[0] & ~PL_INLINE_CALLER_POOL, &caller);
		if (code < 0)
			return code;
		reader->local[number] = (pool ? pl_sites_intern_pool : pl_sites_intern_native)(
			reader->sites, frames, row->count, row->more, &caller);
	} else if (older) {
		reader->local[number] = pl_sites_intern_older(
			reader->sites, row->kind - PL_INLINE_KIND_OLDER, frames, row->count, row->more);
	} else {
		reader->local[number] = pl_sites_intern(reader->sites, PL_SITE_PYTHON, frames, row->count, row->more);
	}
	return reader->local[number] == UINT32_MAX ? -ENOMEM : 0;
}

/* Sites without a row: what had no Python frame, and what came when the table was full. */
static int translate_special(struct pl_inline_reader *reader)
{
	struct pl_frame lost = {pl_sites_string(reader->sites, "<lost>"), pl_sites_string(reader->sites, "<lost>"), 0};

	if (!lost.filename || !lost.function)
		return -ENOMEM;
	reader->local[PL_INLINE_SITE_NONE] = UINT32_MAX;
	reader->local[PL_INLINE_SITE_UNKNOWN] = pl_sites_intern(reader->sites, PL_SITE_PYTHON, NULL, 0, false);
	reader->local[PL_INLINE_SITE_LOST] = UINT32_MAX;
	if (reader->control.lost_sites)
		reader->local[PL_INLINE_SITE_LOST] = pl_sites_intern(reader->sites, PL_SITE_PYTHON, &lost, 1, false);
	return 0;
}

static int make_room(struct pl_inline_reader *reader, uint64_t count)
{
	uint64_t capacity = reader->capacity ? reader->capacity : SITES_AT_ONCE;

	if (count <= reader->capacity)
		return 0;
	while (capacity < count)
		capacity *= 2;

	uint32_t *local = reallocarray(reader->local, capacity, sizeof(*local));

	if (!local)
		return -ENOMEM;
	reader->local = local;

	uint8_t *words = reallocarray(reader->words, capacity, 1);

	if (!words)
		return -ENOMEM;
	memset(words + reader->capacity, 0, capacity - reader->capacity);
	reader->words = words;

	struct pl_inline_totals *totals = aligned_alloc(_Alignof(struct pl_inline_totals), capacity * sizeof(*totals));

	if (!totals)
		return -ENOMEM;
	memset(totals, 0, capacity * sizeof(*totals));
	if (reader->totals)
		memcpy(totals, reader->totals, reader->capacity * sizeof(*totals));
	free(reader->totals);
	reader->totals = totals;
	for (uint64_t i = reader->capacity; i < capacity; i++)
		local[i] = UINT32_MAX;
	reader->capacity = capacity;
	return 0;
}

/* New sites in the order of their numbers. One that is not ready has no totals yet: it is looked at when it has. */
static int translate_new(struct pl_inline_reader *reader, uint64_t count)
{
	struct pl_inline_site rows[INLINE_ROWS_AT_ONCE];

	for (uint64_t at = reader->known; at < count;) {
		uint64_t part = count - at < INLINE_ROWS_AT_ONCE ? count - at : INLINE_ROWS_AT_ONCE;
		int code = inline_rows_read(reader, at, part, rows);

		if (code < 0)
			return code;
		read_bulk(reader, rows, part);
		for (uint64_t i = 0; i < part; i++) {
			code = reader->local[at + i] == UINT32_MAX ? translate(reader, at + i, &rows[i]) : 0;
			if (code == -ENOMEM || code == -EFAULT || code == -ESRCH)
				return code;
		}
		at += part;
		reader->known = at;
	}
	reader->bulk_count = 0;
	return 0;
}

/* Those that were not ready, or are other ones than before, ascending. 0, also where some stay unknown. */
static int translate_again(struct pl_inline_reader *reader, const uint32_t *numbers, size_t count)
{
	struct pl_inline_site rows[INLINE_ROWS_AT_ONCE];
	size_t i = 0;

	while (i < count) {
		const uint32_t first = numbers[i];
		size_t end = i;

		while (end < count && numbers[end] - first < INLINE_ROWS_AT_ONCE)
			end++;

		const size_t part = numbers[end - 1] - first + 1;
		int code = inline_rows_read(reader, first, part, rows);

		if (code < 0)
			return code;
		read_bulk(reader, rows, part);
		for (; i < end; i++) {
			code = translate(reader, numbers[i], &rows[numbers[i] - first]);
			if (code == -ENOMEM || code == -EFAULT || code == -ESRCH)
				return code;
		}
	}
	reader->bulk_count = 0;
	return 0;
}

static uint64_t allocated_count(const struct pl_inline_totals *row)
{
	return row->allocated_count + row->shared_allocated_count + row->first_allocated_count;
}

static uint64_t allocated_size(const struct pl_inline_totals *row)
{
	return row->allocated_size + row->shared_allocated_size + row->first_allocated_size;
}

static uint64_t freed_count(const struct pl_inline_totals *row)
{
	return row->freed_count + row->shared_freed_count + row->first_freed_count;
}

static uint64_t freed_size(const struct pl_inline_totals *row)
{
	return row->freed_size + row->shared_freed_size + row->first_freed_size;
}

struct pl_totals pl_inline_row_sum(const struct pl_inline_totals *row)
{
	return (struct pl_totals){.allocated_size = allocated_size(row),
		.allocated_count = allocated_count(row),
		.freed_size = freed_size(row),
		.freed_count = freed_count(row)};
}

/* Totals only grow, and nothing is freed that was not allocated. What fields beyond all measure add up to would wrap. */
static bool is_sane(const struct pl_inline_totals *row, const struct pl_inline_totals *last)
{
	static const uint64_t beyond_measure = 1ULL << 56;

	return (row->freed_size | row->freed_count | row->shared_freed_size | row->shared_freed_count |
		       row->first_freed_size | row->first_freed_count | row->allocated_size | row->allocated_count |
		       row->shared_allocated_size | row->shared_allocated_count | row->first_allocated_size |
		       row->first_allocated_count) < beyond_measure &&
	       (row->sampling == last->sampling || !allocated_count(last)) &&
	       freed_count(row) <= allocated_count(row) && freed_size(row) <= allocated_size(row) &&
	       freed_count(row) >= freed_count(last) && freed_size(row) >= freed_size(last) &&
	       allocated_count(row) >= allocated_count(last) && allocated_size(row) >= allocated_size(last);
}

/*
 * The adds of one event reach a row one after the other. It is copied until
 * two copies agree; a row so busy that they never do is taken as it is if it makes sense, else as it
 * was the last time.
 */
static int settle(struct pl_inline_reader *reader, uint64_t number, struct pl_inline_totals *row)
{
	uint64_t address = reader->config.totals + number * sizeof(*row);
	struct pl_inline_totals again;

	for (int i = 0; i < SETTLE_TRIES; i++) {
		int code = reader_read(reader, address, &again, sizeof(again));

		if (code < 0)
			return code;
		if (memcmp(&again, row, sizeof(again)) == 0)
			break;
		*row = again;
	}
	return 0;
}

/* What was added since the row was accepted the last time goes to its site: several of the recorder's
 * sites can be one trace by line. */
static void accept(struct pl_inline_reader *reader, uint64_t number, const struct pl_inline_totals *row)
{
	struct pl_totals *totals = pl_sites_totals(reader->sites, reader->local[number]);
	struct pl_inline_totals *last = &reader->totals[number];
	struct pl_inline_estimate before, now;

	pl_inline_estimate(last, reader->config.sample, &before);
	pl_inline_estimate(row, reader->config.sample, &now);
	totals->allocated_size += now.totals.allocated_size - before.totals.allocated_size;
	totals->allocated_count += now.totals.allocated_count - before.totals.allocated_count;
	totals->freed_size += now.totals.freed_size - before.totals.freed_size;
	totals->freed_count += now.totals.freed_count - before.totals.freed_count;
	totals->size_variance += now.live_size_variance - before.live_size_variance;
	totals->count_variance += now.live_count_variance - before.live_count_variance;
	if (reader->starting) {
		totals->apart_size -= now.totals.allocated_size - now.totals.freed_size -
				      (before.totals.allocated_size - before.totals.freed_size);
		totals->apart_count -= now.totals.allocated_count - now.totals.freed_count -
				       (before.totals.allocated_count - before.totals.freed_count);
		totals->apart_allocated += now.totals.allocated_count - before.totals.allocated_count;
	}
	*last = *row;
}

/* What a process that ended had live at a site. */
struct inline_remainder {
	uint32_t site;
	uint64_t size, count;
	double size_variance, count_variance;
};

static bool remainder_of(const struct pl_inline_reader *reader, uint64_t number, struct inline_remainder *ret)
{
	struct pl_inline_estimate last;

	if (reader->local[number] == UINT32_MAX)
		return false;
	pl_inline_estimate(&reader->totals[number], reader->config.sample, &last);
	*ret = (struct inline_remainder){
		.site = reader->local[number],
		.size = last.totals.allocated_size - last.totals.freed_size,
		.count = last.totals.allocated_count - last.totals.freed_count,
		.size_variance = last.live_size_variance,
		.count_variance = last.live_count_variance,
	};
	return ret->size || ret->count;
}

void pl_inline_reader_live(const struct pl_inline_reader *reader, bool *has, size_t count)
{
	for (uint64_t i = 0; i < reader->known && i < reader->capacity; i++)
		if (reader->local[i] < count && allocated_count(&reader->totals[i]) > freed_count(&reader->totals[i]))
			has[reader->local[i]] = true;
}

int pl_inline_reader_end(struct pl_inline_reader *reader)
{
	struct inline_remainder one;
	size_t count = 0;

	for (uint64_t i = 0; i < reader->capacity; i++)
		count += remainder_of(reader, i, &one);
	reader->remainders = calloc(count ? count : 1, sizeof(*reader->remainders));
	if (!reader->remainders)
		return -ENOMEM;
	for (uint64_t i = 0; i < reader->capacity; i++)
		if (remainder_of(reader, i, &one))
			reader->remainders[reader->remainder_count++] = one;
	free_tables(reader);
	return 0;
}

static void retire(struct pl_inline_reader *reader, const struct inline_remainder *remainder)
{
	struct pl_totals *totals = pl_sites_totals(reader->sites, remainder->site);

	totals->apart_size += remainder->size;
	totals->apart_count += remainder->count;
	totals->freed_size += remainder->size;
	totals->freed_count += remainder->count;
	totals->size_variance -= remainder->size_variance;
	totals->count_variance -= remainder->count_variance;
}

void pl_inline_reader_retire(struct pl_inline_reader *reader)
{
	struct inline_remainder one;

	for (uint64_t i = 0; i < reader->capacity; i++) {
		if (remainder_of(reader, i, &one))
			retire(reader, &one);
		reader->local[i] = UINT32_MAX; /* once */
	}
	for (size_t i = 0; i < reader->remainder_count; i++)
		retire(reader, &reader->remainders[i]);
	reader->remainder_count = 0;
}

void pl_inline_reader_settle(struct pl_inline_reader *reader, uint64_t number, const struct pl_inline_totals *row)
{
	if (reader->local[number] != UINT32_MAX && row->generation == reader->totals[number].generation &&
		is_sane(row, &reader->totals[number]))
		accept(reader, number, row);
}

void pl_inline_reader_forget(struct pl_inline_reader *reader, uint64_t number, uint32_t generation, uint32_t room)
{
	reader->local[number] = UINT32_MAX;
	reader->frames_read -= reader->words[number];
	reader->words[number] = 0;
	memset(&reader->totals[number], 0, sizeof(reader->totals[number]));
	reader->totals[number].generation = generation;
	reader->totals[number].room = room;
}

/* Another tracer has given the row away: nothing of it lived any more, whatever was read of it at last. */
static void free_rest(struct pl_inline_reader *reader, uint64_t number)
{
	struct pl_inline_totals row = reader->totals[number];

	row.freed_size += allocated_size(&row) - freed_size(&row);
	row.freed_count += allocated_count(&row) - freed_count(&row);
	if (reader->local[number] != UINT32_MAX)
		accept(reader, number, &row);
}

static int read_row(struct pl_inline_reader *reader, uint64_t number, const struct pl_inline_totals *first,
	struct pl_inline_totals *row)
{
	int code = memcmp(row, first, sizeof(*row)) != 0 ? settle(reader, number, row) : 0;

	if (code == 0 && row->generation != reader->totals[number].generation) {
		free_rest(reader, number);
		pl_inline_reader_forget(reader, number, row->generation, row->room);
	}
	return code;
}

/* Rows that have totals, and are not known. If another tracer frees some at the same time they stay so until the next pass. */
static int name_rows(struct pl_inline_reader *reader, const struct pl_inline_totals *rows, uint64_t count)
{
	pl_autofree uint32_t *numbers = calloc(count + 1, sizeof(*numbers));
	size_t unknown = 0;
	uint64_t reused;

	if (!numbers)
		return -ENOMEM;
	for (uint64_t i = PL_INLINE_SITE_FIRST; i < count; i++)
		if (reader->local[i] == UINT32_MAX && allocated_count(&rows[i]))
			numbers[unknown++] = (uint32_t)i;

	int code = translate_again(reader, numbers, unknown);

	if (code == 0)
		code = reader_read(reader, reader->config.control + offsetof(struct pl_inline_control, reused), &reused,
			sizeof(reused));
	for (size_t i = 0; code == 0 && reused != reader->control.reused && i < unknown; i++)
		pl_inline_reader_forget(reader, numbers[i], rows[numbers[i]].generation, rows[numbers[i]].room);
	return code;
}

static int read_totals(struct pl_inline_reader *reader, uint64_t count)
{
	size_t size = count * sizeof(struct pl_inline_totals);
	pl_autofree struct pl_inline_totals *first = aligned_alloc(_Alignof(struct pl_inline_totals), size);
	pl_autofree struct pl_inline_totals *second = aligned_alloc(_Alignof(struct pl_inline_totals), size);

	if (!first || !second)
		return -ENOMEM;

	int code = reader_read(reader, reader->config.totals, first, size);

	if (code == 0)
		code = reader_read(reader, reader->config.totals, second, size);
	for (uint64_t i = 0; code == 0 && i < count; i++)
		code = read_row(reader, i, &first[i], &second[i]);
	if (code == 0)
		code = name_rows(reader, second, count);
	for (uint64_t i = 0; code == 0 && i < count; i++)
		if (reader->local[i] != UINT32_MAX && is_sane(&second[i], &reader->totals[i]))
			accept(reader, i, &second[i]);
	return code;
}

int pl_inline_reader_pass(struct pl_inline_reader *reader)
{
	int code = reader_read(reader, reader->config.control, &reader->control, sizeof(reader->control));

	if (code < 0)
		return code;
	inline_frames_renew(reader);

	/* A cursor runs past its limit when the table is full; from a tracee gone wild it may be anything. */
	uint64_t count = reader->config.site_limit;

	if (reader->control.next_site < count - PL_INLINE_SITE_FIRST)
		count = PL_INLINE_SITE_FIRST + reader->control.next_site;
	code = make_room(reader, count);
	if (code == 0)
		code = translate_special(reader);
	if (code == 0 && reader->known < PL_INLINE_SITE_FIRST)
		reader->known = PL_INLINE_SITE_FIRST;
	if (code == 0)
		code = translate_new(reader, count);
	return code < 0 ? code : read_totals(reader, count);
}
