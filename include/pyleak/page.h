/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_PAGE_H
#define PYLEAK_PAGE_H

#include <stdint.h>

/* Pages of memory, of this processor and so of every process that we look at. */

enum { PL_PAGE = 4096 };

static inline uint64_t pl_page_start(uint64_t address)
{
	return address & ~(uint64_t)(PL_PAGE - 1);
}

/* Up to a whole page: of a length too. */
static inline uint64_t pl_page_end(uint64_t address)
{
	return (address + PL_PAGE - 1) & ~(uint64_t)(PL_PAGE - 1);
}

#endif
