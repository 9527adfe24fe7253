/* SPDX-License-Identifier: MIT */
#include <sys/mman.h>
#include <sys/syscall.h>

#include "probe.h"
#include "pyleak/probe.h"

/*
 * Changes words of the process, in a thread that the tracer has sent here: see struct pl_probe_errand. All of its code
 * lies in one section, so that a thread can be told to be in it. The thread comes out of nowhere with its signals blocked,
 * and goes back by rt_sigreturn, which is where the address of return leads: with a tracer or without one.
 *
 * What can it run into?
 *  - An object is unloaded by another thread between the tracer's look and this. The word is read first, and a page that
 *    must be made writable is asked for by mprotect(), which says if it is gone. What is left are the instructions in
 *    between: then the fault is reported to the tracer, which takes the thread back. (Only if the tracer dies in the same
 *    microseconds would the fault be the program's own.)
 *  - The dynamic linker is about to make a page read-only: the same.
 */

#define ROUTINE __attribute__((section(".errand"), noinline))
#define HELPER static inline __attribute__((always_inline))

enum { TRIES = 1000 };

HELPER u64 page_bytes(const struct pl_probe_errand *errand)
{
	return errand->page_bytes ? errand->page_bytes : 4096;
}

HELPER void close_page(struct pl_probe_errand *errand)
{
	if (!errand->page)
		return;
	(void)system_call(SYS_mprotect, errand->page, page_bytes(errand), PROT_READ);
	errand->page = 0;
}

HELPER bool open_page(struct pl_probe_errand *errand, u64 page)
{
	if (errand->page == page)
		return true;
	close_page(errand);
	if (system_call(SYS_mprotect, page, page_bytes(errand), PROT_READ | PROT_WRITE))
		return false;
	errand->page = page;
	return true;
}

HELPER u32 swap(struct pl_probe_errand *errand, const struct pl_probe_errand_row *row)
{
	u64 *word = (u64 *)row->address, expected = row->expected;

	/* Of a page that is somebody else's by now the protection is not changed. */
	if (__atomic_load_n(word, __ATOMIC_RELAXED) != expected)
		return PL_PROBE_ERRAND_OTHER;
	if (row->kind == PL_PROBE_ERRAND_PROTECTED && !open_page(errand, row->address & ~(page_bytes(errand) - 1)))
		return PL_PROBE_ERRAND_DENIED;
	return __atomic_compare_exchange_n(word, &expected, row->desired, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)
		       ? PL_PROBE_ERRAND_DONE
		       : PL_PROBE_ERRAND_OTHER;
}

/*
 * The length of a free list. The interpreter's own changes are no atomic ones: one of them may undo this one (never the
 * other way round), and then the list is as it was, which is right for the interpreter. The tracer looks again.
 */
HELPER u32 change_length(const struct pl_probe_errand_row *row)
{
	const u64 bias = row->desired;

	for (u32 i = 0; i < TRIES; i++) {
		if (row->kind == PL_PROBE_ERRAND_RAISE_8 || row->kind == PL_PROBE_ERRAND_LOWER_8) {
			u64 *length = (u64 *)row->address, old = __atomic_load_n(length, __ATOMIC_RELAXED);
			const bool raise = row->kind == PL_PROBE_ERRAND_RAISE_8;

			if (raise ? old >= bias : old < bias || old >> 63)
				return PL_PROBE_ERRAND_OTHER;
			if (__atomic_compare_exchange_n(
				    length, &old, raise ? old + bias : old - bias, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
				return PL_PROBE_ERRAND_DONE;
		} else {
			u32 *length = (u32 *)row->address, old = __atomic_load_n(length, __ATOMIC_RELAXED);
			const bool raise = row->kind == PL_PROBE_ERRAND_RAISE_4;

			if (raise ? old >= bias : old < bias || old >> 31)
				return PL_PROBE_ERRAND_OTHER;
			if (__atomic_compare_exchange_n(length, &old, raise ? old + (u32)bias : old - (u32)bias, false,
				    __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
				return PL_PROBE_ERRAND_DONE;
		}
	}
	return PL_PROBE_ERRAND_OTHER;
}

ROUTINE void pl_errand(struct pl_probe_errand *errand);
ROUTINE void pl_errand(struct pl_probe_errand *errand)
{
	for (u32 i = errand->next; i < errand->count && i < PL_PROBE_ERRAND_ROWS; i++) {
		struct pl_probe_errand_row *row = &errand->rows[i];

		__atomic_store_n(&row->result, PL_PROBE_ERRAND_TRYING, __ATOMIC_RELAXED);
		row->result = row->kind <= PL_PROBE_ERRAND_PROTECTED ? swap(errand, row) : change_length(row);
	}
	close_page(errand);
	__atomic_store_n(&errand->state, PL_PROBE_ERRAND_IDLE, __ATOMIC_RELEASE);
	(void)system_call(SYS_madvise, PL_PROBE_ERRAND_END, 0, 0);
}
