/* SPDX-License-Identifier: MIT */
#include "strings.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 256

struct strings_entry {
	const char *text; /* NULL: free */
	uint64_t hash;
};

static uint64_t hash_text(const char *text, size_t length)
{
	uint64_t hash = length;

	for (; length >= sizeof(uint64_t); text += sizeof(uint64_t), length -= sizeof(uint64_t)) {
		uint64_t word;

		memcpy(&word, text, sizeof(word));
		hash = hash_mix(hash, word);
	}
	for (; length; length--)
		hash = hash_mix(hash, (unsigned char)*text++);
	return hash;
}

static struct strings_entry *find(const struct strings *strings, uint64_t hash, const char *text)
{
	size_t i = hash & strings->mask;

	while (strings->entries[i].text &&
		(strings->entries[i].hash != hash || strcmp(strings->entries[i].text, text) != 0))
		i = (i + 1) & strings->mask;
	return &strings->entries[i];
}

static bool grow(struct strings *strings)
{
	size_t capacity = strings->entries ? 2 * (strings->mask + 1) : FIRST_CAPACITY;
	struct strings larger = {
		.entries = calloc(capacity, sizeof(*larger.entries)),
		.count = strings->count,
		.mask = capacity - 1,
	};

	if (!larger.entries)
		return false;
	for (size_t i = 0; strings->entries && i <= strings->mask; i++)
		if (strings->entries[i].text)
			*find(&larger, strings->entries[i].hash, strings->entries[i].text) = strings->entries[i];
	free(strings->entries);
	*strings = larger;
	return true;
}

const char *strings_intern(struct strings *strings, struct arena *arena, const char *text)
{
	size_t length = strlen(text);
	uint64_t hash = hash_text(text, length);
	struct strings_entry *entry;
	char *copy;

	if (strings->entries) {
		entry = find(strings, hash, text);
		if (entry->text)
			return entry->text;
	}
	if ((!strings->entries || 3 * (strings->count + 1) > 2 * (strings->mask + 1)) && !grow(strings))
		return NULL;
	copy = arena_take(arena, length + 1);
	if (!copy)
		return NULL;
	memcpy(copy, text, length + 1);
	*find(strings, hash, text) = (struct strings_entry){copy, hash};
	strings->count++;
	return copy;
}

void strings_free(struct strings *strings)
{
	free(strings->entries);
	*strings = (struct strings){0};
}
