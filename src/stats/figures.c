/* SPDX-License-Identifier: MIT */
#include "pyleak/stats.h"

/* The running totals are read from a process that goes on meanwhile: a free may be seen before its
 * allocation, and a total may be anything at all if that process is hostile. No figure is negative,
 * and sums stop at their limits. */
static int64_t live(uint64_t allocated, uint64_t freed)
{
	uint64_t left = allocated > freed ? allocated - freed : 0;

	return left > INT64_MAX ? INT64_MAX : (int64_t)left;
}

int64_t pl_totals_size(const struct pl_totals *totals)
{
	return live(totals->allocated_size, totals->freed_size);
}

int64_t pl_totals_count(const struct pl_totals *totals)
{
	return live(totals->allocated_count, totals->freed_count);
}

static void add(int64_t *sum, int64_t number)
{
	if (__builtin_add_overflow(*sum, number, sum))
		*sum = number < 0 ? INT64_MIN : INT64_MAX;
}

static void add_unsigned(uint64_t *sum, uint64_t number)
{
	if (__builtin_add_overflow(*sum, number, sum))
		*sum = UINT64_MAX;
}

static void add_totals(struct pl_totals *sum, const struct pl_totals *totals)
{
	add_unsigned(&sum->allocated_size, totals->allocated_size);
	add_unsigned(&sum->allocated_count, totals->allocated_count);
	add_unsigned(&sum->freed_size, totals->freed_size);
	add_unsigned(&sum->freed_count, totals->freed_count);
	sum->size_variance += totals->size_variance;
	sum->count_variance += totals->count_variance;
}

void pl_row_add(struct pl_row *sum, const struct pl_row *row)
{
	add(&sum->size, row->size);
	add(&sum->size_diff, row->size_diff);
	add(&sum->life_diff, row->life_diff);
	add(&sum->count, row->count);
	add(&sum->count_diff, row->count_diff);
	add_totals(&sum->window, &row->window);
	sum->size_diff_variance += row->size_diff_variance;
	sum->count_diff_variance += row->count_diff_variance;
}

int64_t pl_row_average(const struct pl_row *row)
{
	int64_t quotient, rest;

	if (row->count <= 0)
		return 0;
	quotient = row->size / row->count;
	rest = row->size % row->count;
	/* To the nearest, a half to the even one, as Python's "%.0f" does it. */
	if (rest > row->count - rest || (rest == row->count - rest && quotient % 2))
		quotient++;
	return quotient;
}
