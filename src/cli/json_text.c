/* SPDX-License-Identifier: MIT */
#include "json_text.h"

#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"

json_t *pl_json_text(const char *text)
{
	json_t *string = json_string(text);
	size_t length = strlen(text), used = 0;
	pl_autofree char *repaired = NULL;

	if (string)
		return string;
	repaired = malloc(3 * length + 1);
	for (size_t i = 0; repaired && i < length;) {
		json_t *character = NULL;
		size_t size = 1;

		/* jansson knows what UTF-8 is: ask it for each length that a character can have. */
		for (; size <= 4 && i + size <= length && !character; size++)
			character = json_stringn(text + i, size);
		if (character) {
			memcpy(repaired + used, text + i, --size);
			used += size;
			i += size;
			json_decref(character);
		} else {
			memcpy(repaired + used, "\xef\xbf\xbd", 3);
			used += 3;
			i++;
		}
	}
	return repaired ? json_stringn(repaired, used) : NULL;
}
