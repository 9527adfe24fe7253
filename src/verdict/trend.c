/* SPDX-License-Identifier: MIT */
#include "trend.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/verdict.h"

#define MAX_PAIRS (PL_HISTORY_POINTS * (PL_HISTORY_POINTS - 1) / 2)
/* From here on the normal distribution is as good (to 0.002 of a probability) as counting the orders. */
#define MANY_VALUES 12
#define FEW_PAIRS (MANY_VALUES * (MANY_VALUES - 1) / 2)
#define NORMAL_95 1.6448536269514722 /* of a standard normal distribution, 95 % lie below */

/* Of all orders of `count` different numbers, the share in which at least `rising` pairs rise. By adding one number
 * after the other: the i-th may rise above 0 to i−1 of those before it, each as probable as the next. */
static double share_of_orders(size_t count, double rising)
{
	double shares[FEW_PAIRS + 1] = {1}, next[FEW_PAIRS + 1];
	size_t pairs = 0;
	double sum = 0;

	for (size_t i = 2; i <= count; i++) {
		memset(next, 0, sizeof(next));
		for (size_t have = 0; have <= pairs; have++)
			for (size_t more = 0; more < i; more++)
				next[have + more] += shares[have] / (double)i;
		pairs += i - 1;
		memcpy(shares, next, sizeof(shares));
	}
	for (size_t have = 0; have <= pairs; have++)
		if ((double)have >= rising)
			sum += shares[have];
	return fmin(sum, 1);
}

/* The variance of the number of rising pairs among random orders. */
static double variance_of_rising(size_t count)
{
	double n = (double)count;

	return n * (n - 1) * (2 * n + 5) / 72;
}

double trend_rising(const double *values, size_t count)
{
	double rising = 0;

	for (size_t i = 0; i < count; i++)
		for (size_t j = i + 1; j < count; j++)
			rising += values[j] > values[i] ? 1 : values[j] == values[i] ? 0.5 : 0;
	if (count < MANY_VALUES)
		return share_of_orders(count, rising);
	/* A half for continuity: a number of pairs is whole. */
	double above = rising - 0.5 - (double)(count * (count - 1)) / 4;
	return erfc(above / sqrt(2 * variance_of_rising(count))) / 2;
}

/* The upper tail of Student's distribution with a whole number of degrees of freedom (Abramowitz and Stegun, 26.7.3
 * and 26.7.4). */
static double student_tail(double t, size_t freedom)
{
	double angle = atan(t / sqrt((double)freedom)), cosine = cos(angle), sine = sin(angle);
	double term, sum, within;

	if (freedom == 1)
		return 0.5 - angle / M_PI;
	if (freedom % 2) {
		term = sum = cosine;
		for (size_t i = 3; i + 2 <= freedom; i += 2) {
			term *= cosine * cosine * (double)(i - 1) / (double)i;
			sum += term;
		}
		within = 2 / M_PI * (angle + sine * sum);
	} else {
		term = sum = 1;
		for (size_t i = 2; i + 2 <= freedom; i += 2) {
			term *= cosine * cosine * (double)(i - 1) / (double)i;
			sum += term;
		}
		within = sine * sum;
	}
	return (1 - within) / 2;
}

double trend_drift(const double *values, size_t count, double least_variance)
{
	double mean = 0, variance = 0;

	if (count < 2)
		return 1;
	for (size_t i = 0; i < count; i++)
		mean += values[i] / (double)count;
	for (size_t i = 0; i < count; i++)
		variance += (values[i] - mean) * (values[i] - mean) / (double)(count - 1);
	variance = fmax(variance, least_variance);
	if (mean <= 0)
		return 1;
	return variance > 0 ? student_tail(mean / sqrt(variance / (double)count), count - 1) : 0;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct trend_slope trend_slope(const double *times, const double *values, size_t count)
{
	double slopes[MAX_PAIRS];
	size_t pairs = 0;

	for (size_t i = 0; i < count; i++)
		for (size_t j = i + 1; j < count; j++)
			if (times[j] > times[i])
				slopes[pairs++] = (values[j] - values[i]) / (times[j] - times[i]);
	if (!pairs)
		return (struct trend_slope){0};
	qsort(slopes, pairs, sizeof(*slopes), compare);

	/* How many of the slopes lie below the true one has the distribution of Mann and Kendall's statistic. */
	double below = (double)pairs / 2 - NORMAL_95 * sqrt(variance_of_rising(count));
	size_t low = below > 0 ? (size_t)below : 0;

	return (struct trend_slope){
		.slope = (slopes[(pairs - 1) / 2] + slopes[pairs / 2]) / 2,
		.low = slopes[low],
		.high = slopes[pairs - 1 - low],
	};
}
