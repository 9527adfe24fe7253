/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "pyleak/cleanup.h"
#include "pyleak/hook.h"
#include "pyleak/memory.h"
#include "pyleak/units.h"
#include "words.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif
enum { PAGE = 4096 };
#define KERNEL_SA_RESTORER 0x04000000
#define UNDO_PATIENCE_NSEC (2 * PL_NSEC_PER_SEC)

/* Behind the code and the table of further hooks. */
static uint64_t data_offset(const struct pl_probe_plan *plan)
{
	uint64_t words = plan->word_capacity * sizeof(struct pl_probe_hook);

	return plan->code_size + ((words + PAGE - 1) & ~(uint64_t)(PAGE - 1));
}

static bool is_free(const struct pl_maps *maps, uint64_t start, uint64_t size)
{
	for (size_t i = 0; i < maps->count; i++)
		if (maps->items[i].start < start + size && maps->items[i].end > start)
			return false;
	return true;
}

uint64_t pl_probe_place(const struct pl_maps *maps, uint64_t size, uint64_t tables_size)
{
	for (unsigned int i = 0; i < PL_PROBE_PLACES; i++) {
		uint64_t base = PL_PROBE_BASE + (uint64_t)i * PL_PROBE_STRIDE;

		if (is_free(maps, base, size) && is_free(maps, pl_probe_tables_place(base), tables_size))
			return base;
	}
	return 0;
}

/* A remote call that must succeed: its own failure becomes ours. */
static int call(struct pl_remote *remote, long number, const uint64_t arguments[6], int64_t *ret_result)
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

static int map_at(struct pl_remote *remote, uint64_t address, uint64_t size, int protection, int flags)
{
	int64_t got;
	int code = call(remote, SYS_mmap,
		(const uint64_t[6]){address, size, (uint64_t)protection,
			(uint64_t)(MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | flags), (uint64_t)-1, 0},
		&got);

	if (code < 0 || (uint64_t)got == address)
		return code;
	/* A kernel before 4.17 takes the address as a hint. */
	(void)call(remote, SYS_munmap, (const uint64_t[6]){(uint64_t)got, size, 0, 0, 0, 0}, NULL);
	return -EEXIST;
}

/* Before Linux 4.14 there is no WIPEONFORK: a child stays armed. Its breakpoints then only cost it a
 * signal each; the inline engine is not planted there. */
static int wipe_on_fork(struct pl_remote *remote, uint64_t address, uint64_t size)
{
	return call(remote, SYS_madvise, (const uint64_t[6]){address, size, MADV_WIPEONFORK, 0, 0, 0}, NULL);
}

/* Where somebody else has mapped since we looked, nothing is ours to unmap when the failure is undone. */
static int map_pages(struct pl_remote *remote, struct pl_probe *probe, const struct pl_probe_plan *plan)
{
	uint64_t base = probe->base, data = base + data_offset(plan);
	/* All of it executable and unwritable first, then the data over its end: never both. */
	int code = map_at(remote, base, data_offset(plan) + plan->data_size, PROT_READ | PROT_EXEC, 0);

	if (code == -EEXIST)
		probe->mapped_size = probe->tables = 0;
	if (code < 0)
		return code;
	if (plan->data_size) {
		code = call(remote, SYS_mmap,
			(const uint64_t[6]){data, plan->data_size, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, (uint64_t)-1, 0},
			NULL);
		if (code < 0)
			return code;
		(void)wipe_on_fork(remote, data, plan->data_size);
	}
	if (plan->tables_size)
		code = map_at(remote, probe->tables, plan->tables_size, PROT_READ | PROT_WRITE, MAP_NORESERVE);
	if (code == -EEXIST)
		probe->tables = 0;
	if (code == 0 && plan->tables_size)
		code = wipe_on_fork(remote, probe->tables, plan->tables_size - plan->tables_kept);
	if (code == 0 && plan->tables_size)
		code = call(remote, SYS_madvise,
			(const uint64_t[6]){probe->tables, plan->tables_size, MADV_DONTDUMP, 0, 0, 0}, NULL);
	return code;
}

