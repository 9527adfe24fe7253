/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "checks.h"
#include "heap_trace.h"
#include "json_text.h"
#include "output.h"
#include "pyleak/account_reader.h"
#include "pyleak/census.h"
#include "pyleak/cleanup.h"
#include "pyleak/heap.h"
#include "pyleak/log.h"
#include "pyleak/units.h"

/* What is alive, by type. */

/* Fewer a Python never has: these only look like some, as its allocators put headers before the blocks (debug hooks). */
enum { OBJECTS_MIN = 2000 };

struct heap {
	struct pl_subject subject;
	struct pl_census census;
	struct heap_traced traced; /* where blocks could not be walked */
	struct pl_account account; /* what the memory consists of beside them */
	size_t shown;
};

/* What allocators hold and no block uses; below 0: not known. */
static int64_t free_bytes(const struct pl_account *account)
{
	int64_t sum = 0;

	if (!account->taken || (!account->known[PL_ACCOUNT_ARENAS_FREE] && !account->known[PL_ACCOUNT_HEAP_FREE]))
		return -1;
	sum += account->known[PL_ACCOUNT_ARENAS_FREE] ? account->parts[PL_ACCOUNT_ARENAS_FREE] : 0;
	sum += account->known[PL_ACCOUNT_HEAP_FREE] ? account->parts[PL_ACCOUNT_HEAP_FREE] : 0;
	return sum;
}

static void take_account(struct heap *heap)
{
	struct pl_account_reader *reader = NULL;

	if (pl_account_open(heap->subject.python, &reader) == 0)
		pl_account_take(reader, 0, &heap->account);
	pl_account_close(reader);
}

static uint64_t average(const struct pl_census_row *row)
{
	return row->count ? row->size / row->count : 0;
}

static int descending(uint64_t a, uint64_t b)
{
	return a < b ? 1 : a > b ? -1 : 0;
}

static int by_size(const void *a, const void *b)
{
	const struct pl_census_row *left = a, *right = b;

	return left->size != right->size ? descending(left->size, right->size) : strcmp(left->name, right->name);
}

static int by_count(const void *a, const void *b)
{
	const struct pl_census_row *left = a, *right = b;

	return left->count != right->count ? descending(left->count, right->count) : by_size(a, b);
}

static int by_average(const void *a, const void *b)
{
	const struct pl_census_row *left = a, *right = b;

	return average(left) != average(right) ? descending(average(left), average(right)) : by_size(a, b);
}

static bool has_allocator_named(struct pl_space *space)
{
	static const char *const names[] = {"/libjemalloc", "/libtcmalloc", "/libmimalloc"};
	struct pl_maps maps = {0};
	bool found = false;

	if (pl_space_maps(space, &maps) < 0)
		return false;
	for (size_t i = 0; i < maps.count && !found; i++)
		for (size_t name = 0; name < sizeof(names) / sizeof(names[0]); name++)
			found |= strstr(maps.items[i].path, names[name]) != NULL;
	pl_maps_free(&maps);
	return found;
}

/*
 * Whether malloc is glibc's: what lies where its heap would be is made of its chunks. More of it than is looked through
 * (PL_HEAP_BYTES_MAX) is another's only if such a one is loaded.
 */
static bool malloc_is_glibc(const struct heap *heap)
{
	if (!heap->census.heap || heap->account.known[PL_ACCOUNT_HEAP_FREE])
		return heap->census.heap;
	return !heap->account.taken ||
	       (heap->account.rss > PL_HEAP_BYTES_MAX && !has_allocator_named(heap->subject.space));
}

/* By walking blocks, which does not stop the process; where that does not do, by tracing. */
static int count(struct heap *heap, struct pl_error *err)
{
	struct pl_error why = {0};
	int code = heap->subject.python->free_threaded ? -ENOTSUP : pl_census_take(heap->subject.python, &heap->census, &why);

	if (code < 0 && code != -ENOTSUP) {
		*err = why;
		return code;
	}
	take_account(heap);
	if (code == 0 && heap->census.objects >= OBJECTS_MIN && malloc_is_glibc(heap))
		return 0;
	why = (struct pl_error){0};
	if (heap_trace(&heap->subject, &heap->census, &heap->traced, &why) == 0)
		return 0;
	if (heap->census.objects < OBJECTS_MIN) {
		*err = why;
		return why.code;
	}
	pl_log_warning("%s", why.text);
	heap->census.heap = false;
	return 0;
}

static int take(const struct pl_options *options, pid_t pid, struct heap *heap, struct pl_error *err)
{
	struct pl_census *census = &heap->census;
	int code = pl_subject_open(&heap->subject, pid, false, err);

	if (code == 0)
		code = pl_checks_before_reading(&heap->subject, err);
	if (code < 0)
		return code;
	code = count(heap, err);
	if (!pl_process_is_alive(pid, heap->subject.process.start_time)) {
		*err = (struct pl_error){0};
		return pl_fail(err, -ESRCH, "process %d ended while it was read", (int)pid);
	}
	if (code < 0)
		return code;
	qsort(census->rows, census->count, sizeof(*census->rows),
		options->sort == PL_SORT_COUNT   ? by_count :
		options->sort == PL_SORT_AVERAGE ? by_average :
						   by_size);
	heap->shown = options->limit && options->limit < census->count ? options->limit : census->count;
	return 0;
}

static void print_figures(FILE *out, uint64_t size, uint64_t count)
{
	char text[PL_SIZE_TEXT];

	pl_format_size((int64_t)size, false, text);
	(void)fprintf(out, "size=%s, count=%" PRIu64, text, count);
	if (count) {
		pl_format_average((int64_t)size, (int64_t)count, text);
		(void)fprintf(out, ", average=%s", text);
	}
	(void)fputc('\n', out);
}

