/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_PAGE_H
#define PYLEAK_PAGE_H

/*
 * Pages of memory, and how far addresses of programs go. Three sizes, which are the same on x86-64:
 *
 *   PL_PAGE         in which we count, copy and keep books: every kernel's pages are one or more of these
 *   pl_page_size()  the pages of this kernel, and so of every process that we look at: what mmap(), mprotect() and
 *                   /proc/PID/pagemap go by. A core file may be another kernel's: what reads those (core, elf, python, heap,
 *                   holders) does not ask for it
 *   PL_PAGE_MAX     the largest that a kernel for this processor may have: where what we map in a process changes its
 *                   protection or its advice, so that its layout is the same under all kernels. Given by meson.build, since
 *                   assembly needs it too
 */
#include <stdint.h>
#include <unistd.h>

/* The widest that any of our processors hands out unasked: 47 bits on x86-64, 48 on aarch64. */
enum { PL_PAGE = 4096, PL_ADDRESS_BITS = 48 };

static inline uint64_t pl_page_size(void)
{
	static uint64_t size; /* it is asked for with each page that is looked at */

	if (!size)
		size = (uint64_t)sysconf(_SC_PAGESIZE);
	return size;
}

static inline uint64_t pl_page_start(uint64_t address)
{
	return address & ~(uint64_t)(PL_PAGE - 1);
}

/* Up to a whole page: of a length too. */
static inline uint64_t pl_page_end(uint64_t address)
{
	return (address + PL_PAGE - 1) & ~(uint64_t)(PL_PAGE - 1);
}

/* The same of this kernel's pages, and of the largest. */
static inline uint64_t pl_kernel_page_start(uint64_t address)
{
	return address & ~(pl_page_size() - 1);
}

static inline uint64_t pl_page_max_end(uint64_t address)
{
	return (address + PL_PAGE_MAX - 1) & ~(uint64_t)(PL_PAGE_MAX - 1);
}

#endif
