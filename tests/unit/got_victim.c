/* SPDX-License-Identifier: MIT */
/* Calls malloc, never calls calloc, says where malloc really is, and stays until its stdin closes. For test_got.c. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void *(*volatile kept)(size_t size);
#ifdef TAKEN
/* Never called. */
void *(*in_data)(size_t size) = malloc;
#endif

#ifdef LARGE
/* So much that what was found in it is remembered. */
__asm__(".pushsection .text\n\t.fill 5 << 20, 1, 0\n\t.popsection");
#endif

#ifdef TABLE
/* Written all over, with the pointer at two places. */
enum { WORDS = 3 << 20, EARLY = 1 << 10, LATE = WORDS - (1 << 10) };
uintptr_t table[WORDS];

__attribute__((constructor)) static void fill(void)
{
	for (size_t i = 0; i < WORDS; i++)
		table[i] = i | 1;
	table[EARLY] = table[LATE] = (uintptr_t)dlsym(RTLD_DEFAULT, "malloc");
}
#endif

int main(int argc, char **argv)
{
	void *block = malloc(100);
	char byte;

	(void)argv;
#ifdef TAKEN
	kept = malloc;
#endif
	(void)printf("%p\n", argc > 2 ? calloc(1, 1) : dlsym(RTLD_DEFAULT, "malloc"));
	(void)fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		continue;
	free(block);
	return 0;
}
