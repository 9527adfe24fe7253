/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "copies.h"
#include "errand.h"
#include "pieces.h"
#include "pyleak/cleanup.h"
#include "pyleak/log.h"
#include "pyleak/memory.h"
#include "pyleak/units.h"
#include "quiescent.h"
#include "remove.h"
#include "seen.h"
#include "words.h"

/*
 * Removing a probe from a process that runs. In this order, and why nobody needs to be stopped for it:
 *
 *   disarm                  one word, from outside: what is called from here on passes through
 *   words back              by a routine in a thread of the process, each by one compare-and-swap
 *   each thread seen        see quiescent.c: nobody comes in any more, so who was seen outside stays there
 *   nothing on its way      an object that waits in a deallocator leads a thread into the probe once more: then all
 *                           threads are seen again
 *   words looked at         a thread that a dead pyleak had sent to plant words may have done so until it was seen
 *   lists opened, unmapped  by a thread that was seen
 *
 * Killed after any of them, the next pyleak begins anew, with less to do (tests/torture/kill_storm.py).
 */

#define PAUSE_NSEC PL_NSEC_PER_MSEC
enum { FREE_LIST_MAX = 4096, ROUNDS_MAX = 8, LISTS_TRIES = 8 };

/* -- words ------------------------------------------------------------------------------------------------ */

static bool is_word(const struct pl_probe_hook *hook)
{
	return hook->kind != PL_PROBE_HOOK_COUNT && hook->kind != PL_PROBE_HOOK_LENGTH && hook->kind != PL_PROBE_HOOK_LENGTH_INT;
}

static void add_row(struct pl_probe_errand_row *rows, size_t *count, const struct pl_maps *maps, uint64_t address,
	const struct pl_probe_hook *hook)
{
	int kind = pl_probe_word_kind(maps, address);

	if (kind >= 0)
		rows[(*count)++] = (struct pl_probe_errand_row){address, hook->entry, hook->original, (uint32_t)kind, 0};
}

/* What its words hold now. *ret_ours: that lead to us still; the number of those that hold neither of both: somebody
 * hooked on top of us. */
static int look_at_words(const struct seeing *removal, size_t *ret_ours)
{
	const struct pl_probe *probe = removal->probe;
	int foreign = 0;

	*ret_ours = 0;
	for (uint32_t i = 0; i < pl_probe_hook_count(probe); i++) {
		const struct pl_probe_hook *hook = pl_probe_hook(probe, i);
		uint64_t found;

		if (!is_word(hook) || pl_memory_read_u64(probe->pid, hook->address, &found) < 0 || found == hook->original)
			continue;
		if (found == hook->entry)
			++*ret_ours;
		/* What was loaded leads to the landing page, which stays: the program may have set another. */
		else if (hook->kind != PL_PROBE_HOOK_LOADED)
			foreign += pl_probe_word_is_there(hook, &removal->carrier->maps);
	}
	return foreign;
}

static int put_words_back(struct seeing *removal, const struct pl_copies *copies)
{
	const struct pl_probe *probe = removal->probe;
	const struct pl_maps *maps = &removal->carrier->maps;
	pl_autofree struct pl_probe_errand_row *rows = calloc(pl_probe_hook_count(probe) + copies->count + 1, sizeof(*rows));
	size_t count = 0;

	if (!rows)
		return -ENOMEM;
	for (uint32_t i = pl_probe_hook_count(probe); i-- > 0;) {
		const struct pl_probe_hook *hook = pl_probe_hook(probe, i);
		uint64_t found;

		if (is_word(hook) && pl_memory_read_u64(probe->pid, hook->address, &found) == 0 && found == hook->entry)
			add_row(rows, &count, maps, hook->address, hook);
	}
	for (size_t i = 0; i < copies->count; i++) {
		const struct pl_probe_hook *hook = pl_probe_hook(probe, copies->items[i].hook);

		/* What such a word held may be good in its own object only. */
		if (hook->kind == PL_PROBE_HOOK_GOT)
			return -EBUSY;
		add_row(rows, &count, maps, copies->items[i].address, hook);
	}
	return count ? errand_run(removal->carrier, probe, rows, count) : 0;
}

