/* SPDX-License-Identifier: MIT */
#include "inline_read.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"

/* A row whose two copies differ is in the middle of an event; it comes to rest within nanoseconds. */
#define SETTLE_TRIES 8
#define SITES_AT_ONCE 4096

struct inline_code {
	const char *filename, *function; /* interned */
	int first_line;
	uint8_t *lines;
	size_t lines_size;
};

int pl_inline_reader_init(struct pl_inline_reader *reader)
{
	reader->codes = calloc(reader->config.code_limit, sizeof(struct inline_code *));
	return reader->codes ? 0 : -ENOMEM;
}

static void free_tables(struct pl_inline_reader *reader)
{
	for (uint64_t i = 0; reader->codes && i < reader->config.code_limit; i++)
		if (reader->codes[i]) {
			free(reader->codes[i]->lines);
			free(reader->codes[i]);
		}
	free(PL_TAKE(reader->codes));
	free(PL_TAKE(reader->local));
	free(PL_TAKE(reader->totals));
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

static const char *intern_text(struct pl_inline_reader *reader, const uint8_t *bytes, size_t size, unsigned int kind)
{
	pl_autofree char *text = NULL;

	if ((kind != 1 && kind != 2 && kind != 4) || size < kind)
		return pl_sites_string(reader->sites, "<unknown>");
	return pl_python_text(bytes, kind, size / kind, SIZE_MAX, &text) < 0 ? NULL : pl_sites_string(reader->sites, text);
}

/* 0; -EAGAIN: the row is not ready yet. */
static int read_code(struct pl_inline_reader *reader, uint32_t number, struct inline_code **ret)
{
	const struct pl_inline_config *config = &reader->config;
	struct pl_inline_code row;
	int code = reader_read(reader, config->codes + number * sizeof(row), &row, sizeof(row));

	if (code < 0)
		return code;

	uint64_t size = (uint64_t)row.filename_bytes + row.name_bytes + row.lines_bytes;

	if (!row.hash)
		return -EAGAIN;
	if (row.filename_bytes > PL_INLINE_FILENAME_MAX || row.name_bytes > PL_INLINE_NAME_MAX ||
		row.lines_bytes > PL_INLINE_LINES_MAX || row.filename_kind > 4 || row.name_kind > 4 ||
		row.data > config->arena_size || size > config->arena_size - row.data ||
		size > config->arena_size - reader->texts_read)
		return -EPROTO;

	pl_autofree uint8_t *bytes = malloc(size + 1);
	struct inline_code *entry = calloc(1, sizeof(*entry));

	if (!bytes || !entry) {
		free(entry);
		return -ENOMEM;
	}
	code = size ? reader_read(reader, config->arena + row.data, bytes, size) : 0;
	if (code < 0)
		goto fail;
	entry->filename = intern_text(reader, bytes, row.filename_bytes, row.filename_kind);
	entry->function = intern_text(reader, bytes + row.filename_bytes, row.name_bytes, row.name_kind);
	entry->first_line = row.first_line;
	entry->lines_size = row.lines_bytes;
	entry->lines = malloc(entry->lines_size + 1);
	code = -ENOMEM;
	if (!entry->filename || !entry->function || !entry->lines)
		goto fail;
	memcpy(entry->lines, bytes + row.filename_bytes + row.name_bytes, entry->lines_size);
	reader->texts_read += size;
	*ret = entry;
	return 0;
fail:
	free(entry->lines);
	free(entry);
	return code;
}

static int resolve_frame(struct pl_inline_reader *reader, uint64_t word, struct pl_frame *ret)
{
	uint32_t number = pl_inline_frame_code(word);

	if (number < PL_INLINE_CODE_FIRST || number >= reader->config.code_limit) {
		ret->filename = ret->function = pl_sites_string(reader->sites, "<unknown>");
		ret->line = 0;
		return ret->filename ? 0 : -ENOMEM;
	}
	if (!reader->codes[number]) {
		int code = read_code(reader, number, &reader->codes[number]);

		if (code < 0)
			return code;
	}

	const struct inline_code *entry = reader->codes[number];

	ret->filename = entry->filename;
	ret->function = entry->function;
	ret->line = pl_line_lookup(reader->minor, entry->lines, entry->lines_size, entry->first_line,
		pl_inline_frame_offset(word));
	return 0;
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
	if (row->count > PL_INLINE_FRAMES_MAX || row->kind >= PL_INLINE_KIND_OLDER + PL_INLINE_OLDER_CLASSES || row->frames < native || row->frames + (uint64_t)row->count > reader->config.frames_limit ||
		(!older && native + (uint64_t)row->count > reader->config.frames_limit - reader->frames_read))
		return -EPROTO;
	code = reader_read(reader, reader->config.frames + 8 * ((uint64_t)row->frames - native), frame_words - native,
		8 * (native + (size_t)row->count));
	for (unsigned int i = 0; code == 0 && i < row->count; i++)
		code = resolve_frame(reader, frame_words[i], &frames[i]);
	if (code < 0)
		return code;
	/* They have the frames of others. */
	reader->frames_read += older ? 0 : native + row->count;
	if (native) {
		struct pl_native_caller caller;

		code = reader->find_caller(reader->caller_context, words[0] & ~PL_INLINE_CALLER_POOL, &caller);
		if (code < 0)
			return code;
		if (words[0] & PL_INLINE_CALLER_POOL) {
			const struct pl_native_caller pool = {
				.module = caller.module,
				.symbol = reader->find_allocator(reader->caller_context, words[0] & ~PL_INLINE_CALLER_POOL),
			};

			reader->local[number] = pl_sites_intern_pool(reader->sites, frames, row->count, row->more, &pool);
			return reader->local[number] == UINT32_MAX ? -ENOMEM : 0;
		}
		reader->local[number] = pl_sites_intern_native(reader->sites, frames, row->count, row->more, &caller);
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

/* New sites in the order of their numbers; one that is not ready is looked at again the next time. */
static int translate_new(struct pl_inline_reader *reader, uint64_t count)
{
	struct pl_inline_site rows[256];
	bool gap = false;

	for (uint64_t at = reader->known; at < count;) {
		uint64_t part = count - at < 256 ? count - at : 256;
		int code = reader_read(reader, reader->config.sites + at * sizeof(rows[0]), rows, part * sizeof(rows[0]));

		if (code < 0)
			return code;
		for (uint64_t i = 0; i < part; i++) {
			code = reader->local[at + i] == UINT32_MAX ? translate(reader, at + i, &rows[i]) : 0;
			if (code == -ENOMEM || code == -EFAULT || code == -ESRCH)
				return code;
			gap |= code < 0;
			if (!gap)
				reader->known = at + i + 1;
		}
		at += part;
	}
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

/* Totals only grow, and nothing is freed that was not allocated. What fields beyond all measure add up to would wrap. */
static bool is_sane(const struct pl_inline_totals *row, const struct pl_inline_totals *last)
{
	static const uint64_t beyond_measure = 1ULL << 56;

	return (row->freed_size | row->freed_count | row->shared_freed_size | row->shared_freed_count |
		       row->first_freed_size | row->first_freed_count | row->allocated_size | row->allocated_count |
		       row->shared_allocated_size | row->shared_allocated_count | row->first_allocated_size |
		       row->first_allocated_count) < beyond_measure &&
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

static uint64_t live_size(const struct pl_totals *totals)
{
	return totals->allocated_size - totals->freed_size;
}

static uint64_t live_count(const struct pl_totals *totals)
{
	return totals->allocated_count - totals->freed_count;
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
		totals->apart_size -= live_size(&now.totals) - live_size(&before.totals);
		totals->apart_count -= live_count(&now.totals) - live_count(&before.totals);
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
	for (uint64_t i = 0; code == 0 && i < count; i++) {
		if (reader->local[i] == UINT32_MAX)
			continue;
		if (memcmp(&second[i], &first[i], sizeof(first[i])) != 0)
			code = settle(reader, i, &second[i]);
		if (code == 0 && is_sane(&second[i], &reader->totals[i]))
			accept(reader, i, &second[i]);
	}
	return code;
}

int pl_inline_reader_pass(struct pl_inline_reader *reader)
{
	int code = reader_read(reader, reader->config.control, &reader->control, sizeof(reader->control));

	if (code < 0)
		return code;

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
