/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_SERVE_ADDRESS_H
#define PYLEAK_SERVE_ADDRESS_H

#include <sys/socket.h>

#include "pyleak/error.h"

/* A place to listen at: IPv4, IPv6, or a socket in the file system. */
struct serve_address {
	struct sockaddr_storage bytes;
	socklen_t length;
};

enum { SERVE_ADDRESS_SIZE = 64 };

/* What --listen means. 0 or -EINVAL. */
int serve_address(const char *text, struct serve_address *ret, struct pl_error *err);

/* Of IPv4 and IPv6, as it stands in a URL: "127.0.0.1:9810", "[::1]:9810". */
void serve_address_text(const struct serve_address *address, char text[static SERVE_ADDRESS_SIZE]);

#endif
