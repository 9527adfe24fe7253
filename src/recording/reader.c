/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "pyleak/cleanup.h"
#include "reader_private.h"

struct pl_recording_reader {
	FILE *stream; /* borrowed */
	char *name;
	struct recorded recorded;
	uint64_t snapshot_count;
	ZSTD_DCtx *decompressor;
	ZSTD_inBuffer input;
	char *input_bytes;
	ZSTD_outBuffer piece;
	char *piece_bytes;
	bool ended;
};

enum { PIECE_FIRST_ROOM = 1 << 20 };

static int start(struct pl_recording_reader *reader, FILE *stream, const char *name, struct pl_sites *sites)
{
	reader->stream = stream;
	reader->recorded.sites = sites;
	reader->name = strdup(name);
	reader->decompressor = ZSTD_createDCtx();
	reader->input_bytes = malloc(ZSTD_DStreamInSize());
	reader->piece_bytes = malloc(PIECE_FIRST_ROOM);
	reader->input.src = reader->input_bytes;
	reader->piece = (ZSTD_outBuffer){.dst = reader->piece_bytes, .size = PIECE_FIRST_ROOM};
	return reader->name && reader->decompressor && reader->input_bytes && reader->piece_bytes ? 0 : -ENOMEM;
}

void pl_recording_reader_free(struct pl_recording_reader *reader)
{
	if (!reader)
		return;
	recorded_free(&reader->recorded);
	ZSTD_freeDCtx(reader->decompressor);
	free(reader->input_bytes);
	free(reader->piece_bytes);
	free(reader->name);
	free(reader);
}

static int check_title(struct pl_recording_reader *reader, struct pl_error *err)
{
	const uint32_t head[2] = {htole32(RECORDING_MAGIC), htole32(sizeof(RECORDING_TITLE) - 1)};
	char wanted[sizeof(head) + sizeof(RECORDING_TITLE) - 1], got[sizeof(wanted)];

	memcpy(wanted, head, sizeof(head));
	memcpy(wanted + sizeof(head), RECORDING_TITLE, sizeof(RECORDING_TITLE) - 1);
	errno = 0;
	if (fread(got, sizeof(got), 1, reader->stream) != 1 && ferror(reader->stream))
		return pl_fail(err, errno ? -errno : -EIO, "%s: %s", reader->name, strerror(errno ? errno : EIO));
	if (feof(reader->stream) || memcmp(wanted, got, sizeof(wanted)) != 0)
		return pl_fail(err, -EBADMSG, "%s: not a recording of pyleak", reader->name);
	return 0;
}

/* More of the file into the buffer, all of which was used. 0 at its end. */
static int refill(struct pl_recording_reader *reader)
{
	errno = 0;
	reader->input.size = fread(reader->input_bytes, 1, ZSTD_DStreamInSize(), reader->stream);
	reader->input.pos = 0;
	if (!reader->input.size && ferror(reader->stream))
		return errno ? -errno : -EIO;
	return reader->input.size > 0;
}

static int grow_piece(struct pl_recording_reader *reader)
{
	size_t size = 2 * reader->piece.size;
	char *grown;

	if (size < PIECE_FIRST_ROOM || size > RECORDING_PIECE_MAX)
		return -EBADMSG;
	grown = realloc(reader->piece_bytes, size);
	if (!grown)
		return -ENOMEM;
	reader->piece_bytes = grown;
	reader->piece.dst = grown;
	reader->piece.size = size;
	return 0;
}

/* The next piece, decompressed and checked. 1; 0: there is none; -EBADMSG: damaged; -ENODATA: cut. */
static int read_piece(struct pl_recording_reader *reader)
{
	bool begun = false;
	size_t left;

	reader->piece.pos = 0;
	do {
		if (reader->input.pos == reader->input.size) {
			int code = refill(reader);

			if (code < 0)
				return code;
			if (code == 0)
				return begun ? -ENODATA : 0;
		}
		if (reader->piece.pos == reader->piece.size) {
			int code = grow_piece(reader);

			if (code < 0)
				return code;
		}
		left = ZSTD_decompressStream(reader->decompressor, &reader->piece, &reader->input);
		if (ZSTD_isError(left))
			return ZSTD_getErrorCode(left) == ZSTD_error_memory_allocation ? -ENOMEM : -EBADMSG;
		begun = true;
	} while (left);
	return 1;
}

