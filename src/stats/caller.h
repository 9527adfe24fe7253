/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_STATS_CALLER_H
#define PYLEAK_STATS_CALLER_H

#include "pyleak/stats.h"

/* Whose code a frame is; see pl_sites_caller(), which is what it is for. */
enum frame_kind {
	FRAME_OWN,          /* the program's */
	FRAME_LIBRARY,
	FRAME_WITHOUT_FILE, /* "<string>": the program's, where nothing else is */
	FRAME_LAUNCHER,     /* a script that pip or a distribution made, to start a library's program */
	FRAME_STARTER,      /* what starts threads and modules: it is everybody's outermost frame */
	FRAME_LOOP,         /* an event loop's own */
	FRAME_CALLBACK,     /* where an event loop calls one */
	FRAME_RUNNER,       /* where the program calls an event loop */
	FRAME_UNKNOWN,      /* no Python, or nothing is known of it */
};

/* `libraries`: globs of what is nobody's own besides; NULL: none. */
enum frame_kind caller_kind(const struct pl_frame *frame, const char *const *libraries);

/* Of a trace by the kinds of its frames, innermost first. */
struct caller_place {
	size_t index;
	enum pl_caller_kind kind;
};
struct caller_place caller_find(const uint8_t *kinds, const uint32_t *numbers, size_t count);

/* Whether one of the globs (NULL-terminated; NULL: none) matches the name of a file, or without a '/' in it the last part
 * of that. */
bool caller_matches(const char *filename, const char *const *globs);

#endif
