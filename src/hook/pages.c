/* SPDX-License-Identifier: MIT */
#include "pages.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "pyleak/page.h"
#include "pyleak/process.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

uint64_t pl_pages_data_offset(const struct pl_probe_plan *plan)
{
	uint64_t words = plan->word_capacity * sizeof(struct pl_probe_hook);

	return plan->code_size + pl_page_max_end(words);
}

static int unmap(struct carrier *carrier, uint64_t address, uint64_t size)
{
	return carrier_call(carrier, SYS_munmap, (const uint64_t[6]){address, size, 0, 0, 0, 0}, NULL);
}

static int advise(struct carrier *carrier, uint64_t address, uint64_t size, int advice)
{
	return carrier_call(carrier, SYS_madvise, (const uint64_t[6]){address, size, (uint64_t)advice, 0, 0, 0}, NULL);
}

static int map_at(struct carrier *carrier, uint64_t address, uint64_t size, int protection, int flags)
{
	int64_t got;
	int code = carrier_call(carrier, SYS_mmap,
		(const uint64_t[6]){address, size, (uint64_t)protection,
			(uint64_t)(MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | flags), (uint64_t)-1, 0},
		&got);

	if (code < 0 || (uint64_t)got == address)
		return code;
	/* A kernel before 4.17 takes the address as a hint. */
	(void)unmap(carrier, (uint64_t)got, size);
	return -EEXIST;
}

/* The limit of what may be locked counts a mapping that is locked whole, and one without access is not brought in:
 * mm/mmap.c, mm/mlock.c. mremap() keeps what munlock() has made of it, where mmap() would lock anew. What is to be executable
 * is so from the first, as one page: PR_SET_MDWE denies it later (include/linux/mman.h, map_deny_write_exec()). */
static int map_unlocked(struct carrier *carrier, uint64_t address, uint64_t size, int protection, int flags)
{
	const uint64_t page = pl_page_size();
	const int first = protection & PROT_EXEC ? protection : PROT_NONE;
	int code = map_at(carrier, address, page, first, flags);

	if (code < 0)
		return code;
	code = carrier_call(carrier, SYS_munlock, (const uint64_t[6]){address, page, 0, 0, 0, 0}, NULL);
	if (code == 0)
		code = carrier_call(carrier, SYS_mremap, (const uint64_t[6]){address, page, size, 0, 0, 0}, NULL);
	if (code < 0) {
		/* -ENOMEM also says that somebody has mapped behind that page: what is there is not ours to unmap. */
		(void)unmap(carrier, address, page);
		return code == -ENOMEM ? -EEXIST : code;
	}
	return first == protection ?
		       0 : carrier_call(carrier, SYS_mprotect, (const uint64_t[6]){address, size, (uint64_t)protection, 0, 0, 0}, NULL);
}

/* So that little time goes by between what is looked at next and the call that follows from it. */
static int hold_anew(struct carrier *carrier)
{
	int code = carrier_rest(carrier);

	if (code == 0)
		code = carrier_hold(carrier, NULL);
	/* What -EAGAIN says of a call is another thing. */
	return code == -EAGAIN ? -ETIMEDOUT : code;
}

/* Before Linux 4.14 there is no WIPEONFORK: a child stays armed. Its breakpoints then only cost it a
 * signal each; the inline engine is not planted there. */
static int map_tables(struct carrier *carrier, struct pl_probe *probe, const struct pl_probe_plan *plan)
{
	int code = hold_anew(carrier);

	if (code < 0) {
		probe->tables = 0;
		return code;
	}
	/* With the code in place, a process that locks what it maps has locked something. */
	code = (pl_process_locked(carrier->pid) ? map_unlocked : map_at)(
		carrier, probe->tables, plan->tables_size, PROT_READ | PROT_WRITE, MAP_NORESERVE);
	if (code == -EEXIST)
		probe->tables = 0;
	if (code < 0)
		return code;
	code = advise(carrier, probe->tables, plan->tables_size, MADV_NOHUGEPAGE);
	/* A kernel without huge pages does not know the advice, and needs none. */
	if (code == 0 || code == -EINVAL)
		code = advise(carrier, probe->tables, plan->tables_size - plan->tables_kept, MADV_WIPEONFORK);
	return code == 0 ? advise(carrier, probe->tables, plan->tables_size, MADV_DONTDUMP) : code;
}

/* Where somebody else has mapped since we looked, nothing is ours to unmap when the failure is undone. */
int pl_pages_map(struct carrier *carrier, struct pl_probe *probe, const struct pl_probe_plan *plan)
{
	uint64_t base = probe->base, data = base + pl_pages_data_offset(plan);
	int code = hold_anew(carrier);

	bool unlocked;

	if (code < 0) {
		probe->mapped_size = probe->tables = 0;
		return code;
	}
	/* Locked whole, it could leave too little of the limit for the landing page. Who has locked nothing yet may do so from
	 * now on: that shows only when we map. */
	unlocked = pl_process_locked(carrier->pid);
	/* All of it executable and unwritable first, then the data over its end: never both. */
	code = (unlocked ? map_unlocked : map_at)(
		carrier, base, pl_pages_data_offset(plan) + plan->data_size, PROT_READ | PROT_EXEC, 0);
	if (code == -EAGAIN && !unlocked) {
		unlocked = true;
		code = map_unlocked(carrier, base, pl_pages_data_offset(plan) + plan->data_size, PROT_READ | PROT_EXEC, 0);
	}
	if (code == -EEXIST)
		probe->mapped_size = probe->tables = 0;
	if (code < 0)
		return code;
	if (plan->data_size) {
		/* Mapped anew it would be locked anew. */
		if (unlocked)
			code = carrier_call(carrier, SYS_mprotect,
				(const uint64_t[6]){data, plan->data_size, PROT_READ | PROT_WRITE, 0, 0, 0}, NULL);
		else
			code = carrier_call(carrier, SYS_mmap,
				(const uint64_t[6]){data, plan->data_size, PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, (uint64_t)-1, 0},
				NULL);
		if (code < 0)
			return code;
		(void)advise(carrier, data, plan->data_size, MADV_WIPEONFORK);
	}
	return plan->tables_size ? map_tables(carrier, probe, plan) : 0;
}
