/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_VERDICT_TREND_H
#define PYLEAK_VERDICT_TREND_H

#include <stddef.h>

/* The statistics under a verdict. Arrays are of at most PL_HISTORY_POINTS numbers. */

/* Mann and Kendall: how probable it is that numbers in random order rise as much as these (one-sided).
 * Of two equal ones half a pair rises, which errs towards no trend. */
double trend_rising(const double *values, size_t count);

/* Student: how probable it is that the mean of `count` numbers is this large when that of what they are
 * drawn from is 0 (one-sided). `least_variance` is the variance that they are known to have at least. */
double trend_drift(const double *values, size_t count, double least_variance);

struct trend_slope {
	double slope;
	double low, high; /* confidence interval of 90 % */
};
/* Theil and Sen: the median of the slopes between all pairs of points; the interval is Sen's. */
struct trend_slope trend_slope(const double *times, const double *values, size_t count);

#endif
