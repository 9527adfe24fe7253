/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_SERVE_TOKEN_H
#define PYLEAK_SERVE_TOKEN_H

#include <stdbool.h>

#include "pyleak/error.h"

/* The first line of the file, which no one but its owner (we, or root) and their group may read. 0 or -errno. */
int serve_token_read(const char *path, char **ret, struct pl_error *err);

/* Whether the value of an Authorization header, or NULL, gives the token: "Bearer TOKEN", or "Basic" with it as the
 * password of any user, which is what a browser and a URL can give. Takes as long for a wrong one as for a right one. */
bool serve_token_given(const char *token, const char *authorization);

#endif
