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

int pl_pages_call(struct pl_remote *remote, long number, const uint64_t arguments[6], int64_t *ret_result)
{
	int64_t result;
	int code = pl_remote_call(remote, number, arguments, &result);

	if (code < 0)
		return code;
	if (result < 0 && result > -4096)
		return (int)result;
	if (ret_result)
		*ret_result = result;
	return 0;
}

static int unmap(struct pl_remote *remote, uint64_t address, uint64_t size)
{
	return pl_pages_call(remote, SYS_munmap, (const uint64_t[6]){address, size, 0, 0, 0, 0}, NULL);
}

static int advise(struct pl_remote *remote, uint64_t address, uint64_t size, int advice)
{
	return pl_pages_call(remote, SYS_madvise, (const uint64_t[6]){address, size, (uint64_t)advice, 0, 0, 0}, NULL);
}

static int map_at(struct pl_remote *remote, uint64_t address, uint64_t size, int protection, int flags)
{
	int64_t got;
	int code = pl_pages_call(remote, SYS_mmap,
		(const uint64_t[6]){address, size, (uint64_t)protection,
			(uint64_t)(MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | flags), (uint64_t)-1, 0},
		&got);

	if (code < 0 || (uint64_t)got == address)
		return code;
	/* A kernel before 4.17 takes the address as a hint. */
	(void)unmap(remote, (uint64_t)got, size);
	return -EEXIST;
}

/* The limit of what may be locked counts a mapping that is locked whole, and one without access is not brought in:
 * mm/mmap.c, mm/mlock.c. mremap() keeps what munlock() has made of it, where mmap() would lock anew. */
static int map_unlocked(struct pl_remote *remote, uint64_t address, uint64_t size, int protection, int flags)
{
	const uint64_t page = pl_page_size();
	int code = map_at(remote, address, page, PROT_NONE, flags);

	if (code < 0)
		return code;
	code = pl_pages_call(remote, SYS_munlock, (const uint64_t[6]){address, page, 0, 0, 0, 0}, NULL);
	if (code == 0)
		code = pl_pages_call(remote, SYS_mremap, (const uint64_t[6]){address, page, size, 0, 0, 0}, NULL);
	if (code < 0) {
		/* -ENOMEM also says that somebody has mapped behind that page: what is there is not ours to unmap. */
		(void)unmap(remote, address, page);
		return code == -ENOMEM ? -EEXIST : code;
	}
	return pl_pages_call(remote, SYS_mprotect, (const uint64_t[6]){address, size, (uint64_t)protection, 0, 0, 0}, NULL);
}

/* Before Linux 4.14 there is no WIPEONFORK: a child stays armed. Its breakpoints then only cost it a
 * signal each; the inline engine is not planted there. */
static int map_tables(struct pl_remote *remote, pid_t tid, struct pl_probe *probe, const struct pl_probe_plan *plan)
{
	/* With the code in place, a process that locks what it maps has locked something. */
	int code = (pl_process_locked(tid) ? map_unlocked : map_at)(
		remote, probe->tables, plan->tables_size, PROT_READ | PROT_WRITE, MAP_NORESERVE);

	if (code == -EEXIST)
		probe->tables = 0;
	/* A kernel without huge pages does not know the advice, and needs none. */
	if (code == 0)
		code = advise(remote, probe->tables, plan->tables_size, MADV_NOHUGEPAGE) == -ESRCH ? -ESRCH : 0;
	if (code == 0)
		code = advise(remote, probe->tables, plan->tables_size - plan->tables_kept, MADV_WIPEONFORK);
	return code == 0 ? advise(remote, probe->tables, plan->tables_size, MADV_DONTDUMP) : code;
}

/* Where somebody else has mapped since we looked, nothing is ours to unmap when the failure is undone. */
int pl_pages_map(struct pl_remote *remote, pid_t tid, struct pl_probe *probe, const struct pl_probe_plan *plan)
{
	uint64_t base = probe->base, data = base + pl_pages_data_offset(plan);
	/* Locked whole, it could leave too little of the limit for the landing page. Who has locked nothing yet may do so from
	 * now on: that shows only when we map. */
	bool unlocked = pl_process_locked(tid);
	/* All of it executable and unwritable first, then the data over its end: never both. */
	int code = (unlocked ? map_unlocked : map_at)(
		remote, base, pl_pages_data_offset(plan) + plan->data_size, PROT_READ | PROT_EXEC, 0);

	if (code == -EAGAIN && !unlocked) {
		unlocked = true;
		code = map_unlocked(remote, base, pl_pages_data_offset(plan) + plan->data_size, PROT_READ | PROT_EXEC, 0);
	}
	if (code == -EEXIST)
		probe->mapped_size = probe->tables = 0;
	if (code < 0)
		return code;
	if (plan->data_size) {
		/* Mapped anew it would be locked anew. */
		if (unlocked)
			code = pl_pages_call(remote, SYS_mprotect,
				(const uint64_t[6]){data, plan->data_size, PROT_READ | PROT_WRITE, 0, 0, 0}, NULL);
		else
			code = pl_pages_call(remote, SYS_mmap,
				(const uint64_t[6]){data, plan->data_size, PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, (uint64_t)-1, 0},
				NULL);
		if (code < 0)
			return code;
		(void)advise(remote, data, plan->data_size, MADV_WIPEONFORK);
	}
	return plan->tables_size ? map_tables(remote, tid, probe, plan) : 0;
}
