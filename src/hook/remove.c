/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "copies.h"
#include "pieces.h"
#include "pyleak/hook.h"
#include "pyleak/log.h"
#include "pyleak/memory.h"
#include "pyleak/units.h"
#include "quiescent.h"
#include "remove.h"

#define STOP_PATIENCE_NSEC (2 * PL_NSEC_PER_SEC)
#define FREE_LIST_MAX 4096

/* Threads may still stand at breakpoints: they go on behind them. */
static bool on_own_breakpoint(struct pl_tracee *tracee, struct pl_thread *thread, const pl_registers *regs)
{
	const struct pl_probe *probe = tracee->context;

	(void)thread;
	return pl_registers_ip(regs) - probe->base < probe->header.code_size;
}

/* The count of a free list is what its chain has, not what it was: blocks were taken from it since. */
static int restore_count(struct pl_tracee *tracee, const struct pl_probe_hook *hook)
{
	pid_t tid = tracee->threads[0].tid;
	uint64_t at, bias = hook->entry < FREE_LIST_MAX ? hook->entry : FREE_LIST_MAX;
	int32_t count, length = 0;

	if (pl_memory_read(tid, hook->address, &count, sizeof(count)) < 0 || count < 0 || (uint64_t)count < bias ||
		pl_memory_read_u64(tid, hook->original, &at) < 0)
		return 0;
	for (; at && (uint64_t)length < bias; length++)
		if (pl_memory_read_u64(tid, at + 8, &at) < 0)
			return 0;
	return pl_tracee_write(tracee, hook->address, &length, sizeof(length));
}

/* Blocks were taken from the list since; none were added. */
static int open_list(struct pl_tracee *tracee, const struct pl_probe_hook *hook)
{
	uint64_t length;

	if (pl_memory_read_u64(tracee->threads[0].tid, hook->address, &length) < 0 || (int64_t)length < 0 ||
		length < hook->entry)
		return 0;
	return pl_tracee_swap_word(tracee, hook->address, length, length - hook->entry, NULL);
}

static int open_list_int(struct pl_tracee *tracee, const struct pl_probe_hook *hook)
{
	uint32_t length;

	if (pl_memory_read(tracee->threads[0].tid, hook->address, &length, sizeof(length)) < 0 ||
		length > INT32_MAX || length < hook->entry)
		return 0;
	length -= (uint32_t)hook->entry;
	return pl_tracee_write(tracee, hook->address, &length, sizeof(length));
}

static int put_back(struct pl_tracee *tracee, const struct pl_probe_hook *hook)
{
	switch (hook->kind) {
	case PL_PROBE_HOOK_COUNT:
		return restore_count(tracee, hook);
	case PL_PROBE_HOOK_LENGTH:
		return open_list(tracee, hook);
	case PL_PROBE_HOOK_LENGTH_INT:
		return open_list_int(tracee, hook);
	default:
		return 0;
	}
}

static bool is_word(const struct pl_probe_hook *hook)
{
	return hook->kind == PL_PROBE_HOOK_WORD || hook->kind == PL_PROBE_HOOK_GOT || hook->kind == PL_PROBE_HOOK_LANDING ||
	       hook->kind == PL_PROBE_HOOK_LOADED;
}

/* Every word that holds our entry gets its original back. The number of words that hold neither:
 * somebody hooked on top of us. */
static int restore_words(struct pl_tracee *tracee, const struct pl_probe *probe, const struct pl_maps *maps)
{
	int foreign = 0;

	for (uint32_t i = pl_probe_hook_count(probe); i-- > 0;) {
		const struct pl_probe_hook *hook = pl_probe_hook(probe, i);
		uint64_t found = hook->entry;

		if (!is_word(hook)) {
			int code = put_back(tracee, hook);

			if (code < 0)
				return code;
			continue;
		}

		int code = pl_tracee_swap_word(tracee, hook->address, hook->entry, hook->original, &found);

		/* What was loaded leads to the landing page, which stays: the program may have set another. */
		if (code == -EAGAIN && found != hook->original && hook->kind != PL_PROBE_HOOK_LOADED &&
			pl_probe_word_is_there(hook, maps))
			foreign++;
		else if (code < 0 && code != -EAGAIN && code != -EFAULT) /* -EFAULT: its library was unloaded */
			return code;
	}
	return foreign;
}

static int restore_copies(struct pl_tracee *tracee, const struct pl_probe *probe, const struct pl_copies *copies)
{
	for (size_t i = 0; i < copies->count; i++) {
		const struct pl_probe_hook *hook = pl_probe_hook(probe, copies->items[i].hook);

		/* What such a word held may be good in its own object only. */
		if (hook->kind != PL_PROBE_HOOK_WORD)
			return -EBUSY;

		int code = pl_tracee_swap_word(tracee, copies->items[i].address, hook->entry, hook->original, NULL);

		if (code < 0 && code != -EAGAIN && code != -EFAULT)
			return code;
	}
	return 0;
}