/* What there is beside what is in use. */
static void print_memory(FILE *out, const struct heap *heap)
{
	const struct pl_account *account = &heap->account;
	char text[PL_SIZE_TEXT];
	int64_t unused = free_bytes(account);

	if (!account->taken)
		return;
	pl_format_size((int64_t)account->rss, false, text);
	(void)fprintf(out, "RSS %s", text);
	if (unused >= 0) {
		pl_format_size(unused, false, text);
		(void)fprintf(out, ": free in allocators %s", text);
	}
	if (account->known[PL_ACCOUNT_FILES]) {
		pl_format_size(account->parts[PL_ACCOUNT_FILES], false, text);
		(void)fprintf(out, "%s files %s", unused >= 0 ? "," : ":", text);
	}
	(void)fputc('\n', out);
}

static int print_text(FILE *out, const struct heap *heap, bool color)
{
	const struct pl_census *census = &heap->census;
	uint64_t size = 0, count = 0;

	for (size_t i = 0; i < census->count; i++) {
		const struct pl_census_row *row = &census->rows[i];
		pl_autofree char *name = i < heap->shown ? pl_printable(row->name) : NULL;

		if (i >= heap->shown) {
			size += row->size;
			count += row->count;
			continue;
		}
		if (!name)
			return -ENOMEM;
		(void)fprintf(out, "%s%s%s: ", color ? "\033[1m" : "", name, color ? "\033[0m" : "");
		print_figures(out, row->size, row->count);
	}
	if (heap->shown < census->count) {
		(void)fprintf(out, "%zu more type%s: ", census->count - heap->shown,
			census->count - heap->shown == 1 ? "" : "s");
		print_figures(out, size, count);
	}
	(void)fputs(heap->traced.done ? "not counted, nothing leads to it: " : "other blocks: ", out);
	print_figures(out, heap->traced.done ? heap->traced.unreached_size : census->other_size,
		heap->traced.done ? heap->traced.unreached : census->other);
	(void)fputs("total: ", out);
	print_figures(out, census->object_size + census->other_size, census->objects + census->other);
	print_memory(out, heap);
	return 0;
}

static int print_json(FILE *out, const struct heap *heap)
{
	const struct pl_census *census = &heap->census;
	json_int_t size = (json_int_t)census->object_size, count = (json_int_t)census->objects;
	json_int_t other_size = (json_int_t)census->other_size, other = (json_int_t)census->other;
	json_t *stats = json_array();
	json_t *document;
	int code;

	for (size_t i = 0; i < heap->shown; i++) {
		const struct pl_census_row *row = &census->rows[i];

		json_t *item = json_pack("{so sI sI sI}", "type", pl_json_text(row->name), "size", (json_int_t)row->size,
			"count", (json_int_t)row->count, "average", (json_int_t)average(row));

		(void)json_array_append_new(stats, item);
	}
	document = json_pack("{si ss si ss sI sb sb s{sI sI} s{sI sI} so}", "schema", 1, "kind", "heap", "pid",
		(int)heap->subject.process.pid, "python", heap->subject.python->version, "rss",
		(json_int_t)heap->subject.process.rss, "arenas", census->arenas, "heap", census->heap, "total", "size",
		size + other_size, "count", count + other, "other", "size", other_size, "count", other, "stats", stats);
	if (!document)
		return -ENOMEM;
	(void)json_object_set_new(document, "free",
		free_bytes(&heap->account) < 0 ? json_null() : json_integer(free_bytes(&heap->account)));
	if (heap->traced.done)
		(void)json_object_set_new(document, "other", json_null());
	(void)json_object_set_new(document, "unreached",
		heap->traced.done ? json_pack("{sI sI}", "size", (json_int_t)heap->traced.unreached_size, "count",
					    (json_int_t)heap->traced.unreached) :
				    json_null());
	(void)json_object_set_new(document, "stop_ms", json_real((double)heap->traced.stop_ns / PL_NSEC_PER_MSEC));
	code = json_dumpf(document, out, JSON_COMPACT | JSON_ENSURE_ASCII);
	json_decref(document);
	(void)fputc('\n', out);
	return code < 0 ? -EIO : 0;
}

/* What is missing in the figures, if something is. */
static void explain(const struct heap *heap)
{
	if (heap->traced.done)
		return;
	if (!heap->census.arenas)
		pl_log_warning("the arenas of Python were not found: only what the C library gave out was counted");
	if (!heap->census.heap)
		pl_log_warning("malloc is not glibc's: blocks of more than 512 bytes were not counted");
}

int pl_command_heap(const struct pl_options *options)
{
	struct heap heap = {.shown = 0};
	struct pl_output output = {0};
	struct pl_error err = {0};
	pid_t pid;
	int code = pl_choose_process(options, &pid, &err);

	if (code == 0)
		code = pl_output_open(options, &output, &err);
	if (code == 0)
		code = take(options, pid, &heap, &err);
	if (code == 0) {
		code = options->format == PL_FORMAT_JSON ? print_json(output.stream, &heap) :
							   print_text(output.stream, &heap, pl_output_color(options, &output));
		explain(&heap);
	}
	if (code < 0)
		(void)pl_fail(&err, code, "the report could not be written: %s", strerror(-code));
	(void)pl_output_close(&output, &err);
	pl_census_free(&heap.census);
	pl_subject_close(&heap.subject);
	if (!err.code)
		return PL_EXIT_DONE;
	pl_log_error("%s", err.text);
	return PL_EXIT_FAILED;
}
