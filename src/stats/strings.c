/* SPDX-License-Identifier: MIT */
#include "strings.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 256

static uint64_t hash_text(const char *text, size_t length)
{
	uint64_t hash = length;

	for (; length >= sizeof(uint64_t); text += sizeof(uint64_t), length -= sizeof(uint64_t)) {
		uint64_t word;

		memcpy(&word, text, sizeof(word));
		hash = pl_hash(hash, word);
	}
	for (; length; length--)
		hash = pl_hash(hash, (unsigned char)*text++);
	return hash;
}

static bool equal(const void *context, uint32_t item, const void *wanted)
{
	const struct strings *strings = context;

	return strcmp(strings->items[item], wanted) == 0;
}

static bool grow(struct strings *strings)
{
	size_t capacity = strings->capacity ? 2 * strings->capacity : FIRST_CAPACITY;
	const char **items = reallocarray(strings->items, capacity, sizeof(*items));

	if (!items)
		return false;
	strings->items = items;
	strings->capacity = capacity;
	return true;
}

const char *strings_intern(struct strings *strings, struct arena *arena, const char *text)
{
	size_t length = strlen(text);
	uint64_t hash = hash_text(text, length);
	uint32_t found = pl_index_find(&strings->index, hash, equal, strings, text);
	char *copy;

	if (found != UINT32_MAX)
		return strings->items[found];
	if (strings->count >= UINT32_MAX - 1 || (strings->count == strings->capacity && !grow(strings)))
		return NULL;
	copy = arena_take(arena, length + 1);
	if (!copy || !pl_index_add(&strings->index, hash, (uint32_t)strings->count))
		return NULL;
	memcpy(copy, text, length + 1);
	strings->items[strings->count++] = copy;
	return copy;
}

void strings_free(struct strings *strings)
{
	free(strings->items);
	pl_index_free(&strings->index);
	*strings = (struct strings){0};
}
