/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_REPORT_FROZEN_H
#define PYLEAK_REPORT_FROZEN_H

#include <stdbool.h>
#include <sys/types.h>

bool is_frozen(const char *filename); /* "<frozen abc>" */
/* The file of the standard library that a frozen module of the process was made of, as the process sees it, for the
 * caller to free. NULL: there is none. */
char *frozen_file(pid_t pid, const char *filename);

#endif