/* What is wrong with the file, for a person. */
static int explain(struct pl_recording_reader *reader, int code, struct pl_error *err)
{
	const char *name = reader->name;
	unsigned long long count = reader->snapshot_count;

	if (code == -EPROTONOSUPPORT)
		return pl_fail(err, -EBADMSG, "%s: of a later pyleak, which this one cannot read", name);
	if (code != -EBADMSG && code != -ENODATA)
		return pl_fail(err, code, "%s: %s", name, strerror(-code));
	if (!count)
		return pl_fail(err, -EBADMSG, "%s: %s before the first snapshot is whole", name,
			code == -ENODATA ? "cut" : "damaged");
	return pl_fail(err, -EBADMSG, "%s: %s after %llu whole snapshot%s", name, code == -ENODATA ? "cut" : "damaged", count,
		count == 1 ? "" : "s");
}

int pl_recording_reader_next(struct pl_recording_reader *reader, struct pl_error *err)
{
	int code;

	if (reader->ended)
		return 0;
	do {
		code = read_piece(reader);
		if (code != 1)
			break;
		/* An empty piece: others may put frames of their own in between, which are skipped. */
		code = reader->piece.pos ? recorded_apply(&reader->recorded, reader->piece.dst, reader->piece.pos) : 0;
	} while (code == 0);
	if (code == 1) {
		reader->snapshot_count++;
		return 1;
	}
	reader->ended = true;
	if (code == 0 && reader->snapshot_count)
		return 0;
	return explain(reader, code == 0 ? -ENODATA : code, err);
}

int pl_recording_reader_new(FILE *stream, const char *name, struct pl_sites *sites, struct pl_recording_reader **ret,
	struct pl_error *err)
{
	struct pl_recording_reader *reader = calloc(1, sizeof(*reader));
	int code = reader ? start(reader, stream, name, sites) : -ENOMEM;

	if (code < 0)
		(void)pl_fail(err, code, "out of memory");
	if (code == 0)
		code = check_title(reader, err);
	if (code == 0)
		code = pl_recording_reader_next(reader, err);
	if (code < 0) {
		pl_recording_reader_free(reader);
		return code;
	}
	*ret = reader;
	return 0;
}

const struct pl_facts *pl_recording_reader_facts(const struct pl_recording_reader *reader)
{
	return &reader->recorded.facts;
}

int64_t pl_recording_reader_time(const struct pl_recording_reader *reader)
{
	return (int64_t)reader->recorded.time_ns;
}

int64_t pl_recording_reader_stop(const struct pl_recording_reader *reader)
{
	return (int64_t)reader->recorded.stop_ns;
}

struct pl_snapshot *pl_recording_reader_snapshot(const struct pl_recording_reader *reader)
{
	const struct recorded *recorded = &reader->recorded;
	struct pl_snapshot *snapshot = pl_snapshot_take(recorded->sites);

	if (!snapshot)
		return NULL;
	/* In the sites there are no totals: several recordings may share them. */
	memset(snapshot->totals, 0, snapshot->count * sizeof(*snapshot->totals));
	for (size_t i = 0; i < recorded->site_count; i++) {
		struct pl_totals *sum = &snapshot->totals[recorded->site_map[i]];
		const struct pl_totals *totals = &recorded->totals[i];

		/* A good file names each site once; of another the sums may be anything. */
		sum->allocated_size += totals->allocated_size;
		sum->allocated_count += totals->allocated_count;
		sum->freed_size += totals->freed_size;
		sum->freed_count += totals->freed_count;
		sum->apart_size += totals->apart_size;
		sum->apart_count += totals->apart_count;
		sum->apart_allocated += totals->apart_allocated;
		sum->size_variance += totals->size_variance;
		sum->count_variance += totals->count_variance;
	}
	snapshot->taken_ns = recorded->facts.since_ns + (int64_t)recorded->time_ns;
	snapshot->rss = recorded->rss;
	snapshot->losses = recorded->losses;
	snapshot->account = recorded->account;
	return snapshot;
}

const char *pl_recording_reader_source(const struct pl_recording_reader *reader, const char *filename, int line)
{
	const struct recorded *recorded = &reader->recorded;
	const struct pl_frame place = {.filename = filename, .line = line};
	uint32_t number = pl_frame_number_find(&recorded->places, &place);

	return number == UINT32_MAX ? NULL : recorded->sources[number];
}

int pl_recording_reader_definition(
	const struct pl_recording_reader *reader, const char *filename, const char *function, int line)
{
	const struct recorded *recorded = &reader->recorded;
	const struct pl_frame frame = {.filename = filename, .function = function, .line = line};
	uint32_t number = pl_frame_number_find(&recorded->functions, &frame);

	return number == UINT32_MAX ? 0 : recorded->definitions[number];
}
