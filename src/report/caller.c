/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <string.h>

#include "pyleak/report.h"
#include "terms.h"

enum { FRAMES_MOST = 128 };

static char *format(const char *before, const struct pl_frame *frame)
{
	char *text;

	return asprintf(&text, "%s %s:%d (%s)", before, frame->filename, frame->line, frame->function) < 0 ? NULL : text;
}

/* Four times as many frames are worth a try. */
static int more_frames(int frames)
{
	return frames < 4 ? 16 : 4 * frames < FRAMES_MOST ? 4 * frames : FRAMES_MOST;
}

static char *explain_libraries(const struct pl_caller *caller, int frames)
{
	char *text = NULL;
	int length;

	if (!caller->more)
		return strdup(caller->count == 1 ? "its one frame is a library's" : "all its frames are of libraries");
	if (frames >= FRAMES_MOST)
		length = asprintf(&text, "all %zu frames kept are of libraries", caller->count);
	else if (caller->count == 1)
		length = asprintf(&text, "the one frame kept is a library's; --frames %d shows more", more_frames(frames));
	else
		length = asprintf(&text, "all %zu frames kept are of libraries; --frames %d shows more", caller->count,
			more_frames(frames));
	return length < 0 ? NULL : text;
}

char *pl_caller_text(const struct pl_sites *sites, const struct pl_row *row, enum pl_group group_by, int frames,
	const struct pl_frame **ret_frame)
{
	const struct pl_caller caller = pl_sites_caller(sites, row->site);

	*ret_frame = NULL;
	if (group_by == PL_GROUP_TRACEBACK || caller.kind == PL_CALLER_NONE)
		return NULL;
	if (caller.kind == PL_CALLER_LIBRARY)
		return explain_libraries(&caller, frames);
	if (group_by == PL_GROUP_CALLER && caller.kind == PL_CALLER_TASK)
		return strdup("a task of an event loop, all of whose frames are of libraries");
	*ret_frame = group_by == PL_GROUP_CALLER ? pl_sites_innermost(sites, row->site) : pl_row_caller(sites, row);
	if (group_by == PL_GROUP_CALLER && caller.index == 0)
		*ret_frame = NULL;
	if (!*ret_frame)
		return NULL;
	if (group_by == PL_GROUP_CALLER)
		return format(TERM_ALLOCATED_IN, *ret_frame);
	return format(caller.kind == PL_CALLER_TASK ? "called in a task of an event loop, from" : TERM_CALLED_FROM, *ret_frame);
}
