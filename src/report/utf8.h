/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_REPORT_UTF8_H
#define PYLEAK_REPORT_UTF8_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Names and source lines come from the tracee and may be any bytes: invalid UTF-8, escape sequences
 * that reprogram a terminal, characters that turn the direction of a line around. */

/* The character at text and how many bytes it has; 0 where a byte starts none (RFC 3629). */
size_t utf8_character(const char *text, uint32_t *ret_character);

/* A copy in which each byte that belongs to no character is U+FFFD. The caller frees it; NULL: out
 * of memory. */
char *utf8_repair(const char *text);

/* Prints text on one line: what a terminal would act upon, and bytes that belong to no character, as
 * \xNN or \uNNNN; a tab as a space. */
void utf8_print(FILE *out, const char *text);

#endif
