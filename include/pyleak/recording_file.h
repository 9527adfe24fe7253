/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_RECORDING_FILE_H
#define PYLEAK_RECORDING_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "pyleak/error.h"
#include "pyleak/facts.h"
#include "pyleak/stats.h"

/*
 * A recording in a file: the snapshots of an attach or a diff, to be looked at later and elsewhere.
 * The format is in pyleak-recording(5) and src/recording/recording.proto. One snapshot is one
 * compressed and checksummed piece of the file: of a file that was cut, all whole snapshots are
 * there. Knows nothing of processes, and does not write by itself.
 */

struct pl_recording_writer;

/* The line where the function begins that a line is in; 0: not known. */
typedef int pl_definition_finder(void *context, const char *filename, const char *function, int line);

/* The source line at a place, for the caller to free; NULL: not known. */
typedef char *pl_source_reader(void *context, const char *filename, int line);

/* `source` may be NULL: no source lines. Both sites and context are borrowed. NULL: out of memory. */
struct pl_recording_writer *pl_recording_writer_new(const struct pl_facts *facts, pl_source_reader *source,
						    void *context);
/* Have the beginnings of functions written too; before the first snapshot. */
void pl_recording_writer_set_definitions(struct pl_recording_writer *writer, pl_definition_finder *definition);
void pl_recording_writer_free(struct pl_recording_writer *writer);
/* The bytes that stand for one more snapshot, later than all before it and of the same sites: to be
 * written at the end of the file, whole, and freed. 0 or -errno (-EFBIG: too many sites). */
int pl_recording_writer_add(struct pl_recording_writer *writer, struct pl_snapshot *snapshot, int64_t stop_ns,
			    void **ret_bytes, size_t *ret_size);

struct pl_recording_reader;

/* Opens a recording and reads its first snapshot. The sites of several recordings can be in one
 * pl_sites: their snapshots can be compared then. `sites` is borrowed; `name` is for messages.
 * -EBADMSG: it is no recording, or damaged before its first snapshot is whole. */
int pl_recording_reader_new(FILE *stream, const char *name, struct pl_sites *sites,
			    struct pl_recording_reader **ret, struct pl_error *err);
void pl_recording_reader_free(struct pl_recording_reader *reader);
/* In the clock of its snapshots: nanoseconds since 1970. */
const struct pl_facts *pl_recording_reader_facts(const struct pl_recording_reader *reader);
/* Goes to the next snapshot. 1, or 0 at the end; -EBADMSG: the file is cut or damaged here (the last
 * snapshot still stands), -EIO, -ENOMEM. */
int pl_recording_reader_next(struct pl_recording_reader *reader, struct pl_error *err);
/* Of the snapshot that it is at: since the start; and the longest stop so far. */
int64_t pl_recording_reader_time(const struct pl_recording_reader *reader);
int64_t pl_recording_reader_stop(const struct pl_recording_reader *reader);
/* Its totals. taken_ns is nanoseconds since 1970. NULL: out of memory. */
struct pl_snapshot *pl_recording_reader_snapshot(const struct pl_recording_reader *reader);

/* Where the function of a frame begins; 0: it does not say. */
int pl_recording_reader_definition(const struct pl_recording_reader *reader, const char *filename, const char *function,
				   int line);
/* The source line that a recording brought along for a place, by the addresses of the names in the
 * sites; NULL: none. Lives as long as the sites. */
const char *pl_recording_reader_source(const struct pl_recording_reader *reader, const char *filename, int line);

#endif
