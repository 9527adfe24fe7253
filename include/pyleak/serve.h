/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_SERVE_H
#define PYLEAK_SERVE_H

#include <stddef.h>

#include "pyleak/error.h"

/*
 * --listen: an HTTP server for Prometheus. Has no thread of its own: the command calls it between
 * two looks at the process, so that what it answers is made where everything else is.
 */
struct pl_server;

/* The document that is served now, for the server to free; NULL: it cannot be made. */
typedef char *pl_serve_document(void *context, size_t *ret_length);

/* Whether text is "PORT", "ADDRESS:PORT" or "[ADDRESS]:PORT" with numbers alone; no address is the
 * loopback. 0 or -EINVAL. */
int pl_serve_check(const char *text, struct pl_error *err);
/* Listens there, and says where in a note. */
int pl_serve_open(const char *text, pl_serve_document *document, void *context, struct pl_server **ret,
		  struct pl_error *err);
/* Answers who is there; does not wait. NULL is allowed. */
void pl_serve(struct pl_server *server);
void pl_serve_close(struct pl_server *server); /* NULL is allowed */

#endif