/* -EFAULT: the word is not mapped, because the words were never written, or because a removal died
 * between its two last calls. Either way nobody is in the code. */
static int disarm(struct pl_tracee *tracee, const struct pl_probe *probe)
{
	const uint32_t zero = 0;

	return probe->header.armed_address ?
		       pl_tracee_write(tracee, probe->header.armed_address, &zero, sizeof(zero)) : 0;
}

/* The action that SIGTRAP had, if it is still ours to give back: the program may have set one of
 * its own since. The scratch words are in the probe's data, or on its last page. */
static int restore_trap_handler(struct pl_tracee *tracee, struct pl_remote *remote, const struct pl_probe *probe)
{
	uint64_t scratch = probe->base + probe->header.total_size - 2 * sizeof(struct pl_kernel_sigaction);
	struct pl_kernel_sigaction now;
	int64_t result;
	int code = pl_remote_call(remote, SYS_rt_sigaction, (const uint64_t[6]){SIGTRAP, 0, scratch, 8, 0, 0}, &result);

	if (code < 0 || result < 0)
		return code < 0 ? code : (int)result;
	code = pl_memory_read(tracee->threads[0].tid, scratch, &now, sizeof(now));
	if (code < 0 || now.handler != probe->header.trap_handler)
		return code;
	code = pl_tracee_write(tracee, scratch, &probe->header.saved_trap, sizeof(probe->header.saved_trap));
	if (code < 0)
		return code;
	code = pl_remote_call(remote, SYS_rt_sigaction, (const uint64_t[6]){SIGTRAP, scratch, 0, 8, 0, 0}, &result);
	return code < 0 ? code : (int)result;
}

static int begin_calls(struct pl_tracee *tracee, const struct pl_maps *maps, struct pl_remote **ret, struct pl_error *err)
{
	struct pl_gadgets gadgets;
	int code = pl_gadgets_find(tracee->threads[0].tid, maps, &gadgets, err);

	return code < 0 ? code : pl_remote_begin(tracee, maps, &gadgets, ret, err);
}

/* Frees a piece of the tables and leaves it mapped, as zeros: should we die before the end, the rest is found as before. */
static int free_piece(struct pl_tracee *tracee, struct pl_range piece, const struct pl_maps *maps)
{
	struct pl_remote *remote = NULL;
	int64_t result;
	int code = begin_calls(tracee, maps, &remote, NULL);

	if (code < 0)
		return code;
	code = pl_remote_call(remote, SYS_madvise,
		(const uint64_t[6]){piece.start, piece.end - piece.start, MADV_DONTNEED, 0, 0, 0}, &result);

	int ended = pl_remote_end(remote);

	/* If the kernel would not, it is freed with the rest. */
	return code < 0 ? code : ended;
}

static int unmap(struct pl_tracee *tracee, const struct pl_probe *probe, const struct pl_maps *maps, struct pl_error *err)
{
	struct pl_remote *remote = NULL;
	int64_t result = 0;
	int code = begin_calls(tracee, maps, &remote, err);

	if (code < 0)
		return code;
	if (probe->filled && probe->header.trap_handler)
		code = restore_trap_handler(tracee, remote, probe);
	/* The code last: while it is there, the rest is found again. */
	if (code == 0 && probe->tables)
		code = pl_remote_call(remote, SYS_munmap,
			(const uint64_t[6]){probe->tables, probe->tables_mapped_size, 0, 0, 0, 0}, &result);
	if (code == 0 && result == 0 && probe->mapped_size)
		code = pl_remote_call(remote, SYS_munmap, (const uint64_t[6]){probe->base, probe->mapped_size, 0, 0, 0, 0},
			&result);

	int ended = pl_remote_end(remote);

	return code < 0 ? code : result < 0 ? (int)result : ended;
}

/* One try with everything stopped. 0: gone; -EAGAIN: not now; -EBUSY: a hook sits on top; -EINPROGRESS: a piece of the
 * tables was freed, there is more. */
static int remove_once(struct pl_tracee *tracee, const struct pl_probe *probe, struct pl_pieces *pieces,
	struct pl_probe_left *left, struct pl_error *err)
{
	struct pl_maps maps = {0};
	struct pl_copies copies = {0};
	int foreign = 0;
	int code = pl_maps_read(tracee->threads[0].tid, &maps);

