/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_JSON_TEXT_H
#define PYLEAK_CLI_JSON_TEXT_H

#include <jansson.h>

/* A JSON string of a command line or a file name, which is bytes: what is not UTF-8 in it becomes
 * U+FFFD. NULL: out of memory. */
json_t *pl_json_text(const char *text);

#endif
