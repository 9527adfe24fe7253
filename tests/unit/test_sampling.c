/* SPDX-License-Identifier: MIT */
/* What is recorded exactly, then by samples, then by rarer ones, in one recording: each block with its own weight. */
#include <criterion/criterion.h>
#include <math.h>

#include "../../src/engine/inline_limit.h"
#include "../../src/engine/inline_read.h"
#include "recorder_host.h"

#define MAP UINT64_C(0x50000000)

static struct host_interpreter main_interpreter;
static struct host_thread main_thread;
static struct host_frame outer, inner;

static void plant(uint32_t mode, uint64_t given, void (*adjust)(struct pl_inline_config *))
{
	struct host_code *code_a, *code_b;

	host_plant(2, given, mode, adjust);
	code_a = host_code_new("/a.py", "a", 10);
	code_b = host_code_new("/b.py", "b", 20);
	outer = host_frame(NULL, code_a, 4);
	inner = host_frame(&outer, code_b, 8);
	main_thread = (struct host_thread){&main_interpreter, (uint64_t)__builtin_thread_pointer(), &inner};
	host_current = &main_thread;
}

/* As the tracer does. */
static void switch_to(uint8_t sampling)
{
	((volatile uint8_t *)&host_control()->mode)[PL_INLINE_SAMPLE_SHIFT / 8] = sampling;
}

struct stage {
	uint8_t sampling;
	uint64_t rate;
};

/* Sums over the rows of one rate. */
struct sums {
	double count, size, count_variance, size_variance;
	uint64_t taken;
};

static struct sums sum_of(uint32_t sampling, uint64_t given)
{
	struct sums sums = {0};

	for (uint32_t site = 0; site < host_site_count(); site++) {
		const struct pl_inline_totals *row = (const struct pl_inline_totals *)host_config->totals + site;
		struct pl_inline_estimate estimate;

		if (row->sampling != sampling)
			continue;
		pl_inline_estimate(row, given, &estimate);
		sums.count += (double)(estimate.totals.allocated_count - estimate.totals.freed_count);
		sums.size += (double)(estimate.totals.allocated_size - estimate.totals.freed_size);
		sums.count_variance += estimate.live_count_variance;
		sums.size_variance += estimate.live_size_variance;
		sums.taken += host_site(site).allocated_count;
	}
	return sums;
}

/* What the last interval of a stage is drawn by goes to the first sample of the next. */
static void check(uint32_t mode, const struct stage *stages, size_t count, uint64_t given, void (*adjust)(struct pl_inline_config *))
{
	enum { EVENTS = 200000 };
	static const uint64_t sizes[] = {16, 48, 400, 1500, 9000};
	double spread = 0, size_spread = 0, true_count = 0, true_size = 0, estimate = 0, size_estimate = 0;
	uint64_t at = MAP;

	plant(mode, given, adjust);
	for (size_t stage = 0; stage < count; stage++) {
		if (stage)
			switch_to(stages[stage].sampling);
		for (unsigned int i = 0; i < EVENTS; i++, at += 512) {
			const uint64_t bytes = sizes[(i * 7 + i / 5) % 5] + i % 5;
			const double b = (double)bytes, p = stages[stage].rate ? -expm1(-b / (double)stages[stage].rate) : 1;

			host_next = at;
			(void)host_malloc(i % 3 ? PL_INLINE_OBJ : PL_INLINE_RAW, bytes);
			/* Every other one dies at once, and of those before every fourth in the next stage. */
			if (i % 2) {
				host_free(i % 3 ? PL_INLINE_OBJ : PL_INLINE_RAW, at);
				continue;
			}
			if (stage + 1 < count && i % 4 == 0)
				continue;
			true_count++;
			true_size += b;
			spread += (1 - p) / p;
			size_spread += b * b * (1 - p) / p;
		}
		for (unsigned int i = 0; stage && i < EVENTS; i += 4)
			host_free(i % 3 ? PL_INLINE_OBJ : PL_INLINE_RAW, at - UINT64_C(512) * (2 * EVENTS - i));
	}
	for (size_t stage = 0; stage < count; stage++) {
		const struct sums sums = sum_of(stages[stage].sampling, given);

		cr_assert(sums.taken > 100, "%lu of stage %zu", sums.taken, stage);
		/* Of what was allocated while each was recorded nothing is an estimate. */
		if (!stages[stage].rate) {
			cr_assert_eq(sums.count_variance, 0);
			cr_assert_eq(sums.count, (double)EVENTS / 4);
		} else {
			cr_assert_gt(sums.count_variance, 0);
		}
		estimate += sums.count;
		size_estimate += sums.size;
	}
	cr_assert_lt(fabs(estimate - true_count), 5 * sqrt(spread), "%f blocks, not %f ± %f", estimate, true_count, sqrt(spread));
	cr_assert_lt(fabs(size_estimate - true_size), 5 * sqrt(size_spread), "%f bytes, not %f ± %f", size_estimate, true_size,
		sqrt(size_spread));
	cr_assert_eq(host_control()->lost_events, 0);
	/* Blocks that were not recorded are none from before the probe. */
	cr_assert_eq(host_control()->freed_unknown, 0);
	host_unplant();
}

