/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_RECORDING_READER_PRIVATE_H
#define PYLEAK_RECORDING_READER_PRIVATE_H

#include "pyleak/frame_numbers.h"
#include "pyleak/recording_file.h"
#include "recording_private.h"

/* What of a recording has been read so far. Numbers are those of the file. */
struct recorded {
	struct pl_sites *sites; /* borrowed */
	bool started;
	struct pl_facts facts;
	const char **texts; /* interned in the sites */
	size_t text_count, text_capacity;
	struct recorded_frame {
		struct pl_frame frame;
		const char *source;
	} *frames;
	size_t frame_count, frame_capacity;
	uint32_t *site_map; /* to the numbers of `sites` */
	struct pl_totals *totals;
	size_t site_count, site_capacity;
	uint32_t *stack_map; /* likewise, native stacks */
	size_t stack_count, stack_capacity;
	struct pl_frame_numbers places; /* file and line to its source line */
	const char **sources;		/* [places.count] */
	size_t source_capacity;
	struct pl_frame_numbers functions; /* frames to where their functions begin */
	int *definitions;		   /* [functions.count] */
	size_t definition_capacity;

	/* Of the last snapshot. */
	uint64_t time_ns, rss, stop_ns;
	struct pl_losses losses;
	struct pl_account account;
};

/* Takes in one piece. 1: with a snapshot in it; 0: without; -EBADMSG: damaged, what stands is as it
 * was at the last snapshot or the recording is no longer of use; -ENOMEM. */
int recorded_apply(struct recorded *recorded, const void *bytes, size_t size);
void recorded_free(struct recorded *recorded);

#endif
