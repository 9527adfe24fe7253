/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOOK_PAGES_H
#define PYLEAK_HOOK_PAGES_H

#include <stdint.h>

#include "carrier.h"

/* The pages of a probe: mapping them, by calls of a carrier. */

/* Where the data begin, from the base on: behind the code and the table of further hooks. */
uint64_t pl_pages_data_offset(const struct pl_probe_plan *plan);

/*
 * Maps the code, the data and the tables of a probe whose places are chosen. In a process that locks all that it maps
 * (mlockall(MCL_FUTURE)) the kernel would bring the tables into memory there and then, gigabytes of zeros: they are mapped
 * as one page without access, unlocked, and only then made as large as they are. So every prefix of it is something that
 * the next pyleak finds and unmaps, and at no instant is anything large locked. The tables take single pages where
 * transparent huge pages are "always", too: they are touched here and there.
 *
 * 0 or -errno: -EEXIST, somebody else has mapped there since we looked (then probe->mapped_size or probe->tables are 0:
 * nothing is ours to unmap); -EAGAIN: not even the code may be locked.
 */
int pl_pages_map(struct carrier *carrier, struct pl_probe *probe, const struct pl_probe_plan *plan);

#endif
