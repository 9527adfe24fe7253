/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "pyleak/serve.h"

/* In the static program: the HTTP library wants others that there are no static ones of. */

int pl_serve_open(
	const char *text, pl_serve_document *document, void *context, struct pl_server **ret, struct pl_error *err)
{
	(void)document;
	(void)context;
	(void)ret;
	return pl_fail(err, -ENOSYS, "--listen %s: this pyleak is built without an HTTP server; write --format openmetrics to a file",
		text);
}

void pl_serve(struct pl_server *server)
{
	(void)server;
}

void pl_serve_close(struct pl_server *server)
{
	(void)server;
}
