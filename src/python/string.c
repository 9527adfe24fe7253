/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "pyleak/cleanup.h"
#include "pyleak/space.h"
#include "python_private.h"

enum {
	TYPE_FLAG_STRING = 1 << 28, /* Py_TPFLAGS_UNICODE_SUBCLASS: str itself has it too */
	REPLACEMENT = 0xfffd,
	UTF8_MAX = 4,
	STRING_MAX = 1 << 24,
};

struct string_state {
	unsigned int kind; /* bytes a character: 1, 2, 4 */
	bool compact, ascii;
};

static struct string_state parse_state(const struct pl_python *python, uint32_t state)
{
	if (python->layout.string_state_wide)
		return (struct string_state){ state >> 8 & 7, state >> 11 & 1, state >> 12 & 1 };
	return (struct string_state){ state >> 2 & 7, state >> 5 & 1, state >> 6 & 1 };
}

static bool is_string(const struct pl_python *python, uint64_t object)
{
	uint64_t type, flags;

	return pl_space_read_u64(python->space, object + (uint64_t)python->layout.object_type, &type) == 0 &&
		pl_space_read_u64(python->space, type + (uint64_t)python->layout.type_flags, &flags) == 0 &&
		(flags & TYPE_FLAG_STRING);
}

static uint32_t character(const uint8_t *data, unsigned int kind, size_t index)
{
	uint16_t two;
	uint32_t four;

	switch (kind) {
	case 1:
		return data[index];
	case 2:
		memcpy(&two, data + 2 * index, sizeof(two));
		return two;
	default:
		memcpy(&four, data + 4 * index, sizeof(four));
		return four;
	}
}

static size_t encode(uint32_t c, char utf8[UTF8_MAX])
{
	if (!c || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		c = REPLACEMENT;
	if (c < 0x80) {
		utf8[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		utf8[0] = (char)(0xc0 | c >> 6);
		utf8[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		utf8[0] = (char)(0xe0 | c >> 12);
		utf8[1] = (char)(0x80 | (c >> 6 & 0x3f));
		utf8[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	utf8[0] = (char)(0xf0 | c >> 18);
	utf8[1] = (char)(0x80 | (c >> 12 & 0x3f));
	utf8[2] = (char)(0x80 | (c >> 6 & 0x3f));
	utf8[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

int pl_python_text(const uint8_t *data, unsigned int kind, size_t length, size_t max_bytes, char **ret)
{
	size_t capacity = length * (kind == 1 ? 2 : kind == 2 ? 3 : UTF8_MAX), size = 0;
	char *text;

	if (capacity > max_bytes)
		capacity = max_bytes;
	text = malloc(capacity + 1);
	if (!text)
		return -ENOMEM;
	for (size_t i = 0; i < length; i++) {
		char utf8[UTF8_MAX];
		size_t bytes = encode(character(data, kind, i), utf8);

		if (size + bytes > capacity)
			break;
		memcpy(text + size, utf8, bytes);
		size += bytes;
	}
	text[size] = '\0';
	*ret = text;
	return 0;
}

int pl_python_string(const struct pl_python *python, uint64_t object, size_t max_bytes, char **ret)
{
	const struct pl_python_layout *layout = &python->layout;
	pl_autofree uint8_t *data = NULL;
	struct string_state state;
	uint64_t length, from;
	uint32_t state_bits;
	int r;

	struct pl_memory_piece header[] = {
		{ object + (uint64_t)layout->string_length, &length, sizeof(length) },
		{ object + (uint64_t)layout->string_state, &state_bits, sizeof(state_bits) },
	};
	if (!is_string(python, object))
		return -EINVAL;
	r = pl_space_read_pieces(python->space, header, sizeof(header) / sizeof(header[0]));
	if (r < 0)
		return r;
	state = parse_state(python, state_bits);
	/* Kind 0 is a string of before 3.12 that has only its wchar_t form yet. */
	if ((state.kind != 1 && state.kind != 2 && state.kind != 4) || length > INT64_MAX)
		return -EINVAL;
	if (max_bytes > STRING_MAX)
		max_bytes = STRING_MAX;
	if (length > max_bytes)
		length = max_bytes;
	if (!state.compact) {
		r = pl_space_read_u64(python->space, object + (uint64_t)layout->string_data_pointer, &from);
		if (r < 0)
			return r;
	} else {
		from = object + (uint64_t)(state.ascii ? layout->string_ascii_data : layout->string_compact_data);
	}
	data = malloc(length * state.kind + 1);
	if (!data)
		return -ENOMEM;
	r = pl_space_read(python->space, from, data, length * state.kind);
	if (r < 0)
		return r;
	return pl_python_text(data, state.kind, length, max_bytes, ret);
}