	/* A thread that carried the last call of a dead pyleak has made it since the probe was found. */
	if (code == 0 && probe->filled && !pl_maps_find(&maps, probe->base))
		goto out;
	if (code == 0 && probe->filled) {
		code = pl_copies_find(probe, &maps, &copies);
		if (code == 0)
			code = foreign = restore_words(tracee, probe, &maps);
		if (code >= 0)
			code = disarm(tracee, probe);
		if (code == -EFAULT) {
			code = 0;
			goto proven;
		}
		if (code == 0)
			code = restore_copies(tracee, probe, &copies);
		/* Another hook on top calls us through a pointer that we put back, or through one that we
		 * could not find. Or there is none: tracemalloc.stop() put back what was there before it,
		 * over us. */
		if (code == 0 && foreign && !copies.count && pl_copies_elsewhere(probe, &maps))
			code = -EBUSY;
		if (code == 0 && !all_outside(tracee, probe, &maps, left))
			code = -EAGAIN;
	}
proven:
	if (code == 0 && pieces->next < pieces->count) {
		code = free_piece(tracee, pieces->items[pieces->next++], &maps);
		if (code == 0)
			code = -EINPROGRESS;
	} else if (code == 0) {
		code = unmap(tracee, probe, &maps, err);
	}
out:
	pl_copies_free(&copies);
	pl_maps_free(&maps);
	return code;
}

static int remove_in_pieces(struct pl_tracee *tracee, const struct pl_probe *probe, struct pl_pieces *pieces,
	int64_t patience_ns, struct pl_error *err)
{
	int64_t give_up = pl_now_ns() + patience_ns;
	bool (*const engine)(struct pl_tracee *, struct pl_thread *, const pl_registers *) = tracee->on_breakpoint;
	void *const context = tracee->context;
	struct pl_probe_left left = {0};
	int code;

	if (!engine && probe->filled) {
		tracee->on_breakpoint = on_own_breakpoint;
		tracee->context = (void *)probe;
	}
	for (;;) {
		code = remove_once(tracee, probe, pieces, &left, NULL);
		if (code == -EINPROGRESS)
			give_up = pl_now_ns() + patience_ns;
		else if (code != -EAGAIN || pl_now_ns() >= give_up)
			break;
		pl_tracee_resume(tracee);
		code = pl_tracee_wait(tracee);
		if (code == 0)
			code = pl_tracee_stop(tracee, STOP_PATIENCE_NSEC, err);
		if (code < 0)
			break;
	}
	tracee->on_breakpoint = engine;
	tracee->context = context;
	return pl_probe_explain_left(tracee->pid, code, &left, err);
}

int pl_probe_remove(struct pl_tracee *tracee, const struct pl_probe *probe, int64_t patience_ns, struct pl_error *err)
{
	struct pl_pieces all_at_once = {0};

	return remove_in_pieces(tracee, probe, &all_at_once, patience_ns, err);
}

int pl_probe_detach(pid_t pid, int64_t patience_ns, bool *ret_found, int64_t *ret_stop_ns, struct pl_error *err)
{
	struct pl_probe probe;
	struct pl_pieces pieces = {0};
	struct pl_tracee *tracee = NULL;

	*ret_found = false;

	int code = pl_probe_find(pid, &probe);

	if (code == -ENOENT)
		return 0;
	*ret_found = true;
	/* One that nobody has filled yet has changed nothing. */
	bool running = code == 0 && (!probe.filled || probe.header.errand_entry);

	if (code == 0 && !running)
		pl_pieces_plan(&probe, &pieces);
	pl_probe_free(&probe);
	if (code == -EPROTO)
		return pl_fail(err, code,
			"the probe in process %d was planted by another version of pyleak: use that version's 'pyleak detach %d'",
			(int)pid, (int)pid);
	if (code < 0)
		return pl_fail(err, code, "process %d cannot be read: %s", (int)pid, strerror(-code));
	if (running) {
		pl_pieces_free(&pieces);
		return pl_probe_detach_running(pid, patience_ns, ret_stop_ns, err);
	}
	code = pl_tracee_seize(pid, patience_ns, &tracee, err);
	if (code < 0) {
		pl_pieces_free(&pieces);
		return code;
	}
	/* What was seen before may have grown: a thread finishes the call that a dead tracer began. */
	code = pl_probe_find(pid, &probe);
	if (code == 0)
		code = remove_in_pieces(tracee, &probe, &pieces, patience_ns, err);
	else if (code == -ENOENT)
		code = 0;
	pl_probe_free(&probe);

	size_t freed = pieces.next;

	pl_pieces_free(&pieces);

	int64_t stop_ns = pl_tracee_detach(tracee);

	if (freed)
		pl_log_debug("%zu pieces of its tables were freed before the rest", freed);
	pl_log_debug("removal held process %d stopped for %.1f ms at most", (int)pid, (double)stop_ns / 1e6);
	if (ret_stop_ns)
		*ret_stop_ns = stop_ns;
	return code;
}