static void fill_header(struct pl_probe *probe, const struct pl_probe_plan *plan)
{
	uint64_t data = plan->data_size ? probe->base + data_offset(plan) : probe->tables;
	struct pl_probe_header *header = &probe->header;

	memcpy(header->magic, PL_PROBE_MAGIC, sizeof(header->magic));
	header->abi = PL_PROBE_ABI;
	header->engine = plan->engine;
	header->code_size = plan->code_size;
	header->total_size = probe->mapped_size;
	header->hook_count = plan->hook_count;
	header->pid = (uint32_t)probe->pid;
	header->armed_address = data + plan->armed_offset;
	header->inside_address = plan->inside_words ? data + plan->inside_offset : 0;
	header->inside_words = plan->inside_words;
	header->mark = plan->mark;
	header->tables = probe->tables;
	header->tables_size = plan->tables_size;
	header->kept = plan->kept;
	if (plan->trap_handler_offset)
		header->trap_handler = probe->base + plan->trap_handler_offset;
	for (uint32_t i = 0; i < plan->hook_count; i++)
		probe->hooks[i] = (struct pl_probe_hook){
			.address = plan->hooks[i].address,
			.original = plan->hooks[i].original,
			.entry = plan->hooks[i].kind == PL_PROBE_HOOK_WORD ?
					 probe->base + plan->hooks[i].entry_offset :
					 plan->hooks[i].bias,
			.kind = plan->hooks[i].kind,
		};
	if (!plan->word_capacity)
		return;
	header->words = probe->base + plan->code_size;
	header->word_capacity = plan->word_capacity;
	header->word_count = plan->word_count;
	for (uint32_t i = 0; i < plan->word_count; i++)
		probe->words[i] = pl_probe_row(probe, &plan->words[i]);
}

static int write_code(struct pl_tracee *tracee, const struct pl_probe *probe, const struct pl_probe_plan *plan)
{
	pl_autofree uint8_t *image = malloc(plan->code_size);

	if (!image)
		return -ENOMEM;
	memcpy(image, plan->image, plan->code_size);
	if (plan->fill)
		plan->fill(plan->context, image, probe->base, probe->tables);
	memcpy(image, &probe->header, sizeof(probe->header));
	memcpy(image + PL_PROBE_HOOKS_OFFSET, probe->hooks, plan->hook_count * sizeof(probe->hooks[0]));

	int code = pl_tracee_write(tracee, probe->base, image, plan->code_size);

	if (code == 0 && plan->word_count)
		code = pl_tracee_write(tracee, probe->header.words, probe->words, plan->word_count * sizeof(probe->words[0]));
	return code;
}

/* The old action is in the header, and so in pages that outlive us, before the new one is set. */
static int install_trap_handler(struct pl_tracee *tracee, struct pl_remote *remote, struct pl_probe *probe,
	const struct pl_probe_plan *plan)
{
	uint64_t scratch = probe->base + data_offset(plan) + plan->scratch_offset;
	struct pl_kernel_sigaction action = {
		.handler = probe->base + plan->trap_handler_offset,
		.flags = SA_SIGINFO | SA_RESTART | SA_NODEFER | KERNEL_SA_RESTORER,
		.restorer = probe->base + plan->restorer_offset,
	};
	int code = call(remote, SYS_rt_sigaction, (const uint64_t[6]){SIGTRAP, 0, scratch, 8, 0, 0}, NULL);

	if (code == 0)
		code = pl_memory_read(tracee->threads[0].tid, scratch, &probe->header.saved_trap,
			sizeof(probe->header.saved_trap));
	if (code == 0)
		code = write_code(tracee, probe, plan);
	if (code == 0)
		code = pl_tracee_write(tracee, scratch, &action, sizeof(action));
	if (code == 0)
		code = call(remote, SYS_rt_sigaction, (const uint64_t[6]){SIGTRAP, scratch, 0, 8, 0, 0}, NULL);
	return code;
}

/*
 * A negative length says that the interpreter itself has closed the list. A thread that was stopped
 * between its load and its store of the length undoes this, or the opposite at the end: then the list
 * goes on as before, or stays closed, both of which are right for the interpreter.
 */
static int close_list(struct pl_tracee *tracee, const struct pl_probe_hook *hook)
{
	uint64_t length;
	int code = pl_memory_read_u64(tracee->threads[0].tid, hook->address, &length);

	return code < 0 || length >= hook->entry ?
		       code :
		       pl_tracee_swap_word(tracee, hook->address, length, length + hook->entry, NULL);
}

