/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "inline_read.h"
#include "pyleak/cleanup.h"

/* Code objects, and the lines that frames are at. */

struct inline_code {
	const char *filename, *function; /* interned */
	int first_line;
	uint8_t *lines;
	size_t lines_size;
	uint64_t text_size; /* of all, in the arena */
};

/* What a word of frames was resolved to: most of a traceback is that of the one before. */
struct inline_frame {
	uint64_t word; /* 0: none */
	struct pl_frame frame;
};
enum { FRAMES_KEPT = 1 << 13 };

int inline_frames_init(struct pl_inline_reader *reader)
{
	reader->codes = calloc(reader->config.code_limit, sizeof(struct inline_code *));
	reader->kept = calloc(FRAMES_KEPT, sizeof(*reader->kept));
	return reader->codes && reader->kept ? 0 : -ENOMEM;
}

void inline_frames_free(struct pl_inline_reader *reader)
{
	for (uint64_t i = 0; reader->codes && i < reader->config.code_limit; i++)
		pl_inline_reader_forget_code(reader, (uint32_t)i);
	free(PL_TAKE(reader->codes));
	free(PL_TAKE(reader->kept));
}

void pl_inline_reader_forget_code(struct pl_inline_reader *reader, uint32_t number)
{
	struct inline_code *entry = reader->codes[number];

	if (!entry)
		return;
	reader->texts_read -= entry->text_size;
	free(entry->lines);
	free(PL_TAKE(reader->codes[number]));
}

void inline_frames_renew(struct pl_inline_reader *reader)
{
	/* Another tracer has freed some: which, nobody says. */
	for (uint64_t i = 0; reader->control.reused != reader->reused && i < reader->config.code_limit; i++)
		pl_inline_reader_forget_code(reader, (uint32_t)i);
	reader->reused = reader->control.reused;
	memset(reader->kept, 0, FRAMES_KEPT * sizeof(*reader->kept));
}

static const char *intern_text(struct pl_inline_reader *reader, const uint8_t *bytes, size_t size, unsigned int kind)
{
	pl_autofree char *text = NULL;

	if ((kind != 1 && kind != 2 && kind != 4) || size < kind)
		return pl_sites_string(reader->sites, "<unknown>");
	return pl_python_text(bytes, kind, size / kind, SIZE_MAX, &text) < 0 ? NULL : pl_sites_string(reader->sites, text);
}

/* 0; -EAGAIN: the row is not ready yet. */
static int read_code(struct pl_inline_reader *reader, uint32_t number, struct inline_code **ret)
{
	const struct pl_inline_config *config = &reader->config;
	const uint64_t address = config->codes + number * sizeof(struct pl_inline_code);
	struct pl_inline_code row;
	int code = reader->read(reader->context, address, &row, sizeof(row));

	/* The hash is stored last (probe/inline/code.c, with RELEASE), but a copy may load it first. */
	if (code == 0 && row.hash) {
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		code = reader->read(reader->context, address, &row, sizeof(row));
	}
	if (code < 0)
		return code;

	uint64_t size = (uint64_t)row.filename_bytes + row.name_bytes + row.lines_bytes;

	if (!row.hash)
		return -EAGAIN;
	if (row.filename_bytes > PL_INLINE_FILENAME_MAX || row.name_bytes > PL_INLINE_NAME_MAX ||
		row.lines_bytes > PL_INLINE_LINES_MAX || row.filename_kind > 4 || row.name_kind > 4 ||
		row.data > config->arena_size || size > config->arena_size - row.data ||
		size > config->arena_size - reader->texts_read)
		return -EPROTO;

	pl_autofree uint8_t *bytes = malloc(size + 1);
	struct inline_code *entry = calloc(1, sizeof(*entry));

	if (!bytes || !entry) {
		free(entry);
		return -ENOMEM;
	}
	code = size ? reader->read(reader->context, config->arena + row.data, bytes, size) : 0;
	if (code < 0)
		goto fail;
	entry->filename = intern_text(reader, bytes, row.filename_bytes, row.filename_kind);
	entry->function = intern_text(reader, bytes + row.filename_bytes, row.name_bytes, row.name_kind);
	entry->first_line = row.first_line;
	entry->lines_size = row.lines_bytes;
	entry->lines = malloc(entry->lines_size + 1);
	code = -ENOMEM;
	if (!entry->filename || !entry->function || !entry->lines)
		goto fail;
	memcpy(entry->lines, bytes + row.filename_bytes + row.name_bytes, entry->lines_size);
	reader->texts_read += size;
	entry->text_size = size;
	*ret = entry;
	return 0;
fail:
	free(entry->lines);
	free(entry);
	return code;
}

static struct inline_frame *kept_frame(struct pl_inline_reader *reader, uint64_t word)
{
	return &reader->kept[word * UINT64_C(0x9e3779b97f4a7c15) >> 32 & (FRAMES_KEPT - 1)];
}

int inline_frames_resolve(struct pl_inline_reader *reader, uint64_t word, struct pl_frame *ret)
{
	struct inline_frame *kept = kept_frame(reader, word);
	uint32_t number = pl_inline_frame_code(word);

	if (word && kept->word == word) {
		*ret = kept->frame;
		return 0;
	}

	if (number < PL_INLINE_CODE_FIRST || number >= reader->config.code_limit) {
		ret->filename = ret->function = pl_sites_string(reader->sites, "<unknown>");
		ret->line = 0;
		return ret->filename ? 0 : -ENOMEM;
	}
	if (!reader->codes[number]) {
		int code = read_code(reader, number, &reader->codes[number]);

		if (code < 0)
			return code;
	}

	const struct inline_code *entry = reader->codes[number];

	ret->filename = entry->filename;
	ret->function = entry->function;
	ret->line = pl_line_lookup(reader->minor, entry->lines, entry->lines_size, entry->first_line,
		pl_inline_frame_offset(word));
	*kept = (struct inline_frame){word, *ret};
	return 0;
}
