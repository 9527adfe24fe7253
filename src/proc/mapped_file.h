/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_PROC_MAPPED_FILE_H
#define PYLEAK_PROC_MAPPED_FILE_H

#include "pyleak/maps.h"

/* See pl_space_open_mapped(). */
int mapped_file_open(pid_t pid, const struct pl_maps *maps, const struct pl_map *map);

#endif
