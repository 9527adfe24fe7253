/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_VERDICT_STRETCH_H
#define PYLEAK_VERDICT_STRETCH_H

#include <stdbool.h>

#include "pyleak/verdict.h"

/* A row's blocks or bytes along time or work, as the statistics want it. */
struct stretch {
	double at[PL_HISTORY_POINTS];    /* hours, or blocks that the process allocated */
	double level[PL_HISTORY_POINTS]; /* blocks or bytes; what turned over is none of them */
	size_t points;
	double least_variance; /* of the rates from one point to the next: see stretch_make() */
	bool piles_up;         /* nothing goes: what it has it has for good, so far */
};

enum stretch_measure { STRETCH_BLOCKS, STRETCH_BYTES, STRETCH_MEASURES };
enum stretch_axis { STRETCH_TIME, STRETCH_WORK, STRETCH_AXES };

/* Of `count` points. Along work, windows in which little was done are put together with the next; no points: what the
 * process did is not known, or too little. */
void stretch_make(const struct pl_point *points, size_t count, enum stretch_measure measure, enum stretch_axis axis,
		  struct stretch *ret);

/* Its low points alone: what is left of it after each fall. What a collection takes goes up and down by more than a leak
 * beside it grows in many windows; the leak is what every collection leaves more of. No points: it has too few. */
void stretch_troughs(const struct stretch *stretch, struct stretch *ret);

enum course {
	COURSE_NONE,     /* no trend */
	COURSE_RISES,    /* goes up; whether it slows down cannot be told yet */
	COURSE_LASTS,    /* goes up, and at its later half not much more slowly than at its earlier one */
	COURSE_DECLINES, /* went up, and does so more and more slowly */
};
enum course stretch_course(const struct stretch *stretch);
/* How far the rates are from a line along which they change evenly, to their mean: 0 where they are regular. */
double stretch_irregularity(const struct stretch *stretch);
/* Of a later half by itself, which is doubted longer: whether it rises; and whether it slows down still. */
bool stretch_still_rises(const struct stretch *stretch);
bool stretch_still_slows(const struct stretch *stretch);

#endif
