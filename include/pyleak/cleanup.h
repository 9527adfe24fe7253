/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLEANUP_H
#define PYLEAK_CLEANUP_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Scope-bound release: `pl_autofree char *text = …;`, `pl_autoclose int fd = -1;`. */

static inline void pl_cleanup_free(void *pointer)
{
	free(*(void **)pointer);
}

static inline void pl_cleanup_close(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}

static inline void pl_cleanup_fclose(FILE **file)
{
	if (*file)
		(void)fclose(*file);
}

#define pl_autofree __attribute__((cleanup(pl_cleanup_free)))
#define pl_autoclose __attribute__((cleanup(pl_cleanup_close)))
#define pl_autofclose __attribute__((cleanup(pl_cleanup_fclose)))

/* Hands a pointer over and leaves NULL behind, so that its cleanup does nothing. */
#define PL_TAKE(pointer)                           \
	({                                         \
		__typeof__(pointer) taken_ = (pointer); \
		(pointer) = NULL;                  \
		taken_;                            \
	})

#endif
