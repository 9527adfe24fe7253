/* SPDX-License-Identifier: MIT */
#include "heap_trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "heap_stop.h"
#include "pyleak/cleanup.h"
#include "pyleak/units.h"

#define STOP_MAX_NSEC (2 * PL_NSEC_PER_SEC) /* as --max-stop of `holders` */

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct pl_held_type *)a)->type, ((const struct pl_held_type *)b)->type);
}

/* One row for each name. */
static int make_rows(struct pl_held_sum *reached, struct pl_census *ret)
{
	struct pl_census_row *row = NULL;

	*ret = (struct pl_census){.objects = reached->count, .object_size = reached->size};
	ret->rows = calloc(reached->type_count + 1, sizeof(*ret->rows));
	if (!ret->rows)
		return -ENOMEM;
	if (reached->type_count)
		qsort(reached->types, reached->type_count, sizeof(*reached->types), by_name);
	for (size_t i = 0; i < reached->type_count; i++) {
		struct pl_held_type *type = &reached->types[i];

		if (!row || strcmp(row->name, type->type) != 0) {
			row = &ret->rows[ret->count++];
			row->name = PL_TAKE(type->type);
		}
		row->count += type->count;
		row->size += type->size;
	}
	return 0;
}

static int copy(const struct pl_subject *subject, struct pl_heap_copy **ret, int64_t *ret_stop_ns, struct pl_error *err)
{
	struct heap_stop stop = {.pid = subject->process.pid, .most_ns = STOP_MAX_NSEC};
	int code = pl_process_check(&subject->process, PL_PROCESS_HAS_NO_TRACER, err);

	if (code == 0)
		code = pl_heap_copy_prepare(subject->python, ret, &stop.expected_ns, err);
	if (code == 0 && stop.expected_ns > stop.most_ns) {
		char time[PL_SIZE_TEXT];

		pl_format_duration(stop.expected_ns, time);
		return pl_fail(err, -EBUSY,
			"process %d would have to be stopped for some %s, as its heap is copied at one moment: more than 2 s only "
			"'pyleak holders --max-stop' may",
			(int)stop.pid, time);
	}
	if (code == 0)
		code = heap_stop_copy(&stop, *ret, err);
	*ret_stop_ns = stop.took_ns;
	return code;
}

int heap_trace(const struct pl_subject *subject, struct pl_census *census, struct heap_traced *ret, struct pl_error *err)
{
	struct pl_held_sum reached = {0}, unreached = {0};
	struct pl_heap_copy *heap = NULL;
	struct pl_census traced = {0};
	int64_t stop_ns = 0;
	int code = copy(subject, &heap, &stop_ns, err);

	if (code == 0)
		code = pl_heap_copy_types(heap, &reached, &unreached, err);
	pl_heap_copy_free(heap);
	if (code == 0) {
		code = make_rows(&reached, &traced);
		if (code < 0)
			(void)pl_fail(err, code, "out of memory");
	}
	if (code == 0) {
		pl_census_free(census);
		*census = traced;
		*ret = (struct heap_traced){true, unreached.count, unreached.size, stop_ns};
	}
	pl_held_sum_free(&reached);
	pl_held_sum_free(&unreached);
	return code;
}
