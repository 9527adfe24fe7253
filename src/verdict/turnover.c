/* SPDX-License-Identifier: MIT */
#include "turnover.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"

/*
 * A cache that is full drops an old entry for each new one. What comes has its line; what goes, where it is older than the
 * recording, has the line that its thread allocated at just before, and its size. Both are of the same code: so each is
 * given to the growth that is nearest to it, by the frames between them, among that of its size; and where several are as
 * near, to the largest first. What no growth is left for remains: more was freed than came.
 */

enum {
	GROUPS_MAX = 512,  /* of older blocks, the most first */
	GROWTHS_MAX = 256, /* of sites that grow, likewise */
	NEAREST_FRAMES = 12,
	ASIDE = 1, /* added where neither function is on the stack of the other: then sizes have to be alike */
	FAR = 4 * NEAREST_FRAMES, /* no frame in common */
};
#define MORE_THAN_LEAKS 1.25
#define LARGE_SHARE 0.125
#define LIKE 1.5 /* sizes that differ by no more than this factor are alike */

/* Older blocks of one class that were freed beside one site. */
struct group {
	uint32_t site;
	double total, left, size; /* size 0: any */
	double elsewhere;         /* growth of its size that is not near, to what is freed of that size */
	const uint8_t *distances; /* from each growth */
};

struct growth {
	uint32_t site;
	double grown; /* so far, in all */
	double count, left;
	double size;
};

static int compare_groups(const void *a, const void *b)
{
	const struct group *x = a, *y = b;

	return (x->total < y->total) - (x->total > y->total);
}

static int compare_growths(const void *a, const void *b)
{
	const struct growth *x = a, *y = b;

	return (x->grown < y->grown) - (x->grown > y->grown);
}

bool turnover_same_frames(const struct pl_sites *sites, uint32_t a, uint32_t b)
{
	size_t count, other;
	const uint32_t *x = pl_sites_trace(sites, a, &count, NULL), *y = pl_sites_trace(sites, b, &other, NULL);

	return count == other && pl_sites_process(sites, a) == pl_sites_process(sites, b) &&
	       memcmp(x, y, count * sizeof(*x)) == 0;
}

/* Blocks whose size is not known are like those beside them, so far, whose size is. */
static void share_unknown(const struct pl_sites *sites, struct group *groups, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		double known = 0;

		if (groups[i].size > 0 || groups[i].left <= 0)
			continue;
		for (size_t k = 0; k < count; k++)
			if (groups[k].size > 0 && turnover_same_frames(sites, groups[i].site, groups[k].site))
				known += groups[k].total;
		if (known <= 0)
			continue;
		for (size_t k = 0; k < count; k++)
			if (groups[k].size > 0 && turnover_same_frames(sites, groups[i].site, groups[k].site))
				groups[k].left += groups[i].left * groups[k].total / known;
		groups[i].left = 0;
	}
}

static bool same_function(const struct pl_frame *a, const struct pl_frame *b)
{
	return a->filename == b->filename && a->function == b->function;
}

/* Twice the frames from each of the two up to the function that both were called in, or are. */
static unsigned int distance(const struct pl_sites *sites, uint32_t a, uint32_t b)
{
	size_t x_count, y_count;
	const uint32_t *x = pl_sites_trace(sites, a, &x_count, NULL), *y = pl_sites_trace(sites, b, &y_count, NULL);
	unsigned int least = FAR + ASIDE;

	if (pl_sites_process(sites, a) != pl_sites_process(sites, b))
		return least;
	for (unsigned int i = 0; i < x_count && i < NEAREST_FRAMES; i++)
		for (unsigned int k = 0; k < y_count && k < NEAREST_FRAMES; k++)
			if (same_function(pl_sites_frame(sites, x[i]), pl_sites_frame(sites, y[k]))) {
				unsigned int found = 2 * (i + k) + (i && k ? ASIDE : 0);

				least = found < least ? found : least;
				break;
			}
	return least;
}

/* What a function stores may be of its callers or its callees, and of several sizes on one line. */
static bool may_be_loose(unsigned int at)
{
	return at % 2 == 0;
}

static bool alike(double a, double b)
{
	/* What is asked for, and what an allocator makes of it. */
	a = 16 * ceil(fmax(a, 1) / 16);
	b = 16 * ceil(fmax(b, 1) / 16);
	return a <= LIKE * b && b <= LIKE * a;
}

/* How much of a growth may still be set against a group. */
static double room_of(const struct growth *growth, const struct group *group, bool loose)
{
	return loose || group->size <= 0 || alike(group->size, growth->size) ? growth->left : 0;
}

/* One group to the growths at one distance from it, those that grew most first: where a cache is full and something leaks
 * beside it, what is left over is the leak, which is the less of the two. */
static void give(struct group *group, struct growth *growths, size_t count, unsigned int at, bool loose, double least)
{
	for (size_t i = 0; i < count && group->left > 0; i++) {
		double given;

		if (group->distances[i] != at || growths[i].grown < least)
			continue;
		given = fmin(room_of(&growths[i], group, loose), group->left);
		growths[i].left -= given;
		group->left -= given;
	}
}

