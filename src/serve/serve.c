/* SPDX-License-Identifier: MIT */
#include "pyleak/serve.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "address.h"
#include "pyleak/cleanup.h"
#include "pyleak/log.h"

/* Nobody can keep us from what we are here for: few connections, little memory, not for long. */
enum { MAX_CONNECTIONS = 16, CONNECTION_MEMORY = 32 << 10, CONNECTION_SECONDS = 10, BACKLOG = 16 };

struct pl_server {
	struct MHD_Daemon *daemon;
	pl_serve_document *document;
	void *context;
};

static enum MHD_Result answer(
	struct MHD_Connection *connection, unsigned int status, char *text, size_t length, const char *type)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(length, text, MHD_RESPMEM_MUST_FREE);
	enum MHD_Result result;

	if (!response) {
		free(text);
		return MHD_NO;
	}
	(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		(void)MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result refuse(struct MHD_Connection *connection, unsigned int status, const char *why)
{
	char *text = strdup(why);

	return text ? answer(connection, status, text, strlen(text), "text/plain; charset=utf-8") : MHD_NO;
}

/* Called when the head of a request is there, and again when all of it is. */
static enum MHD_Result handle(void *context, struct MHD_Connection *connection, const char *path, const char *method,
	const char *version, const char *body, size_t *body_size, void **request)
{
	static int begun;
	struct pl_server *server = context;
	size_t length = 0;
	char *text;

	(void)version;
	(void)body;
	if (!*request) {
		*request = &begun;
		return MHD_YES;
	}
	if (*body_size) {
		*body_size = 0; /* nothing that is sent is wanted */
		return MHD_YES;
	}
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return refuse(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "GET or HEAD\n");
	if (strcmp(path, "/metrics") != 0)
		return refuse(connection, MHD_HTTP_NOT_FOUND, "pyleak: see /metrics\n");
	text = server->document(server->context, &length);
	if (!text)
		return refuse(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, "pyleak: out of memory\n");
	return answer(connection, MHD_HTTP_OK, text, length, "application/openmetrics-text; version=1.0.0; charset=utf-8");
}

static int listen_at(const struct serve_address *address, const char *text, struct pl_error *err)
{
	pl_autoclose int fd = socket(address->bytes.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	const int yes = 1;
	struct serve_address bound = {.length = sizeof(bound.bytes)};
	char where[SERVE_ADDRESS_SIZE];
	int ready;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) < 0 ||
		bind(fd, (const struct sockaddr *)&address->bytes, address->length) < 0 || listen(fd, BACKLOG) < 0 ||
		getsockname(fd, (struct sockaddr *)&bound.bytes, &bound.length) < 0)
		return pl_fail(err, -errno, "--listen %s: %s", text, strerror(errno));
	serve_address_text(&bound, where);
	pl_log_note("metrics are at http://%s/metrics", where);
	ready = fd;
	fd = -1;
	return ready;
}

int pl_serve_open(
	const char *text, pl_serve_document *document, void *context, struct pl_server **ret, struct pl_error *err)
{
	struct pl_server *server = calloc(1, sizeof(*server));
	struct serve_address address;
	int code = server ? serve_address(text, &address, err) : pl_fail(err, -ENOMEM, "out of memory");
	int fd = code == 0 ? listen_at(&address, text, err) : -1;

	if (code == 0 && fd < 0)
		code = fd;
	if (code == 0) {
		server->document = document;
		server->context = context;
		/* It owns the socket from here on. */
		server->daemon = MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, handle, server, MHD_OPTION_LISTEN_SOCKET,
			fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned int)MAX_CONNECTIONS, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
			(size_t)CONNECTION_MEMORY, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned int)CONNECTION_SECONDS,
			MHD_OPTION_END);
		if (!server->daemon) {
			(void)close(fd);
			code = pl_fail(err, -ENOMEM, "--listen %s: the server cannot be started", text);
		}
	}
	if (code < 0) {
		free(server);
		return code;
	}
	*ret = server;
	return 0;
}

void pl_serve(struct pl_server *server)
{
	if (server)
		(void)MHD_run(server->daemon);
}

void pl_serve_close(struct pl_server *server)
{
	if (!server)
		return;
	MHD_stop_daemon(server->daemon);
	free(server);
}
