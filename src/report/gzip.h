/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_REPORT_GZIP_H
#define PYLEAK_REPORT_GZIP_H

#include <stddef.h>
#include <stdio.h>

/* Writes the bytes as a gzip file (RFC 1952) without a name and a time in it. 0 or -errno. */
int gzip_write(FILE *out, const void *bytes, size_t size);

#endif
