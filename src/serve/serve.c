/* SPDX-License-Identifier: MIT */
#include "pyleak/serve.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "address.h"
#include "pyleak/cleanup.h"
#include "pyleak/log.h"
#include "pyleak/units.h"
#include "token.h"

/* Nobody can keep us from what we are here for: few connections, little memory, not for long. Nobody keeps others from being
 * answered: not all connections are for one address, and who neither asks nor reads in time is put out, also if a byte comes
 * now and then. */
enum { MAX_CONNECTIONS = 80, MAX_OF_ONE_ADDRESS = 64, CONNECTION_MEMORY = 32 << 10, CONNECTION_SECONDS = 10, BACKLOG = 64 };
#define REQUEST_NSEC (15 * PL_NSEC_PER_SEC)
/* Each holds a snapshot: some megabytes where there are very many sites. */
enum { MAX_WAITING = 8, MAX_SECONDS = 600 };
/* Documents that are made in one round, which the recording waits for. */
enum { MAX_PAGES_A_ROUND = 4 };

struct route {
	const char *path, *type;
	bool difference; /* ?seconds=N */
};

static const struct route routes[PL_PAGES] = {
	[PL_PAGE_METRICS] = {"/metrics", "application/openmetrics-text; version=1.0.0; charset=utf-8", false},
	[PL_PAGE_HEAP] = {"/debug/pprof/heap", "application/octet-stream", true},
	[PL_PAGE_ALLOCS] = {"/debug/pprof/allocs", "application/octet-stream", true},
	[PL_PAGE_HTML] = {"/", "text/html; charset=utf-8", false},
	[PL_PAGE_JSON] = {"/report.json", "application/json", false},
};

/* A connection. */
struct client {
	int fd;
	int64_t since_ns; /* of the request that it is at, or is to make */
	bool waits;       /* for ?seconds=N: by our own leave */
	struct client *next, **link;
};

/* A request, from its head on. */
struct request {
	struct pl_server *server;
	struct MHD_Connection *connection;
	void *mark;      /* the state when it came; NULL: the page is not a difference */
	int64_t due_ns;  /* when its page is made */
	struct request *next, **link; /* of those that wait */
};

struct pl_server {
	struct MHD_Daemon *daemon;
	struct pl_serve_source source;
	struct client *clients;
	struct request *waiting;
	size_t waiting_count;
	int pages_left;
	char *path;  /* of a socket in the file system; else NULL */
	char *token; /* NULL: none is asked for */
};

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned int status, char *text, size_t length,
	const char *type, const char *name)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(length, text, MHD_RESPMEM_MUST_FREE);
	enum MHD_Result result;

	if (!response) {
		free(text);
		return MHD_NO;
	}
	(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	(void)MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
	if (name)
		(void)MHD_add_response_header(response, "Content-Disposition", name);
	if (status == MHD_HTTP_UNAUTHORIZED)
		(void)MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Basic realm=\"pyleak\", charset=\"UTF-8\"");
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		(void)MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result refuse(struct MHD_Connection *connection, unsigned int status, const char *why)
{
	char *text = strdup(why);

	return text ? answer(connection, status, text, strlen(text), "text/plain; charset=utf-8", NULL) : MHD_NO;
}

static enum MHD_Result make_page(struct request *request, enum pl_page page)
{
	const struct pl_serve_source *source = &request->server->source;
	size_t length = 0;
	char *text = source->page(source->context, page, request->mark, &length);

	if (!text)
		return refuse(request->connection, MHD_HTTP_INTERNAL_SERVER_ERROR, "pyleak: out of memory\n");
	return answer(request->connection, MHD_HTTP_OK, text, length, routes[page].type,
		page == PL_PAGE_HEAP     ? "attachment; filename=\"heap.pb.gz\""
		: page == PL_PAGE_ALLOCS ? "attachment; filename=\"allocs.pb.gz\""
					 : NULL);
}

