/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_TEXT_H
#define PYLEAK_TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/*
 * Names, command lines and source lines come from the tracee and may be any bytes: escape sequences that reprogram a
 * terminal (C1 controls are some too), characters that turn the direction of a line around, newlines that forge a line of
 * a report, invalid UTF-8. What acts is told in one place; all that is printed goes through one of these.
 */

/* The character at text and how many bytes it has; 0 where a byte starts none (RFC 3629). */
size_t pl_text_character(const char *text, uint32_t *ret_character);

/* Prints text on one line: what a terminal would act upon, and bytes that belong to no character, as
 * \xNN or \uNNNN; a tab as a space. */
void pl_text_print(FILE *out, const char *text);
/* The same into memory, the caller's to free; NULL: out of memory. */
char *pl_printable(const char *text);

/* The same in place, for messages, which have a place of their own: each such byte becomes a question mark. No byte of
 * the first `length` may be NUL. */
void pl_text_blank(char *text, size_t length);

/* A copy in which each byte that belongs to no character is U+FFFD, and all else is as it was: for formats that have an
 * escape for what acts. The caller frees it; NULL: out of memory. */
char *pl_text_repair(const char *text);

#endif
