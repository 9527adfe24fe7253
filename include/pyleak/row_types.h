/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ROW_TYPES_H
#define PYLEAK_ROW_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The types of the objects that lie in the live blocks of a row, by a sample of the blocks. A block that is a part of an
 * object (the table of a dict, the items of a list) has none.
 */
enum { PL_ROW_TYPES = 8, PL_ROW_TYPE_NAME = 128 };
struct pl_row_type {
	char name[PL_ROW_TYPE_NAME]; /* with its module; cut, if it is longer */
	double count;                /* objects */
};
struct pl_row_types {
	struct pl_row_type items[PL_ROW_TYPES]; /* the commonest first; the last one of those that did not find room is lost */
	size_t count;
	double others; /* objects of types that are not among the items */
	double blocks; /* that were seen, with an object or without */
	unsigned int chain; /* tracebacks: as many as lead from one of those looked at to the next, and so on */
	unsigned int processes, living; /* of a family: so many of so many that live have blocks of the row; living 0: not one */
	bool sampled;  /* not all of them were looked at: counts are estimates */
};

/* `count` more objects of this type. NULL: blocks without one. Then blocks is the caller's to add to. */
void pl_row_types_add(struct pl_row_types *types, const char *name, double count);
/* Once all are there: in order, and as many as there are for `live` blocks. */
void pl_row_types_finish(struct pl_row_types *types, int64_t live);

/* So many of a hundred objects are of types whose names fit the glob; 0 also where nothing is known. */
int pl_row_types_share(const struct pl_row_types *types, const char *glob);

/* "648 traceback, 648 frame"; empty where nothing is known. */
enum { PL_ROW_TYPES_TEXT = 5 * (PL_ROW_TYPE_NAME + 24) };
void pl_row_types_text(const struct pl_row_types *types, char text[PL_ROW_TYPES_TEXT]);

#endif
