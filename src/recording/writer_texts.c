/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "writer_private.h"

uint32_t writer_add_text(struct pl_recording_writer *writer, struct piece *piece, const char *text)
{
	(void)fprintf(piece->text_stream, "%.*s", RECORDING_TEXT_MAX - 1, text);
	(void)fputc('\0', piece->text_stream);
	return writer->text_count++;
}

int writer_text(struct pl_recording_writer *writer, struct piece *piece, const char *text, uint32_t *ret)
{
	struct pl_table_entry *entry = pl_table_insert(&writer->texts, (uint64_t)(uintptr_t)text);

	if (!entry)
		return -ENOMEM;
	if (!entry->value[0])
		entry->value[0] = (uint64_t)writer_add_text(writer, piece, text) + 1;
	*ret = (uint32_t)entry->value[0] - 1;
	return 0;
}

uint32_t writer_frame(struct piece *piece, uint32_t number)
{
	if (piece->frame_end <= number)
		piece->frame_end = (size_t)number + 1;
	return number;
}
