/* SPDX-License-Identifier: MIT */
#include "held.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "heap_stop.h"
#include "pyleak/cleanup.h"
#include "pyleak/engine.h"
#include "pyleak/units.h"

enum {
	BLOCKS_MOST = 1 << 20,    /* that are looked at, of all rows */
	OF_A_ROW_MOST = 1 << 15,
};

struct member {
	struct pl_target *target;
	struct pl_heap_copy *copy;
	int64_t expected_ns;
	struct pl_live_blocks blocks;
};

struct pl_held {
	struct member *members;
	size_t member_count;
	struct pl_row *rows;
	size_t row_count;
	int64_t longest_ns;
};

int pl_held_prepare(struct pl_targets *targets, struct pl_held **ret, struct pl_error *err)
{
	struct pl_held *held = calloc(1, sizeof(*held));
	size_t count = pl_targets_count(targets);
	int code = 0;

	if (held)
		held->members = calloc(count, sizeof(*held->members));
	if (!held || !held->members) {
		pl_held_free(held);
		return pl_fail(err, -ENOMEM, "out of memory");
	}
	for (size_t i = 0; code == 0 && i < count; i++) {
		struct pl_target *target = pl_targets_at(targets, i);
		struct member *member = &held->members[held->member_count];

		if (target->ended)
			continue;
		member->target = target;
		held->member_count++;
		code = pl_heap_copy_prepare(target->python, &member->copy, &member->expected_ns, err);
	}
	if (code == 0 && !held->member_count)
		code = pl_fail(err, -ESRCH, "the process has ended: who kept its blocks is not known");
	if (code < 0) {
		pl_held_free(held);
		return code;
	}
	*ret = held;
	return 0;
}

/* The blocks of one process. */
struct reading {
	struct member *member;
	const struct pl_rows *rows;
	size_t count;
};

static int read_blocks(void *context)
{
	struct reading *reading = context;
	struct pl_live_blocks *blocks = &reading->member->blocks;

	memset(blocks->seen, 0, blocks->groups * sizeof(*blocks->seen));
	/* It has let go of its modules: what is still there is held by nobody who has a name. */
	if (pl_python_is_ending(reading->member->target->python))
		return 0;
	return pl_engine_live_blocks(reading->member->target->engine, reading->rows->row_of_site, reading->rows->site_count, blocks);
}

static int stop_member(struct pl_held *held, struct member *member, const struct pl_rows *rows, int64_t most_ns,
	struct pl_error *err)
{
	struct reading reading = {member, rows, held->row_count};
	struct heap_stop stop = {.pid = member->target->pid, .most_ns = most_ns, .also = read_blocks, .context = &reading};
	size_t most = held->row_count ? BLOCKS_MOST / held->row_count + 1 : 1;
	int64_t from;
	int code = pl_live_blocks_init(&member->blocks, held->row_count, most < OF_A_ROW_MOST ? most : OF_A_ROW_MOST);

	if (code < 0)
		return pl_fail(err, code, "out of memory");
	/* Once while it runs: so our memory is there, and we know how long it takes. */
	from = pl_now_ns();
	code = read_blocks(&reading);
	if (code < 0)
		return pl_fail(err, code, "the live blocks of process %d cannot be read: %s", (int)member->target->pid, strerror(-code));
	stop.expected_ns = member->expected_ns + pl_now_ns() - from;
	code = heap_stop_copy(&stop, member->copy, err);
	if (stop.took_ns > held->longest_ns)
		held->longest_ns = stop.took_ns;
	return code;
}

int pl_held_stop(struct pl_held *held, const struct pl_rows *rows, size_t count, int64_t most_ns, struct pl_error *err)
{
	int code = 0;

	held->row_count = count < rows->count ? count : rows->count;
	held->rows = calloc(held->row_count + 1, sizeof(*held->rows));
	if (!held->rows)
		return pl_fail(err, -ENOMEM, "out of memory");
	memcpy(held->rows, rows->items, held->row_count * sizeof(*held->rows));
	for (size_t i = 0; code == 0 && i < held->member_count; i++)
		code = stop_member(held, &held->members[i], rows, most_ns, err);
	return code;
}

static uint64_t seen_by_all(const struct pl_held *held, size_t row)
{
	uint64_t seen = 0;

	for (size_t i = 0; i < held->member_count; i++)
		seen += held->members[i].blocks.seen[row];
	return seen;
}

/* All of a row's blocks, as far as they were seen, or so many as the report says that there are. */
static double factor_of(const struct pl_held *held, const struct member *member, size_t row)
{
	const struct pl_live_blocks *blocks = &member->blocks;
	uint64_t seen = blocks->seen[row], all = seen_by_all(held, row);
	double kept = (double)pl_live_blocks_kept(blocks, row), count = (double)held->rows[row].count, sum = 0;
	bool sampled = false;

	for (size_t i = 0; i < (size_t)kept; i++) {
		sampled |= blocks->items[row * blocks->most + i].rate != 0;
		sum += pl_live_block_weight(&blocks->items[row * blocks->most + i]);
	}
	if (sampled)
		return (double)seen / (double)all * count / sum;
	/* Of a large heap a part of the tables is looked at. */
	return kept > 0 ? (double)seen / kept * fmax(1, (double)all < 0.9 * count ? count / (double)all : 1) : 0;
}