static struct client *client_of(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

static void note_client(void *context, struct MHD_Connection *connection, void **state, enum MHD_ConnectionNotificationCode code)
{
	struct pl_server *server = context;
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct client *client = *state;

	if (code == MHD_CONNECTION_NOTIFY_CLOSED && client) {
		*client->link = client->next;
		if (client->next)
			client->next->link = client->link;
		free(client);
		*state = NULL;
	}
	if (code != MHD_CONNECTION_NOTIFY_STARTED || !info)
		return;
	/* Without memory for it, it has the time that the library gives to all. */
	*state = client = calloc(1, sizeof(*client));
	if (!client)
		return;
	*client = (struct client){.fd = info->connect_fd, .since_ns = pl_now_ns(), .next = server->clients, .link = &server->clients};
	if (client->next)
		client->next->link = &client->next;
	server->clients = client;
}

/* The library sees that it has gone, and closes the descriptor. */
static void put_out_late(const struct pl_server *server, int64_t now)
{
	for (const struct client *client = server->clients; client; client = client->next)
		if (!client->waits && now - client->since_ns > REQUEST_NSEC)
			(void)shutdown(client->fd, SHUT_RDWR);
}

static void note_waiting(struct MHD_Connection *connection, bool waits)
{
	struct client *client = client_of(connection);

	if (!client)
		return;
	client->waits = waits;
	client->since_ns = pl_now_ns();
}

static void leave_queue(struct request *request)
{
	if (!request->link)
		return;
	note_waiting(request->connection, false);
	*request->link = request->next;
	if (request->next)
		request->next->link = request->link;
	request->link = NULL;
	request->server->waiting_count--;
}

/* It is asked about again when it is resumed. */
static enum MHD_Result wait_until(struct request *request, int64_t due_ns)
{
	struct pl_server *server = request->server;

	request->due_ns = due_ns;
	request->next = server->waiting;
	request->link = &server->waiting;
	if (request->next)
		request->next->link = &request->next;
	server->waiting = request;
	server->waiting_count++;
	note_waiting(request->connection, true);
	MHD_suspend_connection(request->connection);
	return MHD_YES;
}

/* -1: wrong; 0: none. */
static int seconds_of(struct MHD_Connection *connection)
{
	const char *text = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "seconds");
	int64_t seconds;

	if (!text)
		return 0;
	return pl_parse_number(text, 1, MAX_SECONDS, &seconds) < 0 ? -1 : (int)seconds;
}

static enum MHD_Result begin(struct request *request, enum pl_page page)
{
	struct pl_server *server = request->server;
	int seconds = routes[page].difference ? seconds_of(request->connection) : 0;

	if (seconds < 0)
		return refuse(request->connection, MHD_HTTP_BAD_REQUEST, "pyleak: seconds: a number from 1 to 600\n");
	if (seconds == 0)
		return make_page(request, page);
	if (server->waiting_count == MAX_WAITING)
		return refuse(request->connection, MHD_HTTP_SERVICE_UNAVAILABLE, "pyleak: too many wait already: try again later\n");
	request->mark = server->source.mark(server->source.context);
	if (!request->mark)
		return refuse(request->connection, MHD_HTTP_INTERNAL_SERVER_ERROR, "pyleak: out of memory\n");
	return wait_until(request, pl_now_ns() + seconds * PL_NSEC_PER_SEC);
}

/* Called when the head of a request is there, again when all of it is, and once more when it has waited. */
static enum MHD_Result handle(void *context, struct MHD_Connection *connection, const char *path, const char *method,
	const char *version, const char *body, size_t *body_size, void **state)
{
	struct pl_server *server = context;
	struct request *request = *state;

	(void)version;
	(void)body;
	if (!request) {
		*state = request = calloc(1, sizeof(*request));
		if (!request)
			return MHD_NO;
		request->server = server;
		request->connection = connection;
		return MHD_YES;
	}
	if (*body_size) {
		*body_size = 0; /* nothing that is sent is wanted */
		return MHD_YES;
	}
	if (server->token && !serve_token_given(server->token,
		MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION)))
		return refuse(connection, MHD_HTTP_UNAUTHORIZED, "pyleak: this address wants its token: Authorization: Bearer TOKEN\n");
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return refuse(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "GET or HEAD\n");
	for (enum pl_page page = 0; page < PL_PAGES; page++) {
		if (strcmp(path, routes[page].path) != 0)
			continue;
		if (request->mark)
			return make_page(request, page);
		/* What is dear is put off to the next round, where too much of it is asked for in this one. */
		if (server->pages_left == 0)
			return wait_until(request, 0);
		server->pages_left--;
		return begin(request, page);
	}
	return refuse(connection, MHD_HTTP_NOT_FOUND,
		"pyleak: see /, /metrics, /report.json, /debug/pprof/heap and /debug/pprof/allocs\n");
}

