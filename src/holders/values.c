/* SPDX-License-Identifier: MIT */
#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>

#include "names.h"
#include "pyleak/cleanup.h"

/* Values of Python's, as text. */

enum { SHOWN_MAX = 32, ITEMS_SHOWN = 3, DEPTH_MAX = 2, DICT_MAX = 1 << 16, NAME_BYTES = 256, TEXT_HEAD = 72 };

bool text_at(struct view *view, uint64_t address, char *text, size_t max)
{
	const struct pl_python_layout *layout = &view->python->layout;
	const uint8_t *object = image_at(view->image, address, TEXT_HEAD), *data;
	const struct type *type = object ? type_at(view, word_of(object, (uint64_t)layout->object_type)) : NULL;
	bool wide = layout->string_state_wide, compact, ascii;
	uint64_t length, width, from;
	uint32_t state;
	char *utf8;

	if (!type || type->kind != KIND_TEXT)
		return false;
	length = word_of(object, (uint64_t)layout->string_length);
	state = half_of(object, (uint64_t)layout->string_state);
	compact = state >> (wide ? 11 : 5) & 1;
	ascii = state >> (wide ? 12 : 6) & 1;
	width = state >> (wide ? 8 : 2) & 7;
	if (length > max)
		length = max;
	from = !compact ? word_of(object, (uint64_t)layout->string_data_pointer) :
		address + (uint64_t)(ascii ? layout->string_ascii_data : layout->string_compact_data);
	data = width == 1 || width == 2 || width == 4 ? image_at(view->image, from, length * width) : NULL;
	if (!data || pl_python_text(data, (unsigned int)width, length, max - 1, &utf8) < 0)
		return false;
	memcpy(text, utf8, strlen(utf8) + 1);
	free(utf8);
	return true;
}

static void print_text(FILE *out, const char *text)
{
	size_t length = strlen(text), shown = 0;

	(void)fputc('\'', out);
	for (; shown < length; shown++) {
		/* Whole characters only. */
		if (shown >= SHOWN_MAX && ((unsigned char)text[shown] & 0xc0) != 0x80)
			break;
		if (iscntrl((unsigned char)text[shown]) || text[shown] == '\'' || text[shown] == '\\')
			(void)fprintf(out, "\\x%02x", (unsigned char)text[shown]);
		else
			(void)fputc(text[shown], out);
	}
	(void)fputs(shown < length ? "…'" : "'", out);
}

static void print_int(FILE *out, const struct view *view, const uint8_t *object)
{
	uint64_t head = (uint64_t)view->layout.head, digits, value = 0;
	int64_t size = items_of(view, object);
	bool negative = view->python->minor >= 12 ? (size & 3) == 2 : size < 0;

	digits = view->python->minor >= 12 ? (uint64_t)size >> 3 : (uint64_t)(size < 0 ? -size : size);
	if (digits > 2) {
		(void)fprintf(out, "<int of %" PRIu64 " bits>", digits < 1 << 20 ? digits * 30 : 0);
		return;
	}
	for (uint64_t i = digits; i-- > 0;)
		value = value << 30 | half_of(object, head + 8 + i * 4);
	(void)fprintf(out, "%s%" PRIu64, negative ? "-" : "", value);
}

static void print_items(FILE *out, struct view *view, uint64_t items, uint64_t count, int depth)
{
	for (uint64_t i = 0; i < count && i < ITEMS_SHOWN; i++) {
		(void)fputs(i ? ", " : "", out);
		print_value(out, view, image_word(view->image, items + i * 8), depth + 1);
	}
	(void)fputs(count > ITEMS_SHOWN ? ", …" : count == 1 ? "," : "", out);
}

void print_value(FILE *out, struct view *view, uint64_t address, int depth)
{
	uint32_t number = image_object(view->image, address);
	const struct type *type = number != NO_OBJECT ? type_of(view, number) : NULL;
	const uint8_t *object = number != NO_OBJECT ? image_at(view->image, address, 32) : NULL;
	char text[NAME_BYTES];

	if (!type || !object) {
		(void)fputs("?", out);
	} else if (type->kind == KIND_TEXT && text_at(view, address, text, sizeof(text))) {
		print_text(out, text);
	} else if (type->kind == KIND_INT && strcmp(type->name, "int") == 0) {
		print_int(out, view, object);
	} else if (type->kind == KIND_TUPLE && depth < DEPTH_MAX) {
		(void)fputc('(', out);
		print_items(out, view, address + (uint64_t)view->layout.tuple_items, (uint64_t)items_of(view, object), depth);
		(void)fputc(')', out);
	} else if (strcmp(type->name, "NoneType") == 0) {
		(void)fputs("None", out);
	} else {
		pl_autofree char *name = name_of_type(view, type);

		(void)fprintf(out, "<%s>", name ? name : "?");
	}
}

uint64_t dict_get(struct view *view, uint64_t dict, const char *key)
{
	const uint8_t *object = image_at(view->image, dict, (uint64_t)view->layout.head + 32), *entries;
	uint64_t values = object ? word_of(object, (uint64_t)view->layout.head + 24) : 0;
	struct keys keys;
	char text[NAME_BYTES];

	if (!object || !keys_of_dict(view, object, &keys))
		return 0;
	entries = image_at(view->image, keys.entries, keys.count * keys.stride);
	for (uint64_t i = 0; entries && i < keys.count && i < DICT_MAX; i++) {
		if (!text_at(view, word_of(entries, i * keys.stride + keys.key), text, sizeof(text)) || strcmp(text, key) != 0)
			continue;
		return values ? image_word(view->image, values + (uint64_t)view->layout.values_head + i * 8) :
			word_of(entries, i * keys.stride + keys.value);
	}
	return 0;
}

char *name_of_type(struct view *view, const struct type *type)
{
	const uint64_t moved = (uint64_t)view->layout.head - 16;
	char module[NAME_BYTES], name[NAME_BYTES];
	char *text;

	if (!(type->flags & FLAG_HEAP_TYPE) || strchr(type->name, '.') ||
		!text_at(view, dict_get(view, image_word(view->image, type->address + 264 + moved), "__module__"), module,
			sizeof(module)) || strcmp(module, "builtins") == 0)
		return strdup(type->name);
	/* ht_qualname comes right before ht_cached_keys. */
	if (!text_at(view, image_word(view->image, type->address + (uint64_t)view->layout.type_cached_keys - 8), name, sizeof(name)))
		(void)snprintf(name, sizeof(name), "%s", type->name);
	return asprintf(&text, "%s.%s", module, name) < 0 ? NULL : text;
}

const char *library_at(struct view *view, uint64_t address)
{
	const struct image_piece *piece = image_find(view->image, address);
	const char *name;

	if (piece && !piece->file && piece > view->image->pieces && address < piece->static_end)
		piece--;
	if (!piece || !piece->path || !piece->file)
		return "";
	name = strrchr(piece->path, '/');
	return name ? name + 1 : piece->path;
}
