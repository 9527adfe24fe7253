/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_RECORDING_WRITER_PRIVATE_H
#define PYLEAK_RECORDING_WRITER_PRIVATE_H

#include <stdio.h>
#include <zstd.h>

#include "pyleak/recording_file.h"
#include "pyleak/table.h"
#include "recording_private.h"

struct pl_recording_writer {
	struct pl_facts facts;
	pl_source_reader *source;
	pl_definition_finder *definition; /* NULL: none */
	struct pl_table definitions;      /* places whose source was written for that */
	void *context;
	bool started, broken;
	ZSTD_CCtx *compressor;

	/* What is in the file. */
	struct pl_table texts; /* address to number + 1; texts of the sites are interned */
	uint32_t text_count;
	size_t frame_count, site_count; /* frames have the numbers that the sites give them */
	struct pl_totals *totals; /* [site_count] */
	uint32_t *placed;         /* [site_count]: the number of its native stack + 1; 0: none */
	size_t stack_count;
};

/* One piece of the file, as it is being put together. */
struct piece {
	Pyleak__Recording message;
	Pyleak__Facts facts;
	Pyleak__Snapshot snapshot, *snapshots[1];
	Pyleak__Account account_before, account;
	int64_t parts_before[PL_ACCOUNT_PARTS], parts[PL_ACCOUNT_PARTS];
	ProtobufCBinaryData texts;
	char *text_bytes;
	size_t text_size;
	FILE *text_stream;
	size_t frame_end; /* frames below this are to be in the file */
};

/* writer_texts.c: the number of a text of the sites, and that of one more text. */
int writer_text(struct pl_recording_writer *writer, struct piece *piece, const char *text, uint32_t *ret);
uint32_t writer_add_text(struct pl_recording_writer *writer, struct piece *piece, const char *text);

/* Has a frame of the sites written, before what refers to it. */
uint32_t writer_frame(struct piece *piece, uint32_t number);

/* writer_native.c: what is known of native code. Who called the allocators, of the sites that the piece has, up to
 * `end`; and the stacks that are new, and which sites have another one than before. */
int writer_add_callers(struct pl_recording_writer *writer, struct piece *piece, const struct pl_snapshot *snapshot,
		       size_t end);
int writer_add_stacks(struct pl_recording_writer *writer, struct piece *piece, const struct pl_snapshot *snapshot);

#endif
