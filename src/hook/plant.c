/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "errand.h"
#include "pages.h"
#include "pyleak/cleanup.h"
#include "pyleak/hook.h"
#include "pyleak/memory.h"
#include "pyleak/units.h"
#include "remove.h"
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
	const struct pl_probe_places places = pl_probe_places(maps);

	for (unsigned int i = 0; i < places.count; i++) {
		uint64_t base = places.base + (uint64_t)i * PL_PROBE_STRIDE;

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
	if (plan->errand_entry_offset) {
		header->errand_entry = probe->base + plan->errand_entry_offset;
		header->errand_end = probe->base + plan->errand_end_offset;
		header->errand = probe->tables + plan->errand_offset;
	}
	if (!plan->word_capacity)
		return;
	header->words = probe->base + plan->code_size;
	header->word_capacity = plan->word_capacity;
	header->word_count = plan->word_count;
	for (uint32_t i = 0; i < plan->word_count; i++)
		probe->words[i] = pl_probe_row(probe, &plan->words[i]);
}

/* The code with its header. The caller frees; NULL: out of memory. */
static uint8_t *make_image(const struct pl_probe *probe, const struct pl_probe_plan *plan)
{
	uint8_t *image = malloc(plan->code_size);

	if (!image)
		return NULL;
	memcpy(image, plan->image, plan->code_size);
	if (plan->fill)
		plan->fill(plan->context, image, probe->base, probe->tables);
	memcpy(image, &probe->header, sizeof(probe->header));
	memcpy(image + PL_PROBE_HOOKS_OFFSET, probe->hooks, plan->hook_count * sizeof(probe->hooks[0]));
	return image;
}

static int write_code(struct pl_tracee *tracee, const struct pl_probe *probe, const struct pl_probe_plan *plan)
{
	pl_autofree uint8_t *image = make_image(probe, plan);
	int code = image ? pl_tracee_write(tracee, probe->base, image, plan->code_size) : -ENOMEM;

	if (code == 0 && plan->word_count)
		code = pl_tracee_write(tracee, probe->header.words, probe->words, plan->word_count * sizeof(probe->words[0]));
	return code;
}

/* The words before the header: whoever finds one believes it. */
static int write_code_running(struct carrier *carrier, const struct pl_probe *probe, const struct pl_probe_plan *plan)
{
	pl_autofree uint8_t *image = make_image(probe, plan);
	int code = image ? 0 : -ENOMEM;

	if (code == 0 && plan->word_count)
		code = carrier_write(carrier, probe->header.words, probe->words, plan->word_count * sizeof(probe->words[0]));
	if (code == 0)
		code = carrier_write(carrier, probe->base + PL_PROBE_CODE_OFFSET, image + PL_PROBE_CODE_OFFSET,
			plan->code_size - PL_PROBE_CODE_OFFSET);
	return code == 0 ? carrier_write(carrier, probe->base, image, PL_PROBE_CODE_OFFSET) : code;
}

/* The old action is in the header, and so in pages that outlive us, before the new one is set. */
static int install_trap_handler(struct carrier *carrier, struct pl_probe *probe, const struct pl_probe_plan *plan)
{
	struct pl_tracee *tracee = carrier->tracee;
	uint64_t scratch = probe->base + pl_pages_data_offset(plan) + plan->scratch_offset;
	struct pl_kernel_sigaction action = {
		.handler = probe->base + plan->trap_handler_offset,
		.flags = SA_SIGINFO | SA_RESTART | SA_NODEFER | KERNEL_SA_RESTORER,
		.restorer = probe->base + plan->restorer_offset,
	};
	int code = carrier_call(carrier, SYS_rt_sigaction, (const uint64_t[6]){SIGTRAP, 0, scratch, 8, 0, 0}, NULL);

	if (code == 0)
		code = pl_memory_read(tracee->threads[0].tid, scratch, &probe->header.saved_trap,
			sizeof(probe->header.saved_trap));
	if (code == 0)
		code = write_code(tracee, probe, plan);
	if (code == 0)
		code = pl_tracee_write(tracee, scratch, &action, sizeof(action));
	if (code == 0)
		code = carrier_call(carrier, SYS_rt_sigaction, (const uint64_t[6]){SIGTRAP, scratch, 0, 8, 0, 0}, NULL);
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

static struct pl_probe_errand_row errand_of(const struct pl_maps *maps, const struct pl_probe_hook *hook, bool *ret_there)
{
	int kind = hook->kind == PL_PROBE_HOOK_LENGTH     ? PL_PROBE_ERRAND_RAISE_8 :
		   hook->kind == PL_PROBE_HOOK_LENGTH_INT ? PL_PROBE_ERRAND_RAISE_4 :
							    pl_probe_word_kind(maps, hook->address);
	bool is_length = hook->kind == PL_PROBE_HOOK_LENGTH || hook->kind == PL_PROBE_HOOK_LENGTH_INT;

	/* A count is the recorder's to change. */
	*ret_there = kind >= 0 && hook->kind != PL_PROBE_HOOK_COUNT;
	return (struct pl_probe_errand_row){
		.address = hook->address,
		.expected = is_length ? 0 : hook->original,
		.desired = hook->entry,
		.kind = (uint32_t)kind,
	};
}

/* The hooks of the interpreter are all or nothing; of the others, one that holds something else by now is left alone. */
static int redirect_running(struct carrier *carrier, const struct pl_probe *probe, const struct pl_probe_plan *plan)
{
	const uint32_t most = plan->hook_count + probe->header.word_count;
	pl_autofree struct pl_probe_errand_row *rows = calloc(most + 1, sizeof(*rows));
	size_t count = 0, words;
	int code = rows ? carrier_look(carrier) : -ENOMEM;
	bool there;

	for (uint32_t i = 0; code == 0 && i < plan->hook_count; i++) {
		rows[count] = errand_of(&carrier->maps, &probe->hooks[plan->order[i]], &there);
		count += there;
	}
	words = count;
	for (uint32_t i = 0; code == 0 && i < probe->header.word_count; i++) {
		rows[count] = errand_of(&carrier->maps, &probe->words[i], &there);
		count += there;
	}
	if (code == 0)
		code = errand_run(carrier, probe, rows, count);
	/* One is at it, or none could be held. */
	if (code == -EAGAIN)
		code = -ETIMEDOUT;
	for (size_t i = 0; code == 0 && i < words; i++)
		if (rows[i].kind <= PL_PROBE_ERRAND_PROTECTED && rows[i].result != PL_PROBE_ERRAND_DONE)
			code = rows[i].result == PL_PROBE_ERRAND_DENIED ? -EACCES : -ESTALE;
	if (code == 0 && plan->arming)
		plan->arming(plan->context);
	if (code == 0)
		code = carrier_write(
			carrier, probe->header.armed_address, &plan->armed_value, sizeof(plan->armed_value));
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
	case -ESTALE:
		return pl_fail(err, code, "the allocators of process %d were changed while they were being hooked: try again",
			(int)pid);
	case -EACCES:
	case -EPERM:
		return pl_fail(err, code,
			"process %d may not map new executable pages (SELinux execmem, or its service manager's "
			"MemoryDenyWriteExecute): allow that, or leave it",
			(int)pid);
	case -ETIMEDOUT:
		return pl_fail(err, code, "no thread of process %d can carry a system call at this moment: try again", (int)pid);
	case -EINVAL:
		return pl_fail(err, code, "the kernel cannot hide the probe's memory from forked children (Linux 4.14 can)");
	case -ENOSYS:
		return pl_fail(err, code, "a filter denies process %d the system calls that planting needs", (int)pid);
	default:
		return pl_fail(err, code, "the hooks could not be planted in process %d: %s", (int)pid, strerror(-code));
	}
}