/* Answered, or gone: both end here. */
static void forget(void *context, struct MHD_Connection *connection, void **state, enum MHD_RequestTerminationCode how)
{
	struct pl_server *server = context;
	struct request *request = *state;

	(void)how;
	if (!request)
		return;
	leave_queue(request);
	note_waiting(connection, false);
	if (request->mark)
		server->source.unmark(request->mark);
	free(request);
	*state = NULL;
}

static int listen_at(const struct serve_address *address, const char *text, struct pl_error *err)
{
	pl_autoclose int fd = socket(address->bytes.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	const int yes = 1;
	struct serve_address bound = {.length = sizeof(bound.bytes)};
	char where[SERVE_ADDRESS_SIZE];
	bool local = address->bytes.ss_family == AF_UNIX;
	mode_t mask = umask(0177);
	int code, ready;

	code = fd < 0 || (!local && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) < 0) ||
			       bind(fd, (const struct sockaddr *)&address->bytes, address->length) < 0 || listen(fd, BACKLOG) < 0 ||
			       getsockname(fd, (struct sockaddr *)&bound.bytes, &bound.length) < 0
		       ? -errno
		       : 0;
	(void)umask(mask);
	if (code < 0)
		return pl_fail(err, code, "--listen %s: %s", text, strerror(-code));
	if (local) {
		pl_log_note("listening at %s", text);
	} else {
		serve_address_text(&bound, where);
		pl_log_note("http://%s/ has the report, /debug/pprof/heap and /debug/pprof/allocs profiles; metrics are at "
			    "http://%s/metrics",
			where, where);
	}
	ready = fd;
	fd = -1;
	return ready;
}

int pl_serve_open(const char *text, const char *token_path, const struct pl_serve_source *source, struct pl_server **ret,
	struct pl_error *err)
{
	struct pl_server *server = calloc(1, sizeof(*server));
	struct serve_address address = {.length = 0};
	int code, fd = -1;

	if (!server)
		return pl_fail(err, -ENOMEM, "out of memory");
	code = serve_address(text, &address, err);
	if (code == 0 && token_path)
		code = serve_token_read(token_path, &server->token, err);
	if (code == 0)
		fd = listen_at(&address, text, err);
	if (code == 0 && fd < 0)
		code = fd;
	if (code == 0) {
		server->source = *source;
		if (address.bytes.ss_family == AF_UNIX)
			server->path = strdup(((struct sockaddr_un *)&address.bytes)->sun_path);
		/* It owns the socket from here on. */
		server->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, handle, server,
			MHD_OPTION_NOTIFY_COMPLETED, forget, server, MHD_OPTION_NOTIFY_CONNECTION, note_client, server,
			MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned int)MAX_CONNECTIONS,
			MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned int)MAX_OF_ONE_ADDRESS,
			MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
			MHD_OPTION_CONNECTION_TIMEOUT, (unsigned int)CONNECTION_SECONDS, MHD_OPTION_END);
		if (!server->daemon) {
			(void)close(fd);
			code = pl_fail(err, -ENOMEM, "--listen %s: the server cannot be started", text);
		}
	}
	if (code < 0) {
		pl_serve_close(server);
		return code;
	}
	*ret = server;
	return 0;
}

static void resume(struct request *request)
{
	leave_queue(request);
	MHD_resume_connection(request->connection);
}

/* The time that a request has waited for its due is not held against it: the limit of a connection counts anew. */
static void resume_due(struct pl_server *server, int64_t now)
{
	struct request *next;

	for (struct request *request = server->waiting; request; request = next) {
		next = request->next;
		if (request->due_ns <= now)
			resume(request);
	}
}

void pl_serve(struct pl_server *server)
{
	if (!server)
		return;
	server->pages_left = MAX_PAGES_A_ROUND;
	resume_due(server, pl_now_ns());
	put_out_late(server, pl_now_ns());
	(void)MHD_run(server->daemon);
}

void pl_serve_close(struct pl_server *server)
{
	if (!server)
		return;
	/* A connection that is suspended may not be closed. */
	resume_due(server, INT64_MAX);
	if (server->daemon)
		MHD_stop_daemon(server->daemon);
	if (server->path)
		(void)unlink(server->path);
	free(server->path);
	free(server->token);
	free(server);
}
