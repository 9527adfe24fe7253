/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_OUTPUT_H
#define PYLEAK_CLI_OUTPUT_H

#include <stdbool.h>
#include <stdio.h>

#include "pyleak/error.h"
#include "pyleak/options.h"

/* Where results go: stdout, or the file of --output. */
struct pl_output {
	FILE *stream;
	const char *path; /* NULL: stdout */
	bool created;     /* the file did not exist before */
	const char *format; /* its name */
	size_t snapshots;   /* that were written to it, of a recording, and how long that was; 0: it is none */
	int64_t length_ns;
};

/*
 * Opens it, early, so that a wrong name does not cost a recording. A regular file that exists is
 * refused without --force (-EEXIST); a device or a pipe is written to; "-" is stdout. A terminal is
 * refused what is not text.
 */
int pl_output_open(const struct pl_options *options, struct pl_output *output, struct pl_error *err);
/* Flushes and closes, and says if anything could not be written. A file that pl_output_open() made
 * and that nothing was written to is removed. May be called on one that was never opened ({0}). */
int pl_output_close(struct pl_output *output, struct pl_error *err);

/* Writes all of it, behind what is in the stream. As long as nobody takes it, idle(context) is called
 * over and over, until it returns false: then the write just waits. 0 or -errno. */
int pl_output_write(struct pl_output *output, const char *text, size_t length, bool (*idle)(void *context), void *context);

/* --color, where `auto` asks the terminal, NO_COLOR and TERM. */
bool pl_output_color(const struct pl_options *options, const struct pl_output *output);
/* Columns of the terminal that the output goes to; 0: not a terminal, cut nothing. */
size_t pl_output_width(const struct pl_output *output);

/* The longest beginning of UTF-8 text that fills at most `columns`, one for each character: its length. */
size_t pl_output_fitting(const char *text, size_t columns);

#endif
