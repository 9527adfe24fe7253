/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_REPORT_PAGE_H
#define PYLEAK_REPORT_PAGE_H

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>

/* A page that was put together by html/assemble.py, with its data where the mark is. 0 or -errno. */
int page_print(FILE *out, const char *page, size_t size, const json_t *data);

#endif