static int close_list_int(struct pl_tracee *tracee, const struct pl_probe_hook *hook)
{
	uint32_t length;
	int code = pl_memory_read(tracee->threads[0].tid, hook->address, &length, sizeof(length));

	if (code < 0 || length >= hook->entry)
		return code;
	length += (uint32_t)hook->entry;
	return pl_tracee_write(tracee, hook->address, &length, sizeof(length));
}

static int redirect(struct pl_tracee *tracee, const struct pl_probe *probe, const struct pl_probe_plan *plan)
{
	int code = 0;

	for (uint32_t i = 0; code == 0 && i < plan->hook_count; i++) {
		const struct pl_probe_hook *hook = &probe->hooks[plan->order[i]];

		if (hook->kind == PL_PROBE_HOOK_WORD)
			code = pl_tracee_swap_word(tracee, hook->address, hook->original, hook->entry, NULL);
		else if (hook->kind == PL_PROBE_HOOK_LENGTH)
			code = close_list(tracee, hook);
		else if (hook->kind == PL_PROBE_HOOK_LENGTH_INT)
			code = close_list_int(tracee, hook);
	}
	for (uint32_t i = 0; code == 0 && i < probe->header.word_count; i++)
		code = pl_probe_redirect(tracee, &probe->words[i], NULL);
	if (code == 0)
		code = pl_tracee_write(tracee, probe->header.armed_address, &plan->armed_value,
			sizeof(plan->armed_value));
	return code;
}

static int explain(pid_t pid, int code, struct pl_error *err)
{
	switch (code) {
	case -ENOMEM:
		return pl_fail(err, code,
			"process %d has no address space left for the probe (a limit such as ulimit -v?)", (int)pid);
	case -EACCES:
	case -EPERM:
		return pl_fail(err, code,
			"process %d may not map new executable pages (SELinux execmem, or its service manager's "
			"MemoryDenyWriteExecute): allow that, or leave it",
			(int)pid);
	case -EINVAL:
		return pl_fail(err, code, "the kernel cannot hide the probe's memory from forked children (Linux 4.14 can)");
	case -ENOSYS:
		return pl_fail(err, code, "a filter denies process %d the system calls that planting needs", (int)pid);
	default:
		return pl_fail(err, code, "the hooks could not be planted in process %d: %s", (int)pid, strerror(-code));
	}
}

int pl_probe_plant(struct pl_tracee *tracee, const struct pl_maps *maps, const struct pl_gadgets *gadgets,
	const struct pl_probe_plan *plan, struct pl_probe *ret, struct pl_error *err)
{
	struct pl_remote *remote = NULL;
	uint64_t size = data_offset(plan) + plan->data_size;

	*ret = (struct pl_probe){
		.pid = tracee->pid,
		.base = pl_probe_place(maps, size, plan->tables_size),
		.mapped_size = size,
		.tables_mapped_size = plan->tables_size,
	};
	if (ret->base && plan->tables_size)
		ret->tables = pl_probe_tables_place(ret->base);
	if (!ret->base)
		return pl_fail(err, -EEXIST, "no free place for the probe in process %d", (int)tracee->pid);
	if (plan->word_capacity)
		ret->words = calloc(plan->word_capacity, sizeof(*ret->words));
	if (plan->word_capacity && !ret->words)
		return pl_fail(err, -ENOMEM, "out of memory");

	int code = pl_remote_begin(tracee, maps, gadgets, &remote, err);

	if (code < 0)
		return explain(tracee->pid, code, err);
	code = map_pages(remote, ret, plan);
	if (code < 0) {
		(void)pl_remote_end(remote);
		(void)explain(tracee->pid, code, err);
		(void)pl_probe_remove(tracee, ret, UNDO_PATIENCE_NSEC, NULL);
		return code;
	}
	fill_header(ret, plan);
	code = plan->trap_handler_offset ? install_trap_handler(tracee, remote, ret, plan) : write_code(tracee, ret, plan);

	int ended = pl_remote_end(remote);

	if (code == 0)
		code = ended;
	ret->filled = true;
	if (code == 0)
		code = redirect(tracee, ret, plan);
	if (code < 0) {
		(void)explain(tracee->pid, code, err);
		(void)pl_probe_remove(tracee, ret, UNDO_PATIENCE_NSEC, NULL);
	}
	return code;
}
