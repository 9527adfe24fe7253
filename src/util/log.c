/* SPDX-License-Identifier: MIT */
#include "pyleak/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pyleak/cleanup.h"
#include "pyleak/text.h"

static const char prefix[] = "pyleak: ";
static enum pl_log_level log_level = PL_LOG_NORMAL;
static bool log_to_terminal;
static void (*log_sink)(void *context, const char *line);
static void *log_sink_context;
static bool log_progress_shown;
static _Thread_local bool log_muted;

void pl_log_mute(void)
{
	log_muted = true;
}

void pl_log_init(enum pl_log_level level)
{
	log_level = level;
	log_to_terminal = isatty(STDERR_FILENO) == 1;
}

void pl_log_divert(void (*sink)(void *context, const char *line), void *context)
{
	log_sink = log_to_terminal ? sink : NULL;
	log_sink_context = context;
}

static void write_whole(const char *text, size_t length)
{
	while (length > 0) {
		ssize_t written = write(STDERR_FILENO, text, length);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return; /* there is nowhere left to say so */
		text += written;
		length -= (size_t)written;
	}
}

static void take_progress_away(void)
{
	static const char clear[] = "\r\033[K";

	if (log_progress_shown)
		write_whole(clear, sizeof(clear) - 1);
	log_progress_shown = false;
}

void pl_log_progress(const char *text)
{
	const char *terminal = getenv("TERM");

	take_progress_away();
	if (!text || log_level == PL_LOG_QUIET || !log_to_terminal || log_sink || !terminal || strcmp(terminal, "dumb") == 0)
		return;
	write_whole(text, strlen(text));
	log_progress_shown = true;
}

/* Lines of a list, which begin with two blanks, are ours: what looks like one in a name looks like no message. */
static void blank_lines(char *text, size_t length)
{
	char *end;

	while ((end = memmem(text, length, "\n  ", 3))) {
		pl_text_blank(text, (size_t)(end - text));
		length -= (size_t)(end + 1 - text);
		text = end + 1;
	}
	pl_text_blank(text, length);
}

static void __attribute__((format(printf, 1, 0))) log_message(const char *format, va_list arguments)
{
	pl_autofree char *message = NULL;
	pl_autofree char *line = NULL;
	const size_t prefix_length = sizeof(prefix) - 1;
	int saved_errno = errno;
	int length;

	if (log_muted)
		return;
	length = vasprintf(&message, format, arguments);

	take_progress_away();
	if (length < 0) {
		message = NULL; /* vasprintf leaves it undefined */
	} else {
		line = malloc(prefix_length + (size_t)length + 1);
	}
	if (line) {
		memcpy(line, prefix, prefix_length);
		memcpy(line + prefix_length, message, (size_t)length);
		/* A name from the tracee must not steer the terminal that it is shown on, nor look like a message of ours. */
		line[prefix_length + (size_t)length] = '\0';
		blank_lines(line + prefix_length, (size_t)length);
		line[prefix_length + (size_t)length] = log_sink ? '\0' : '\n';
		if (log_sink)
			log_sink(log_sink_context, line + prefix_length);
		else
			write_whole(line, prefix_length + (size_t)length + 1);
	} else {
		static const char no_memory[] = "pyleak: out of memory while writing a message\n";

		write_whole(no_memory, sizeof(no_memory) - 1);
	}
	errno = saved_errno;
}

#define LOG(format)                                                                                                    \
	do {                                                                                                           \
		va_list arguments;                                                                                     \
		va_start(arguments, format);                                                                           \
		log_message(format, arguments);                                                                        \
		va_end(arguments);                                                                                     \
	} while (0)

void pl_log_error(const char *format, ...)
{
	LOG(format);
}

void pl_log_warning(const char *format, ...)
{
	if (log_level != PL_LOG_QUIET)
		LOG(format);
}

void pl_log_note(const char *format, ...)
{
	if (log_level == PL_LOG_VERBOSE || (log_level == PL_LOG_NORMAL && log_to_terminal))
		LOG(format);
}

void pl_log_debug(const char *format, ...)
{
	if (log_level == PL_LOG_VERBOSE)
		LOG(format);
}
