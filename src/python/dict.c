/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"
#include "pyleak/heap_layout.h"
#include "python_private.h"

/* PyDictKeysObject (Objects/dict-common.h, from 3.11 on Include/internal/pycore_dict.h), as in sizes.c of the holders. */
enum {
	DICT_KEYS = 32, /* PyDictObject.ma_keys with a GIL */
	OLD_HEAD = 40, OLD_SIZE = 8, OLD_COUNT = 32, OLD_ENTRY = 24, /* up to 3.10 */
	HEAD = 32, LOG_SIZE = 8, LOG_INDEX_BYTES = 9, KIND = 10, COUNT = 24, ENTRY = 16,
	LOG_MAX = 12,   /* more than a class has */
	ENTRIES_MAX = 1 << LOG_MAX,
	GROWTH = 16,    /* of an object's head without a GIL */
	TEXT_HEAD = 64, /* of the longest head of a str, and the shortest of one in ASCII is less */
	KEY_BYTES_MAX = 32,
};

struct table {
	uint64_t entries, count;
	size_t stride, key, value;
};

static bool read_table(const struct pl_python *python, uint64_t address, struct table *ret)
{
	uint8_t head[OLD_HEAD];
	uint64_t size;

	if (pl_space_read(python->space, address, head, sizeof(head)) < 0)
		return false;
	*ret = (struct table){.stride = OLD_ENTRY, .key = 8, .value = 16};
	if (python->minor <= 10) {
		memcpy(&size, head + OLD_SIZE, sizeof(size));
		memcpy(&ret->count, head + OLD_COUNT, sizeof(ret->count));
		if (!size || (size & (size - 1)) || size > ENTRIES_MAX)
			return false;
		ret->entries = address + OLD_HEAD + size * (size <= 0xff ? 1 : 2);
	} else {
		if (head[LOG_SIZE] > LOG_MAX || head[LOG_INDEX_BYTES] > LOG_MAX + 3 || head[KIND] > 2)
			return false;
		if (head[KIND])
			*ret = (struct table){.stride = ENTRY, .value = 8};
		memcpy(&ret->count, head + COUNT, sizeof(ret->count));
		size = UINT64_C(1) << head[LOG_SIZE];
		ret->entries = address + HEAD + (UINT64_C(1) << head[LOG_INDEX_BYTES]);
	}
	return ret->count <= size;
}

/* Whether a str is this one, which is in ASCII. */
static bool is_text(const struct pl_python *python, uint64_t object, const char *text, size_t length)
{
	uint8_t bytes[TEXT_HEAD + KEY_BYTES_MAX];
	const size_t data = (size_t)python->layout.string_ascii_data;
	uint64_t have;

	if (data > TEXT_HEAD || length > KEY_BYTES_MAX ||
		pl_space_read(python->space, object, bytes, data + length) < 0)
		return false;
	memcpy(&have, bytes + python->layout.string_length, sizeof(have));
	return have == length && memcmp(bytes + data, text, length) == 0;
}

int pl_python_dict_text(const struct pl_python *python, uint64_t dict, const char *key, size_t max_bytes, char **ret)
{
	const uint64_t keys_at = dict + DICT_KEYS + (python->free_threaded ? GROWTH : 0);
	struct table table;
	uint64_t keys;

	if (pl_space_read_u64(python->space, keys_at, &keys) < 0 || !read_table(python, keys, &table) || !table.count)
		return -ENOENT;

	pl_autofree uint8_t *entries = malloc(table.count * table.stride);

	if (!entries)
		return -ENOMEM;
	if (pl_space_read(python->space, table.entries, entries, table.count * table.stride) < 0)
		return -EFAULT;
	for (uint64_t i = 0; i < table.count; i++) {
		uint64_t name, value;

		memcpy(&name, entries + i * table.stride + table.key, sizeof(name));
		memcpy(&value, entries + i * table.stride + table.value, sizeof(value));
		if (name && value && is_text(python, name, key, strlen(key)))
			return pl_python_string(python, value, max_bytes, ret);
	}
	return -ENOENT;
}
