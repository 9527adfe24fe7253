/* SPDX-License-Identifier: MIT */
#include "pyleak/text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

size_t pl_text_character(const char *text, uint32_t *ret_character)
{
	const unsigned char *bytes = (const unsigned char *)text;
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	uint32_t character;
	size_t length;

	if (bytes[0] < 0x80) {
		*ret_character = bytes[0];
		return 1;
	}
	if ((bytes[0] & 0xe0) == 0xc0)
		length = 2;
	else if ((bytes[0] & 0xf0) == 0xe0)
		length = 3;
	else if ((bytes[0] & 0xf8) == 0xf0)
		length = 4;
	else
		return 0;
	character = bytes[0] & (0x7fU >> length);
	for (size_t i = 1; i < length; i++) {
		if ((bytes[i] & 0xc0) != 0x80)
			return 0; /* the NUL at the end is no continuation either */
		character = character << 6 | (bytes[i] & 0x3f);
	}
	if (character < least[length] || character > 0x10ffff || (character >= 0xd800 && character <= 0xdfff))
		return 0;
	*ret_character = character;
	return length;
}

char *pl_text_repair(const char *text)
{
	static const char replacement[] = "\xef\xbf\xbd";
	const size_t replacement_length = sizeof(replacement) - 1;
	char *repaired = malloc(replacement_length * strlen(text) + 1);
	char *to = repaired;

	if (!repaired)
		return NULL;
	while (*text) {
		uint32_t character;
		size_t length = pl_text_character(text, &character);

		memcpy(to, length ? text : replacement, length ? length : replacement_length);
		to += length ? length : replacement_length;
		text += length ? length : 1;
	}
	*to = '\0';
	return repaired;
}

/* C0, DEL, C1; marks, embeddings, overrides and isolates of writing direction; line separators. */
static bool is_active(uint32_t character)
{
	return character < 0x20 || (character >= 0x7f && character < 0xa0) || character == 0x61c ||
	       character == 0x200e || character == 0x200f || (character >= 0x2028 && character <= 0x202e) ||
	       (character >= 0x2066 && character <= 0x2069);
}

void pl_text_print(FILE *out, const char *text)
{
	while (*text) {
		uint32_t character;
		size_t length = pl_text_character(text, &character);

		if (!length)
			(void)fprintf(out, "\\x%02x", (unsigned char)*text);
		else if (character == '\t')
			(void)fputc(' ', out);
		else if (is_active(character))
			(void)fprintf(out, character < 0x100 ? "\\x%02x" : "\\u%04x", character);
		else
			(void)fwrite(text, 1, length, out);
		text += length ? length : 1;
	}
}

char *pl_printable(const char *text)
{
	char *printable = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&printable, &length);

	if (!out)
		return NULL;
	pl_text_print(out, text);
	if (fclose(out) == 0)
		return printable;
	free(printable);
	return NULL;
}

void pl_text_blank(char *text, size_t length)
{
	char *end = text + length;

	while (text < end) {
		uint32_t character;
		size_t bytes = pl_text_character(text, &character);

		if (bytes && bytes <= (size_t)(end - text) && !is_active(character)) {
			text += bytes;
			continue;
		}
		/* A character that is cut at the end, too. */
		if (!bytes || bytes > (size_t)(end - text))
			bytes = 1;
		memset(text, '?', bytes);
		text += bytes;
	}
}