/* -- the end ---------------------------------------------------------------------------------------------- */

static size_t rows_of_closed_lists(const struct pl_probe *probe, struct pl_probe_errand_row *rows)
{
	size_t count = 0;

	for (uint32_t i = 0; i < probe->header.hook_count; i++) {
		const struct pl_probe_hook *hook = &probe->hooks[i];
		bool wide = hook->kind == PL_PROBE_HOOK_LENGTH;
		uint64_t length = 0, bias = hook->entry;

		if (is_word(hook))
			continue;
		if (hook->kind == PL_PROBE_HOOK_COUNT && bias > FREE_LIST_MAX)
			bias = FREE_LIST_MAX;
		if (pl_memory_read(probe->pid, hook->address, &length, wide ? 8 : 4) < 0 || length >> (wide ? 63 : 31) ||
			length < bias || !bias)
			continue;
		rows[count++] = (struct pl_probe_errand_row){
			.address = hook->address,
			.desired = bias,
			.kind = wide ? PL_PROBE_ERRAND_LOWER_8 : PL_PROBE_ERRAND_LOWER_4,
		};
	}
	return count;
}

/* A change of the interpreter's own may undo one of these. What stays closed is right for it, only slower. */
static int open_lists(struct seeing *removal)
{
	struct pl_probe_errand_row rows[PL_PROBE_MAX_HOOKS];
	int code = 0;

	for (int tries = 0; code == 0 && tries < LISTS_TRIES; tries++) {
		size_t count = rows_of_closed_lists(removal->probe, rows);

		if (!count)
			break;
		if (tries)
			pl_sleep_ns(PAUSE_NSEC);
		code = errand_run(removal->carrier, removal->probe, rows, count);
		(void)carrier_rest(removal->carrier);
	}
	return code;
}

/* Large tables in pieces, so that nobody waits for long whose memory the kernel looks after meanwhile. */
static int free_tables(struct seeing *removal)
{
	struct pl_pieces pieces;
	int code = 0;

	pl_pieces_plan(removal->probe, &pieces);
	while (code == 0 && pieces.next < pieces.count) {
		const struct pl_range piece = pieces.items[pieces.next++];

		code = carrier_call(removal->carrier, SYS_madvise,
			(const uint64_t[6]){piece.start, piece.end - piece.start, MADV_DONTNEED, 0, 0, 0}, NULL);
	}
	/* They were locked meanwhile: they go with the rest. */
	if (code == -EINVAL)
		code = 0;
	(void)carrier_rest(removal->carrier);
	if (pieces.next)
		pl_log_debug("%zu pieces of its tables were freed before the rest", pieces.next);
	pl_pieces_free(&pieces);
	return code;
}

/* The code last: while it is there, the rest is found again. */
static int unmap(struct seeing *removal)
{
	const struct pl_probe *probe = removal->probe;
	int code = 0;

	if (probe->tables)
		code = carrier_call(removal->carrier, SYS_munmap,
			(const uint64_t[6]){probe->tables, probe->tables_mapped_size, 0, 0, 0, 0}, NULL);
	if (code == 0 && probe->mapped_size)
		code = carrier_call(removal->carrier, SYS_munmap,
			(const uint64_t[6]){probe->base, probe->mapped_size, 0, 0, 0, 0}, NULL);

	int ended = carrier_rest(removal->carrier);

	return code == 0 ? ended : code;
}

/* -EFAULT: its tables are gone: a removal died between its two last calls, or planting before they came. Either way no
 * word leads to it and nobody is in it. */
static int disarm(struct seeing *removal)
{
	const uint32_t zero = 0;

	return carrier_write(removal->carrier, removal->probe->header.armed_address, &zero, sizeof(zero));
}