/* A line that makes blocks of several sizes takes those first which nothing else could be for. */
static void look_elsewhere(struct group *groups, size_t group_count, const struct growth *growths, size_t growth_count)
{
	for (size_t i = 0; i < group_count; i++) {
		double room = 0, freed = 0;

		for (size_t k = 0; k < growth_count; k++)
			if (!may_be_loose(groups[i].distances[k]) && alike(groups[i].size, growths[k].size))
				room += growths[k].left;
		for (size_t k = 0; k < group_count; k++)
			if (alike(groups[i].size, groups[k].size))
				freed += groups[k].left;
		groups[i].elsewhere = freed > 0 ? room / freed : 0;
	}
}

static int compare_places(const void *a, const void *b)
{
	const struct group *x = a, *y = b;

	return (x->elsewhere > y->elsewhere) - (x->elsewhere < y->elsewhere);
}

/* To growths of so many blocks and more, the nearest first. */
static void give_all(struct group *groups, size_t group_count, struct growth *growths, size_t growth_count, double least)
{
	for (unsigned int at = 1; at <= FAR + ASIDE; at++)
		for (int loose = 0; loose <= may_be_loose(at); loose++)
			for (size_t i = 0; i < group_count; i++)
				give(&groups[i], growths, growth_count, at, loose, least);
}

/* What grew by more than all growth that nothing stands against cannot be a leak: so it has to be given its part before what
 * can, which may be nearer. That is known but roughly: of what is much less than the largest nothing is said. */
static double more_than_leaks(const struct turnover *turnovers, size_t count, const struct pl_sites *sites, double largest)
{
	double over = 0;

	for (uint32_t site = 0; site < count; site++) {
		if (pl_sites_domain(sites, site) < PL_SITE_OLDER)
			over += fmax(turnovers[site].since, 0);
		else if (pl_sites_domain(sites, site) == PL_SITE_OLDER)
			over -= turnovers[site].since;
	}
	return fmax(MORE_THAN_LEAKS * over, LARGE_SHARE * largest);
}

/* Growths are in order, the largest first. */
static double largest_of_own(const struct group *group, const struct growth *growths, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (group->distances[i] == 0)
			return growths[i].grown;
	return 0;
}

/* All groups to all growths. */
static int match(const struct pl_sites *sites, struct group *groups, size_t group_count, struct growth *growths,
	size_t growth_count, double least)
{
	pl_autofree uint8_t *distances = malloc(group_count * growth_count);

	if (!distances)
		return -ENOMEM;
	for (size_t i = 0; i < group_count; i++)
		for (size_t k = 0; k < growth_count; k++)
			distances[i * growth_count + k] = (uint8_t)distance(sites, groups[i].site, growths[k].site);
	for (size_t i = 0; i < group_count; i++)
		groups[i].distances = distances + i * growth_count;
	look_elsewhere(groups, group_count, growths, growth_count);
	qsort(groups, group_count, sizeof(*groups), compare_places);
	/* Of the code itself, sizes say nothing: a line makes blocks of several. What is little beside its largest growth may be
	 * the leak, and has to wait too. */
	for (size_t i = 0; i < group_count; i++)
		give(&groups[i], growths, growth_count, 0, true, LARGE_SHARE * largest_of_own(&groups[i], growths, growth_count));
	give_all(groups, group_count, growths, growth_count, least);
	for (unsigned int at = 1; at <= FAR + ASIDE; at++)
		for (size_t i = 0; i < group_count; i++)
			give(&groups[i], growths, growth_count, at, true, least);
	for (size_t i = 0; i < group_count; i++)
		give(&groups[i], growths, growth_count, 0, true, 0);
	give_all(groups, group_count, growths, growth_count, 0);
	return 0;
}

int turnover_match(const struct pl_sites *sites, struct turnover *turnovers, size_t count)
{
	pl_autofree struct group *groups = calloc(count ? count : 1, sizeof(*groups));
	pl_autofree struct growth *growths = calloc(count ? count : 1, sizeof(*growths));
	size_t group_count = 0, growth_count = 0, groups_found, growths_found;
	int code = 0;

	if (!groups || !growths)
		return -ENOMEM;
	for (uint32_t site = 0; site < count; site++) {
		const struct turnover *turnover = &turnovers[site];

		if (pl_sites_domain(sites, site) == PL_SITE_POOL)
			continue;
		/* One that nothing went from just now still says what goes there. */
		if (pl_sites_domain(sites, site) == PL_SITE_OLDER ? turnover->total <= 0 : turnover->open <= 0)
			continue;
		if (pl_sites_domain(sites, site) == PL_SITE_OLDER)
			groups[group_count++] = (struct group){site, turnover->total, turnover->open, turnover->size, 0, NULL};
		else
			growths[growth_count++] =
				(struct growth){site, turnover->total, turnover->open, turnover->open, turnover->size};
	}
	if (!group_count || !growth_count)
		return 0;
	qsort(groups, group_count, sizeof(*groups), compare_groups);
	qsort(growths, growth_count, sizeof(*growths), compare_growths);
	groups_found = group_count < GROUPS_MAX ? group_count : GROUPS_MAX;
	growths_found = growth_count < GROWTHS_MAX ? growth_count : GROWTHS_MAX;
	share_unknown(sites, groups, groups_found);
	code = match(sites, groups, groups_found, growths, growths_found, more_than_leaks(turnovers, count, sites, growths[0].grown));
	for (size_t i = 0; code == 0 && i < growths_found; i++) {
		turnovers[growths[i].site].matched += growths[i].count - growths[i].left;
		turnovers[growths[i].site].open = growths[i].left;
	}
	for (size_t i = 0; code == 0 && i < groups_found; i++)
		turnovers[groups[i].site].open = groups[i].left;
	return code;
}