/* Chooses the places. */
static int prepare(pid_t pid, const struct pl_maps *maps, const struct pl_probe_plan *plan, struct pl_probe *ret,
	struct pl_error *err)
{
	uint64_t size = pl_pages_data_offset(plan) + plan->data_size;

	*ret = (struct pl_probe){
		.pid = pid,
		.base = pl_probe_place(maps, size, plan->tables_size),
		.mapped_size = size,
		.tables_mapped_size = plan->tables_size,
	};
	if (ret->base && plan->tables_size)
		ret->tables = pl_probe_tables_place(ret->base);
	if (!ret->base)
		return pl_fail(err, -EEXIST, "no free place for the probe in process %d", (int)pid);
	if (plan->word_capacity)
		ret->words = calloc(plan->word_capacity, sizeof(*ret->words));
	return plan->word_capacity && !ret->words ? pl_fail(err, -ENOMEM, "out of memory") : 0;
}

int pl_probe_plant_running(pid_t pid, const struct pl_probe_plan *plan, struct pl_probe *ret, int64_t *ret_stop_ns,
	struct pl_error *err)
{
	struct carrier carrier;
	int code = carrier_init(&carrier, pid, err);

	if (code == 0)
		code = prepare(pid, &carrier.maps, plan, ret, err);
	if (code < 0)
		goto out;
	carrier.keep = pl_trace_holds(pid);
	code = landing_prepare(&carrier, plan->landing, err);
	if (code < 0)
		goto out;
	code = carrier_hold(&carrier, err);
	if (code < 0) {
		code = explain(pid, code, err);
		goto out;
	}
	code = pl_pages_map(&carrier, ret, plan);

	int ended = carrier_rest(&carrier);

	if (code == 0)
		code = ended;
	if (code == 0) {
		fill_header(ret, plan);
		code = write_code_running(&carrier, ret, plan);
		ret->filled = code == 0;
	}
	if (code == 0)
		code = redirect_running(&carrier, ret, plan);
	(void)carrier_rest(&carrier);
	if (code < 0) {
		(void)explain(pid, code, err);
		carrier.keep = false;
		(void)carrier_rest(&carrier);
		(void)pl_probe_let_go(&carrier, ret, UNDO_PATIENCE_NSEC, NULL);
	}
out:
	carrier_free(&carrier);
	if (ret_stop_ns)
		*ret_stop_ns = carrier.longest_hold;
	return code;
}

int pl_probe_plant(struct pl_tracee *tracee, const struct pl_maps *maps, const struct pl_gadgets *gadgets,
	const struct pl_probe_plan *plan, struct pl_probe *ret, struct pl_error *err)
{
	/* All of them stand, and stand until this is done. */
	struct carrier carrier = {.pid = tracee->pid, .maps = *maps, .gadgets = *gadgets, .tracee = tracee, .keep = true};
	int code = prepare(tracee->pid, maps, plan, ret, err);

	if (code < 0)
		return code;
	code = carrier_hold(&carrier, err);
	if (code < 0)
		return explain(tracee->pid, code, err);
	code = pl_pages_map(&carrier, ret, plan);
	if (code < 0) {
		(void)carrier_rest(&carrier);
		(void)explain(tracee->pid, code, err);
		(void)pl_probe_remove(tracee, ret, UNDO_PATIENCE_NSEC, NULL);
		return code;
	}
	fill_header(ret, plan);
	code = plan->trap_handler_offset ? install_trap_handler(&carrier, ret, plan) : write_code(tracee, ret, plan);

	int ended = carrier_rest(&carrier);

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
