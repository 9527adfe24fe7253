/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "table.h"

enum { WORD_MAX = 16, FAR = 3 /* too many mistakes for one word to have been meant by another */ };

static size_t least(size_t a, size_t b, size_t c)
{
	size_t two = a < b ? a : b;

	return two < c ? two : c;
}

/* Letters that are missing, too many or others; two that changed places count as one. */
static size_t mistakes(const char *word, const char *meant)
{
	size_t cost[WORD_MAX + 1][WORD_MAX + 1], length = strlen(word), wanted = strlen(meant);

	if (length > WORD_MAX || wanted > WORD_MAX)
		return FAR;
	for (size_t i = 0; i <= length; i++)
		for (size_t j = 0; j <= wanted; j++) {
			if (!i || !j) {
				cost[i][j] = i + j;
				continue;
			}
			cost[i][j] = least(cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + (word[i - 1] != meant[j - 1]));
			if (i > 1 && j > 1 && word[i - 1] == meant[j - 2] && word[i - 2] == meant[j - 1] && cost[i - 2][j - 2] + 1 < cost[i][j])
				cost[i][j] = cost[i - 2][j - 2] + 1;
		}
	return cost[length][wanted];
}

const char *pl_command_suggest(const char *word)
{
	const char *best = NULL;
	size_t fewest = FAR, length = strlen(word);

	for (size_t i = 0; i < PL_COMMAND_COUNT; i++) {
		const char *name = pl_command_table[i].name;
		size_t count = length >= 3 && strncmp(word, name, length) == 0 ? 1 : mistakes(word, name);

		/* A short word is another word soon. */
		if (count < fewest && count <= strlen(name) / 2) {
			fewest = count;
			best = name;
		}
	}
	return best;
}
