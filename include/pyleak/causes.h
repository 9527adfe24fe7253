/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CAUSES_H
#define PYLEAK_CAUSES_H

#include <stddef.h>

#include "pyleak/error.h"
#include "pyleak/row_types.h"
#include "pyleak/stats.h"

/*
 * Leaks that everyone has met, told by their tracebacks. They stand in data/known-causes, whose head
 * says how to add one; it is compiled in, so that the program alone knows them, and installed, so
 * that it can be edited.
 */

struct pl_cause {
	const char *name;   /* "mock-calls" */
	const char *cause;  /* what happens */
	const char *remedy; /* what to do about it */
	const char *see;    /* the library's own documentation */
};

struct pl_causes;

/* What is known of the process: conditions ("when") are about these. A condition on what is not known does not hold. */
struct pl_cause_facts {
	int threads; /* of the process now; 0: not known */
	int python;  /* 31105 for 3.11.5; 0: not known */
	const struct pl_row_types *types; /* of the row's live objects; NULL: not known */
};
/* The number of a version as text, "3.11.5" or "3.11"; 0: it is none. */
int pl_causes_version(const char *text);

/* From a text in the form of data/known-causes, which is not needed afterwards; `name` is what an error calls it.
 * 0; -EINVAL: err says in which line, and what is wrong; -ENOMEM. */
int pl_causes_parse(const char *text, size_t length, const char *name, struct pl_causes **ret, struct pl_error *err);
/* The same of a file. */
int pl_causes_read(const char *path, struct pl_causes **ret, struct pl_error *err);
/* Those that are compiled in. */
int pl_causes_builtin(struct pl_causes **ret, struct pl_error *err);
void pl_causes_free(struct pl_causes *causes); /* NULL is allowed */

/* Those of this run of the program, read when they are first asked for: of the file that $PYLEAK_CAUSES names, else of
 * the installed one, else the built-in ones. A file that is wrong is warned about once, and the built-in ones stand in.
 * NULL: out of memory. */
const struct pl_causes *pl_causes_default(void);

size_t pl_causes_count(const struct pl_causes *causes);
const struct pl_cause *pl_causes_at(const struct pl_causes *causes, size_t number);

/* A line of source (1-based) without indentation, which is freed; NULL: it cannot be had. */
typedef char *(*pl_causes_source)(void *context, const char *filename, int line);

/* The first cause whose conditions hold (facts NULL: nothing is known) and with a match that fits a traceback, innermost
 * frame first; NULL: none. Without a source (NULL) what is told by lines and decorators is not found. */
const struct pl_cause *pl_causes_find(const struct pl_causes *causes, const struct pl_cause_facts *facts,
				      const struct pl_frame *frames, size_t count, pl_causes_source source, void *context);

#endif
