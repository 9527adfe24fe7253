/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/census.h"
#include "types.h"

struct pl_block_types {
	struct pl_maps maps;
	struct types types;
};

int pl_block_types_open(const struct pl_python *python, struct pl_block_types **ret)
{
	struct pl_block_types *self = calloc(1, sizeof(*self));
	int code;

	if (!self)
		return -ENOMEM;
	code = pl_space_maps(python->space, &self->maps);
	if (code == 0)
		code = types_open(&self->types, python, &self->maps);
	if (code == 0)
		*ret = self;
	else
		pl_block_types_close(self);
	return code;
}

/* tb_next comes first, behind what all objects have (Include/cpython/traceback.h). */
enum { TRACEBACK_NEXT = 16, TRACEBACK_NEXT_FREE_THREADED = 32 };

static const struct type *type_of(struct pl_block_types *types, uint64_t address, uint64_t size, size_t *ret_offset)
{
	uint8_t bytes[BLOCK_LENGTH];
	struct block block = {.address = address, .size = size, .bytes = bytes};
	ssize_t got = pl_space_read_some(
		types->types.python->space, address, bytes, size < sizeof(bytes) ? size : sizeof(bytes));

	if (got <= 0)
		return NULL;
	block.length = (size_t)got;
	return types_of_block(&types->types, &block, ret_offset);
}

const char *pl_block_type(struct pl_block_types *types, uint64_t address, uint64_t size)
{
	size_t offset;
	const struct type *type = type_of(types, address, size, &offset);

	return type ? type->name : NULL;
}

unsigned int pl_block_chain(struct pl_block_types *types, uint64_t address, uint64_t size)
{
	const struct pl_python *python = types->types.python;
	size_t offset;
	const struct type *type = type_of(types, address, size, &offset);
	unsigned int length = 0;
	uint64_t at;

	if (!type || strcmp(type->name, "traceback") != 0)
		return 0;
	at = address + offset;
	while (at && ++length < PL_CHAIN_MAX)
		if (pl_space_read_u64(python->space,
			    at + (python->free_threaded ? TRACEBACK_NEXT_FREE_THREADED : TRACEBACK_NEXT), &at) < 0)
			break;
	return length;
}

void pl_block_types_close(struct pl_block_types *types)
{
	if (!types)
		return;
	types_close(&types->types);
	pl_maps_free(&types->maps);
	free(types);
}
