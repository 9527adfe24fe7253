/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_SERVE_ADDRESS_H
#define PYLEAK_SERVE_ADDRESS_H

#include <netdb.h>

#include "pyleak/error.h"

/* What --listen means; free it by freeaddrinfo(). 0 or -EINVAL. */
int serve_address(const char *text, struct addrinfo **ret, struct pl_error *err);

#endif
