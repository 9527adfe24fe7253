/* SPDX-License-Identifier: MIT */
#include "head.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"

/* Longer functions and more decorators than this are not looked through. */
enum { MAX_LINES = 120, MAX_DECORATORS = 8 };

static bool defines(const char *line, const char *name)
{
	size_t length = strlen(name);

	if (strncmp(line, "async ", 6) == 0)
		line += 6;
	return strncmp(line, "def ", 4) == 0 && strncmp(line + 4, name, length) == 0 && line[4 + length] == '(';
}

/* Takes both. */
static char *put_in_front(char *line, char *head)
{
	char *joined = NULL;

	if (asprintf(&joined, "%s %s", line, head) < 0)
		joined = NULL;
	free(line);
	free(head);
	return joined;
}

char *function_head(const struct pl_frame *frame, pl_causes_source source, void *context)
{
	const char *dot = frame->function ? strrchr(frame->function, '.') : NULL;
	const char *name = dot ? dot + 1 : frame->function;
	char *head = NULL, *line = NULL;
	int number = frame->line;

	if (!source || !name)
		return NULL;
	for (int i = 0; i < MAX_LINES && number > 0 && !head; i++, number--) {
		line = source(context, frame->filename, number);
		if (!line && i == 0)
			return NULL; /* nothing is run on a blank line */
		if (line && defines(line, name))
			head = PL_TAKE(line);
		free(line);
	}
	for (int i = 0; i < MAX_DECORATORS && number > 0 && head; i++, number--) {
		line = source(context, frame->filename, number);
		if (!line || *line != '@') {
			free(line);
			break;
		}
		head = put_in_front(line, head);
	}
	return head;
}
