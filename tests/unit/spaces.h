/* SPDX-License-Identifier: MIT */
#ifndef SPACES_H
#define SPACES_H

#include <stdlib.h>

#include "pyleak/space.h"

/* The space of a process, which lasts as long as the test does. */
static inline struct pl_space *space_of(pid_t pid)
{
	static struct pl_space *spaces[64];
	size_t i = 0;

	while (i < sizeof(spaces) / sizeof(spaces[0]) && spaces[i] && spaces[i]->pid != pid)
		i++;
	if (i == sizeof(spaces) / sizeof(spaces[0]) || (!spaces[i] && pl_space_of_process(pid, &spaces[i]) < 0))
		abort();
	return spaces[i];
}

#endif
