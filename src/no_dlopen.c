/* SPDX-License-Identifier: MIT */
#include <stddef.h>

/*
 * In the static program, in place of the C library's dlopen() (the linker's --wrap leads here): what is loaded into
 * it would be of another C library than its own. Whoever asks (libraries that have optional parts) is told that there
 * is none.
 */

void *__wrap_dlopen(const char *file, int mode); // NOLINT(bugprone-reserved-identifier): the linker's name

void *__wrap_dlopen(const char *file, int mode) // NOLINT(bugprone-reserved-identifier)
{
	(void)file;
	(void)mode;
	return NULL;
}