static int prove(struct seeing *removal)
{
	struct pl_copies copies = {0};
	size_t ours = 1;
	int foreign = 0, code = disarm(removal);

	if (code == 0)
		code = errand_settle(removal);
	for (int rounds = 0; code == 0 && ours && rounds < ROUNDS_MAX; rounds++) {
		pl_copies_free(&copies);
		code = carrier_look(removal->carrier);
		if (code == 0)
			code = pl_copies_find(removal->probe, &removal->carrier->maps, &copies);
		if (code == 0)
			code = put_words_back(removal, &copies);
		(void)carrier_rest(removal->carrier);
		if (code == 0)
			foreign = look_at_words(removal, &ours);
		/* Another hook on top calls us through a pointer that we put back, or through one that we
		 * could not find. Or there is none: tracemalloc.stop() put back what was there before it,
		 * over us. */
		if (code == 0 && foreign && !copies.count && pl_copies_elsewhere(removal->probe, &removal->carrier->maps))
			code = -EBUSY;
		if (code == 0 && ours)
			continue;
		if (code == 0)
			code = see_all_outside(removal);
		if (code == 0)
			(void)look_at_words(removal, &ours);
	}
	pl_copies_free(&copies);
	return code == 0 && ours ? -EACCES : code;
}

static int let_go(struct carrier *carrier, const struct pl_probe *probe, int64_t patience_ns, struct pl_probe_left *left)
{
	struct seeing removal = {.carrier = carrier, .probe = probe, .patience_ns = patience_ns};
	int code = 0;

	if (probe->filled)
		code = prove(&removal);
	/* From here on it is about who may carry a call. */
	if (code != -EAGAIN)
		removal.left = (struct pl_probe_left){0};
	if (code == 0 && probe->filled)
		code = open_lists(&removal);
	if (code == 0 && probe->filled)
		code = free_tables(&removal);
	if (code == 0 || (code == -EFAULT && !probe->tables))
		code = unmap(&removal);
	(void)carrier_rest(carrier);
	seeing_free(&removal);
	*left = removal.left;
	return code;
}

/*
 * A thread that carried a call of a dead pyleak may have made it since the probe was found: the last but one unmaps the
 * tables. What is there then is let go anew. So is a probe if no thread could be held to carry a call: all steps can be
 * done again.
 */
int pl_probe_let_go(struct carrier *carrier, const struct pl_probe *probe, int64_t patience_ns, struct pl_error *err)
{
	const int64_t give_up = pl_now_ns() + patience_ns;
	struct pl_probe_left left = {0};
	int code;

	do {
		code = let_go(carrier, probe, patience_ns, &left);
	} while ((code == -ETIMEDOUT || (code == -EAGAIN && left.stay == PL_PROBE_STAY_NOT_SAID)) && pl_now_ns() < give_up &&
		 carrier_look(carrier) == 0);
	if (code == -EFAULT || code == -ENOMEM) {
		struct pl_probe now = {0};
		int found = pl_probe_find(probe->pid, &now);

		if (found == -ENOENT)
			code = 0;
		else if (found == 0 && now.base == probe->base && now.tables != probe->tables)
			code = let_go(carrier, &now, patience_ns, &left);
		pl_probe_free(&now);
	}
	return pl_probe_explain_left(probe->pid, code, &left, err);
}

int pl_probe_detach_running(pid_t pid, int64_t patience_ns, int64_t *ret_stop_ns, struct pl_error *err)
{
	struct carrier carrier;
	struct pl_probe probe = {0};
	int code = carrier_init(&carrier, pid, err);

	if (code == 0)
		code = pl_probe_find(pid, &probe);
	if (code == 0)
		code = pl_probe_let_go(&carrier, &probe, patience_ns, err);
	else if (code == -ENOENT)
		code = 0;
	pl_probe_free(&probe);
	carrier_free(&carrier);
	pl_log_debug("removal held a thread of process %d for %.2f ms at most", (int)pid, (double)carrier.longest_hold / 1e6);
	if (ret_stop_ns)
		*ret_stop_ns = carrier.longest_hold;
	return code;
}
