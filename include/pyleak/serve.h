/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_SERVE_H
#define PYLEAK_SERVE_H

#include <stddef.h>

#include "pyleak/error.h"

/*
 * --listen: an HTTP server for Prometheus, for collectors of profiles, and for a browser. Has no thread of its own:
 * the command calls it between two looks at the process, so that what it answers is made where everything else is. No
 * client can keep it from that: few at a time, little memory for each, not for long.
 */
struct pl_server;

enum pl_page {
	PL_PAGE_METRICS, /* /metrics: OpenMetrics */
	PL_PAGE_HEAP,    /* /debug/pprof/heap, as Go's net/http/pprof has it: a profile, of what is live */
	PL_PAGE_ALLOCS,  /* /debug/pprof/allocs: the same, of all that was allocated */
	PL_PAGE_HTML,    /* / */
	PL_PAGE_JSON,    /* /report.json */
	PL_PAGES
};

struct pl_serve_source {
	void *context;
	/* The page as it is now, for the server to free. `mark`: what it is compared with, or NULL. NULL: it cannot be made. */
	char *(*page)(void *context, enum pl_page page, const void *mark, size_t *ret_length);
	/* The state now, to compare a later one with: `?seconds=N` of the profiles. NULL: it cannot be had. */
	void *(*mark)(void *context);
	void (*unmark)(void *mark);
};

/* Whether text is "PORT", "ADDRESS:PORT" or "[ADDRESS]:PORT" with numbers alone (no address is the loopback), or
 * "unix:PATH". 0 or -EINVAL. */
int pl_serve_check(const char *text, struct pl_error *err);
/*
 * Listens there, and says where in a note. *source is copied. A socket in the file system is its owner's alone.
 * `token_path`: a file with the token that every request has to give (src/serve/token.h), or NULL.
 */
int pl_serve_open(const char *text, const char *token_path, const struct pl_serve_source *source, struct pl_server **ret,
	struct pl_error *err);
/* Answers who is there; does not wait. NULL is allowed. */
void pl_serve(struct pl_server *server);
void pl_serve_close(struct pl_server *server); /* NULL is allowed */

#endif
