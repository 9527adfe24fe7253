/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "pages.h"
#include "pyleak/cleanup.h"
#include "pyleak/hook.h"
#include "pyleak/memory.h"
#include "pyleak/units.h"
#include "words.h"

#define KERNEL_SA_RESTORER 0x04000000
#define UNDO_PATIENCE_NSEC (2 * PL_NSEC_PER_SEC)

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

static void fill_header(struct pl_probe *probe, const struct pl_probe_plan *plan)
{
	uint64_t data = plan->data_size ? probe->base + pl_pages_data_offset(plan) : probe->tables;
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
	uint64_t scratch = probe->base + pl_pages_data_offset(plan) + plan->scratch_offset;
	struct pl_kernel_sigaction action = {
		.handler = probe->base + plan->trap_handler_offset,
		.flags = SA_SIGINFO | SA_RESTART | SA_NODEFER | KERNEL_SA_RESTORER,
		.restorer = probe->base + plan->restorer_offset,
	};
	int code = pl_pages_call(remote, SYS_rt_sigaction, (const uint64_t[6]){SIGTRAP, 0, scratch, 8, 0, 0}, NULL);

	if (code == 0)
		code = pl_memory_read(tracee->threads[0].tid, scratch, &probe->header.saved_trap,
			sizeof(probe->header.saved_trap));
	if (code == 0)
		code = write_code(tracee, probe, plan);
	if (code == 0)
		code = pl_tracee_write(tracee, scratch, &action, sizeof(action));
	if (code == 0)
		code = pl_pages_call(remote, SYS_rt_sigaction, (const uint64_t[6]){SIGTRAP, scratch, 0, 8, 0, 0}, NULL);
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
	case -EAGAIN:
		return pl_fail(err, code,
			"process %d locks its memory (mlockall), and may not lock the few pages that the probe's code takes: raise "
			"its ulimit -l",
			(int)pid);
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
	uint64_t size = pl_pages_data_offset(plan) + plan->data_size;

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
	code = pl_pages_map(remote, tracee->threads[0].tid, ret, plan);
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
