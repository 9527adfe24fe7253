/* SPDX-License-Identifier: MIT */
#include "address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "pyleak/cleanup.h"
#include "pyleak/serve.h"
#include "pyleak/units.h"

#define LOCAL "unix:"

/*
 * No name is looked up: where somebody listens is not for a name server to say. Nor is getaddrinfo() asked for
 * numbers: it brings the C library's loading of name services along, which a static program does not have.
 */
static bool fill(const char *host, int port, struct serve_address *ret)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)&ret->bytes;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&ret->bytes;

	memset(ret, 0, sizeof(*ret));
	if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)port);
		ret->length = sizeof(*v4);
		return true;
	}
	if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16_t)port);
		ret->length = sizeof(*v6);
		return true;
	}
	return false;
}

static int fill_local(const char *path, struct serve_address *ret, struct pl_error *err)
{
	struct sockaddr_un *local = (struct sockaddr_un *)&ret->bytes;

	memset(ret, 0, sizeof(*ret));
	if (!*path || strlen(path) >= sizeof(local->sun_path))
		return pl_fail(err, -EINVAL, "--listen: '%s' is no path of a socket: 1 to %zu characters", path,
			sizeof(local->sun_path) - 1);
	local->sun_family = AF_UNIX;
	memcpy(local->sun_path, path, strlen(path) + 1);
	ret->length = sizeof(*local);
	return 0;
}

int serve_address(const char *text, struct serve_address *ret, struct pl_error *err)
{
	pl_autofree char *copy = strdup(text);
	char *colon = copy ? strrchr(copy, ':') : NULL, *host = colon ? copy : NULL;
	const char *port = colon ? colon + 1 : text;
	int64_t number;

	if (!copy)
		return pl_fail(err, -ENOMEM, "out of memory");
	if (strncmp(text, LOCAL, strlen(LOCAL)) == 0)
		return fill_local(text + strlen(LOCAL), ret, err);
	if (colon) {
		size_t length = (size_t)(colon - copy);

		*colon = '\0';
		if (length > 1 && host[0] == '[' && host[length - 1] == ']') {
			host[length - 1] = '\0';
			host++;
		} else if (strchr(host, ':')) {
			host = NULL; /* which of the colons is it? */
			port = "";
		}
	}
	if (pl_parse_number(port, 0, 65535, &number) < 0 || !fill(host ? host : "127.0.0.1", (int)number, ret))
		return pl_fail(err, -EINVAL, "--listen: '%s' is not an address: give PORT, ADDRESS:PORT or [ADDRESS]:PORT, as 9810 or "
					     "127.0.0.1:9810, or unix:PATH", text);
	return 0;
}

void serve_address_text(const struct serve_address *address, char text[static SERVE_ADDRESS_SIZE])
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address->bytes;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address->bytes;
	bool old = address->bytes.ss_family == AF_INET;
	char host[INET6_ADDRSTRLEN] = "";

	(void)inet_ntop(address->bytes.ss_family, old ? (const void *)&v4->sin_addr : (const void *)&v6->sin6_addr, host,
		sizeof(host));
	snprintf(text, SERVE_ADDRESS_SIZE, old ? "%s:%d" : "[%s]:%d", host, ntohs(old ? v4->sin_port : v6->sin6_port));
}

int pl_serve_check(const char *text, struct pl_error *err)
{
	struct serve_address address;

	return serve_address(text, &address, err);
}
