/* SPDX-License-Identifier: MIT */
#include "address.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"
#include "pyleak/serve.h"
#include "pyleak/units.h"

/* No name is looked up: where somebody listens is not for a name server to say. */
int serve_address(const char *text, struct addrinfo **ret, struct pl_error *err)
{
	const struct addrinfo hints = {
		.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
		.ai_socktype = SOCK_STREAM,
	};
	pl_autofree char *copy = strdup(text);
	char *colon = copy ? strrchr(copy, ':') : NULL, *host = colon ? copy : NULL;
	const char *port = colon ? colon + 1 : text;
	int64_t number;

	if (!copy)
		return pl_fail(err, -ENOMEM, "out of memory");
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
	if (pl_parse_number(port, 0, 65535, &number) < 0 || (host && !*host) ||
		getaddrinfo(host ? host : "127.0.0.1", port, &hints, ret) != 0)
		return pl_fail(err, -EINVAL, "--listen: '%s' is not an address: give PORT, ADDRESS:PORT or [ADDRESS]:PORT, as 9810 or "
					     "127.0.0.1:9810", text);
	return 0;
}

int pl_serve_check(const char *text, struct pl_error *err)
{
	struct addrinfo *address = NULL;
	int code = serve_address(text, &address, err);

	if (code == 0 && address)
		freeaddrinfo(address);
	return code;
}
