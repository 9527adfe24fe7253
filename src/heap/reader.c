/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "heap_private.h"

int pl_heap_open(const struct pl_python *python, struct pl_heap_reader **ret)
{
	struct pl_heap_reader *reader = calloc(1, sizeof(*reader));
	struct pl_maps maps = {0};
	int code;

	if (!reader)
		return -ENOMEM;
	reader->python = python;
	/* Whether that can be had, before anything else. */
	code = pl_space_pages(python->space, (struct pl_range){0, 0}, NULL);
	if (code == 0)
		code = pl_space_maps(python->space, &maps);
	if (code == 0)
		arenas_find(reader, &maps);
	pl_maps_free(&maps);
	if (code < 0) {
		free(reader);
		return code;
	}
	*ret = reader;
	return 0;
}

void pl_heap_close(struct pl_heap_reader *reader)
{
	free(reader);
}