static int blocks_of(const struct pl_held *held, const struct member *member, struct pl_block **ret, size_t *ret_count)
{
	const struct pl_live_blocks *blocks = &member->blocks;
	size_t count = 0;

	for (size_t row = 0; row < held->row_count; row++)
		count += pl_live_blocks_kept(blocks, row);
	*ret = calloc(count + 1, sizeof(**ret));
	*ret_count = count;
	if (!*ret)
		return -ENOMEM;
	count = 0;
	for (size_t row = 0; row < held->row_count; row++) {
		double factor = factor_of(held, member, row);

		for (size_t i = 0; i < pl_live_blocks_kept(blocks, row); i++) {
			const struct pl_live_block *block = &blocks->items[row * blocks->most + i];

			(*ret)[count++] = (struct pl_block){block->address, block->size, (uint32_t)row,
				(float)(factor * pl_live_block_weight(block))};
		}
	}
	return 0;
}

static int add_holder(struct pl_held_row *row, struct pl_held_by *holder)
{
	struct pl_held_by *grown;

	for (size_t i = 0; i < row->held_by_count; i++)
		if (strcmp(row->held_by[i].path, holder->path) == 0) {
			row->held_by[i].count += holder->count;
			row->held_by[i].size += holder->size;
			return 0;
		}
	grown = reallocarray(row->held_by, row->held_by_count + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	row->held_by = grown;
	grown[row->held_by_count++] = *holder;
	holder->path = NULL;
	return 0;
}

static int by_count(const void *a, const void *b)
{
	const struct pl_held_by *left = a, *right = b;

	if (left->count != right->count)
		return left->count < right->count ? 1 : -1;
	return strcmp(left->path, right->path);
}

/* The same path in several processes of a family is one. */
static int add_row(struct pl_held_row *sum, struct pl_held_row *row)
{
	int code = 0;

	sum->count += row->count;
	sum->size += row->size;
	sum->looked_at += row->looked_at;
	for (size_t i = 0; code == 0 && i < row->held_by_count; i++)
		code = add_holder(sum, &row->held_by[i]);
	if (sum->held_by_count)
		qsort(sum->held_by, sum->held_by_count, sizeof(*sum->held_by), by_count);
	return code;
}

static int find_member(struct pl_held *held, struct member *member, struct pl_held_row *sums, struct pl_error *err)
{
	struct pl_held_row *rows = calloc(held->row_count + 1, sizeof(*rows));
	pl_autofree struct pl_block *blocks = NULL;
	struct pl_heap_graph *graph = NULL;
	size_t count = 0;
	int code = rows ? blocks_of(held, member, &blocks, &count) : -ENOMEM;

	if (code < 0)
		(void)pl_fail(err, code, "out of memory");
	/* Where the blocks lie was read at the same moment. */
	pl_heap_copy_accept(member->copy);
	if (code == 0)
		code = pl_heap_graph_make(member->copy, &graph, err);
	if (code == 0)
		code = pl_heap_graph_blocks(graph, blocks, count, rows, held->row_count, err);
	for (size_t i = 0; code == 0 && i < held->row_count; i++)
		code = add_row(&sums[i], &rows[i]);
	pl_heap_graph_free(graph);
	pl_heap_copy_free(PL_TAKE(member->copy));
	pl_held_rows_free(rows, held->row_count);
	return code;
}

int pl_held_find(struct pl_held *held, struct pl_held_row **ret, size_t *ret_count, struct pl_error *err)
{
	struct pl_held_row *rows = calloc(held->row_count + 1, sizeof(*rows));
	int code = 0;

	if (!rows)
		return pl_fail(err, -ENOMEM, "out of memory");
	for (size_t i = 0; code == 0 && i < held->member_count; i++)
		code = find_member(held, &held->members[i], rows, err);
	if (code < 0) {
		pl_held_rows_free(rows, held->row_count);
		return code;
	}
	*ret = rows;
	*ret_count = held->row_count;
	return 0;
}

int64_t pl_held_stop_ns(const struct pl_held *held)
{
	return held ? held->longest_ns : 0;
}

void pl_held_free(struct pl_held *held)
{
	if (!held)
		return;
	for (size_t i = 0; i < held->member_count; i++) {
		pl_heap_copy_free(held->members[i].copy);
		pl_live_blocks_free(&held->members[i].blocks);
	}
	free(held->members);
	free(held->rows);
	free(held);
}

void pl_held_rows_free(struct pl_held_row *rows, size_t count)
{
	for (size_t i = 0; rows && i < count; i++)
		pl_held_row_free(&rows[i]);
	free(rows);
}
