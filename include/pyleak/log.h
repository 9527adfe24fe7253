/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_LOG_H
#define PYLEAK_LOG_H

/*
 * What pyleak says on stderr. Results go to stdout and never through here. Each message is built
 * whole and written with one write(2), so that two processes cannot interleave within a line.
 */

enum pl_log_level {
	PL_LOG_QUIET,   /* errors only */
	PL_LOG_NORMAL,  /* errors, warnings, and notes where stderr is a terminal */
	PL_LOG_VERBOSE, /* everything, wherever stderr leads */
};

void pl_log_init(enum pl_log_level level);

/* While a view has the terminal that stderr is, each line (no newline, no "pyleak:") goes to `sink` and not there;
 * NULL: as before. Where stderr leads elsewhere nothing changes. */
void pl_log_divert(void (*sink)(void *context, const char *line), void *context);
/* What the calling thread logs is not said from now on: a sink is for one thread. */
void pl_log_mute(void);

/* "pyleak: …": the command could not do what was asked. */
void pl_log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* "pyleak: …": the result holds, but the reader must know this. Not with --quiet. */
void pl_log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Progress. Only on a terminal, or with --verbose. */
void pl_log_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* What is waited for, as one line that the next one replaces, and any message or NULL takes away: only on a terminal that
 * can do so, and not with --quiet. */
void pl_log_progress(const char *text);
/* Only with --verbose. */
void pl_log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