Test(sampling, begins_in_the_middle_and_becomes_rarer)
{
	static const struct stage stages[] = {{0, 0}, {12, 4096}, {14, 16384}};

	check(PL_INLINE_GIL, stages, 3, 0, NULL);
	check(PL_INLINE_THREADS, stages, 3, 0, NULL);
}

Test(sampling, given_and_then_rarer)
{
	static const struct stage stages[] = {{PL_INLINE_SAMPLE_GIVEN, 5000}, {14, 16384}};
	struct sums sums;

	plant(PL_INLINE_GIL, 5000, NULL);
	for (uint64_t i = 0; i < 100000; i++) {
		host_next = MAP + 512 * i;
		(void)host_malloc(PL_INLINE_OBJ, 100);
		if (i == 50000)
			switch_to(stages[1].sampling);
	}
	for (int i = 0; i < 2; i++) {
		sums = sum_of(stages[i].sampling, 5000);
		cr_assert_lt(fabs(sums.count - 50000), 5 * sqrt(50000 * 100 / (double)100 * (double)stages[i].rate / 100), "%f", sums.count);
		cr_assert(sums.taken < 50000 * 100 / stages[i].rate * 2);
	}
	host_unplant();
}

/* Neither writer of the mode loses what the other one wrote, and what is disarmed stays so. */
Test(sampling, the_bytes_of_the_mode)
{
	plant(PL_INLINE_GIL, 0, NULL);
	switch_to(19);
	cr_assert_eq(host_control()->mode, 19 << PL_INLINE_SAMPLE_SHIFT | PL_INLINE_GIL);
	host_control()->mode = PL_INLINE_OFF;
	switch_to(21);
	cr_assert_not(pl_inline_is_armed(host_control()->mode));
	for (uint64_t i = 0; i < 1000; i++) {
		host_next = MAP + (i << 20);
		(void)host_malloc(i % 2 ? PL_INLINE_OBJ : PL_INLINE_RAW, 1 << 20);
		host_free(i % 2 ? PL_INLINE_OBJ : PL_INLINE_RAW, MAP + (i << 20));
	}
	cr_assert_eq(host_site_count(), (uint32_t)PL_INLINE_SITE_FIRST);
	cr_assert_eq(host_control()->freed_unknown, 0);
	host_unplant();
}

Test(sampling, when_the_tables_outgrow_their_limit)
{
	enum { MIB = 1 << 20 };

	/* Tracebacks first. */
	cr_assert_eq(inline_limit_rate(10 * MIB, 20 * MIB, 0, 0, 0, false), 0);
	cr_assert_eq(inline_limit_rate(10 * MIB, 10 * MIB, 0, 0, 0, true), 0);
	cr_assert_eq(inline_limit_rate(10 * MIB, 11 * MIB, 0, 0, 0, true), 19);
	/* And rarer, if that was not enough. */
	cr_assert_eq(inline_limit_rate(10 * MIB, 11 * MIB, 11 * MIB, 19, 0, true), 0);
	cr_assert_eq(inline_limit_rate(10 * MIB, 12 * MIB, 11 * MIB, 19, 0, true), 21);
	cr_assert_eq(inline_limit_rate(10 * MIB, 20 * MIB, 11 * MIB, 29, 0, true), 0);
	/* What was given is not made more. */
	cr_assert_eq(inline_limit_rate(10 * MIB, 11 * MIB, 0, PL_INLINE_SAMPLE_GIVEN, 64 << 10, true), 19);
	cr_assert_eq(inline_limit_rate(10 * MIB, 11 * MIB, 0, PL_INLINE_SAMPLE_GIVEN, MIB, true), 23);
	cr_assert_eq(inline_limit_rate(10 * MIB, 11 * MIB, 0, PL_INLINE_SAMPLE_GIVEN, (uint64_t)1 << 40, true), 0);
}

/* Whatever the process writes there. */
Test(sampling, a_forged_rate_is_one)
{
	struct pl_inline_totals row = {.allocated_size = 1000, .allocated_count = 10, .sampling = UINT32_MAX};
	struct pl_inline_estimate estimate;

	pl_inline_estimate(&row, 0, &estimate);
	cr_assert(estimate.totals.allocated_count > 10 && estimate.totals.allocated_count < UINT64_C(1) << 62);
}
