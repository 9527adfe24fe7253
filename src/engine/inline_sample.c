/* SPDX-License-Identifier: MIT */
#include <math.h>

#include "inline_read.h"

/*
 * From samples to figures. An allocation of s bytes is taken with p(s) = 1 − exp(−s / rate), each on
 * its own, and the blocks of a row have nearly one size, so each of them stands for 1 / p
 * (Horvitz-Thompson; design of the rows: inline_abi.h).
 */

static uint64_t scaled(uint64_t value, double weight)
{
	return (uint64_t)llround(fmin((double)value * weight, 0x1p62));
}

void pl_inline_estimate(const struct pl_inline_totals *row, uint64_t given, struct pl_inline_estimate *ret)
{
	const uint64_t rate = pl_inline_rate(row->sampling, given);
	struct pl_totals sum = {
		.allocated_size = row->allocated_size + row->shared_allocated_size + row->first_allocated_size,
		.allocated_count = row->allocated_count + row->shared_allocated_count + row->first_allocated_count,
		.freed_size = row->freed_size + row->shared_freed_size + row->first_freed_size,
		.freed_count = row->freed_count + row->shared_freed_count + row->first_freed_count,
	};

	*ret = (struct pl_inline_estimate){.totals = sum};
	if (!rate || !sum.allocated_count)
		return;

	double average = (double)sum.allocated_size / (double)sum.allocated_count;
	/* The recorder counts a block of no bytes as one of one byte. */
	double p = -expm1(-fmax(average, 1) / (double)rate);
	double live = (double)(sum.allocated_count - sum.freed_count);

	ret->totals = (struct pl_totals){
		.allocated_size = scaled(sum.allocated_size, 1 / p),
		.allocated_count = scaled(sum.allocated_count, 1 / p),
		.freed_size = scaled(sum.freed_size, 1 / p),
		.freed_count = scaled(sum.freed_count, 1 / p),
	};
	ret->live_count_variance = live * (1 - p) / (p * p);
	ret->live_size_variance = ret->live_count_variance * average * average;
}
