/* SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "recording_private.h"

/* A number of one byte becomes one of eight; arrays grow to powers of two on the way. */
enum { MEMORY_PER_BYTE = 24, MEMORY_BESIDES = 1 << 16 };

static void *take(void *data, size_t size)
{
	size_t *left = data;

	if (size > *left)
		return NULL;
	*left -= size;
	return malloc(size);
}

static void give_back(void *data, void *pointer)
{
	(void)data;
	free(pointer);
}

Pyleak__Recording *recording_unpack(const void *bytes, size_t size)
{
	size_t left = MEMORY_PER_BYTE * size + MEMORY_BESIDES;
	ProtobufCAllocator allocator = {.alloc = take, .free = give_back, .allocator_data = &left};

	return pyleak__recording__unpack(&allocator, size, bytes);
}

void recording_free(Pyleak__Recording *message)
{
	size_t left = 0;
	ProtobufCAllocator allocator = {.alloc = take, .free = give_back, .allocator_data = &left};

	pyleak__recording__free_unpacked(message, &allocator);
}
