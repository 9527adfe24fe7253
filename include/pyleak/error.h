/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ERROR_H
#define PYLEAK_ERROR_H

/*
 * Errors are answers: one line that says what is wrong, with which value, and what to do.
 *
 * A function that can fail returns 0 or -errno. Where the number alone would not help a person it
 * also takes a struct pl_error and fills it; the command prints that text once, at the top. So a
 * function either fills the error or logs, never both.
 */

struct pl_error {
	int code;        /* -errno, 0 while nothing went wrong */
	char text[1024]; /* one line, no newline, no "pyleak:" in front */
};

/* Fills *err (which may be NULL) and returns code, so that it can be used as `return pl_fail(…)`.
 * The first text wins: a caller that adds nothing may pass its err down and just return. */
int pl_fail(struct pl_error *err, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
