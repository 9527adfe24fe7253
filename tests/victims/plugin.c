/* SPDX-License-Identifier: MIT */
/* A library that comes and goes: see loader.c. */
#include <stdlib.h>
#include <string.h>

#include "victim.h"

VICTIM_API int plugin_work(int seed);

int plugin_work(int seed)
{
	unsigned char *block = malloc(100 + (size_t)seed % 3000), *grown;

	if (!block)
		return 1;
	memset(block, seed, 100);
	grown = realloc(block, 5000 + (size_t)seed % 3000);
	if (!grown) {
		free(block);
		return 1;
	}
	for (int i = 0; i < 100; i++)
		if (grown[i] != (unsigned char)seed)
			seed = -1;
	free(grown);
	return seed < 0;
}
