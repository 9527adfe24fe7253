/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "copies.h"
#include "pieces.h"
#include "pyleak/cleanup.h"
#include "pyleak/log.h"
#include "pyleak/memory.h"
#include "pyleak/process.h"
#include "pyleak/units.h"
#include "quiescent.h"
#include "remove.h"
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

/* Until it has stopped it is not held: it waits for a processor. */
#define HELD_NSEC (200 * PL_NSEC_PER_MSEC)
#define PAUSE_NSEC PL_NSEC_PER_MSEC
#define PAUSE_NSEC_MAX (20 * PL_NSEC_PER_MSEC)
enum { FREE_LIST_MAX = 4096, ROUNDS_MAX = 8, LISTS_TRIES = 8 };

struct seen {
	pid_t *items;
	size_t count, capacity;
};

struct removal {
	struct carrier *carrier;
	const struct pl_probe *probe;
	struct seen seen;
	int64_t give_up;
};

static void sleep_ns(int64_t ns)
{
	const struct timespec duration = {ns / PL_NSEC_PER_SEC, ns % PL_NSEC_PER_SEC};

	(void)nanosleep(&duration, NULL);
}

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
static int look_at_words(const struct removal *removal, size_t *ret_ours)
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

static int put_words_back(struct removal *removal, const struct pl_copies *copies)
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
	return count ? carrier_run(removal->carrier, probe, rows, count) : 0;
}

/* -- threads ---------------------------------------------------------------------------------------------- */

static bool was_seen(const struct seen *seen, pid_t tid)
{
	for (size_t i = 0; i < seen->count; i++)
		if (seen->items[i] == tid)
			return true;
	return false;
}

static int note_seen(struct seen *seen, pid_t tid)
{
	if (seen->count == seen->capacity) {
		size_t capacity = seen->capacity ? 2 * seen->capacity : 64;
		pid_t *items = reallocarray(seen->items, capacity, sizeof(*items));

		if (!items)
			return -ENOMEM;
		seen->items = items;
		seen->capacity = capacity;
	}
	seen->items[seen->count++] = tid;
	return 0;
}

/* Whether a thread is outside of what is asked about: the probe, or its routine for errands alone. */
struct question {
	bool routine_only;
};

static bool in_routine(const struct removal *removal, uint64_t ip)
{
	return ip >= removal->probe->header.errand_entry && ip < removal->probe->header.errand_end;
}

static enum outside hold_and_look(struct removal *removal, const struct question *question, pid_t pid, pid_t tid)
{
	struct pl_tracee *tracee = NULL;
	enum outside outside = OUTSIDE_UNKNOWN;
	pl_registers regs;
	int code = pl_tracee_hold(pid, tid, HELD_NSEC, &tracee);

	if (code < 0)
		return code == -ESRCH ? OUTSIDE_YES : OUTSIDE_UNKNOWN;
	if (!question->routine_only)
		outside = pl_thread_outside(&tracee->threads[0], tid == removal->probe->pid, removal->probe, &removal->carrier->maps);
	else if (pl_thread_registers(&tracee->threads[0], &regs) == 0)
		outside = in_routine(removal, pl_registers_ip(&regs)) ? OUTSIDE_NO : OUTSIDE_YES;

	int64_t held = pl_tracee_detach(tracee);

	if (held > removal->carrier->longest_hold)
		removal->carrier->longest_hold = held;
	return outside;
}

static enum outside look_at_thread(struct removal *removal, const struct question *question, pid_t pid, pid_t tid);

/* A child that shares the memory until it calls exec() can be in the probe like a thread; its parent waits for it. */
static enum outside look_at_children(struct removal *removal, const struct question *question, pid_t pid, pid_t tid)
{
	pl_autofree pid_t *children = NULL;
	enum outside outside = OUTSIDE_YES;
	size_t count = 0;

	if (pl_process_thread_children(pid, tid, &children, &count) < 0)
		return OUTSIDE_UNKNOWN;
	for (size_t i = 0; i < count && outside == OUTSIDE_YES; i++)
		if (pl_process_shares_memory(pid, children[i]))
			outside = look_at_thread(removal, question, children[i], children[i]);
	return outside;
}

static enum outside look_at_thread(struct removal *removal, const struct question *question, pid_t pid, pid_t tid)
{
	struct pl_asleep asleep;
	enum outside outside = OUTSIDE_UNKNOWN;

	if (question->routine_only) {
		int code = pl_asleep_read(pid, tid, &asleep);

		if (code == -ESRCH)
			return OUTSIDE_YES;
		if (code == 0)
			outside = in_routine(removal, asleep.ip) ? OUTSIDE_NO : OUTSIDE_YES;
	} else {
		outside = pl_sleeper_outside(pid, tid, removal->probe, &removal->carrier->maps, &asleep);
	}
	if (outside == OUTSIDE_YES && pl_asleep_may_wait_for_child(&asleep))
		return look_at_children(removal, question, pid, tid);
	/* Who waits uninterruptibly could not be stopped. */
	if (outside != OUTSIDE_UNKNOWN || asleep.state == 'D')
		return outside;
	if (pl_thread_is_kernels(pid, tid))
		return OUTSIDE_YES;
	return hold_and_look(removal, question, pid, tid);
}

/* Each thread is seen outside once. 0; -EAGAIN: some were not in time. */
static int see_all(struct removal *removal, const struct question *question)
{
	int64_t pause = PAUSE_NSEC;

	removal->seen.count = 0;
	for (;;) {
		pl_autofree pid_t *tids = NULL;
		size_t count = 0, left = 0;
		int code = carrier_look(removal->carrier);

		if (code == 0)
			code = pl_process_threads(removal->probe->pid, &tids, &count);
		for (size_t i = 0; code == 0 && i < count; i++) {
			if (was_seen(&removal->seen, tids[i]))
				continue;
			if (look_at_thread(removal, question, removal->probe->pid, tids[i]) == OUTSIDE_YES)
				code = note_seen(&removal->seen, tids[i]);
			else
				left++;
		}
		/* Threads that were born since the list was made began outside. */
		if (code < 0 || !left)
			return code;
		if (pl_now_ns() >= removal->give_up) {
			pl_log_debug("%zu threads of process %d were not seen outside of the probe", left, (int)removal->probe->pid);
			return -EAGAIN;
		}
		sleep_ns(pause);
		pause = 2 * pause < PAUSE_NSEC_MAX ? 2 * pause : PAUSE_NSEC_MAX;
	}
}

static int see_all_outside(struct removal *removal)
{
	const struct question question = {0};
	int code = see_all(removal, &question);

	if (code < 0 || !removal->probe->header.inside_words)
		return code;
	/* Nobody is about to enter a deallocator; once no object is in one either, nobody will be led back. */
	while (!pl_probe_is_empty(removal->probe, removal->probe->pid)) {
		if (pl_now_ns() >= removal->give_up) {
			pl_log_debug("objects of process %d are on their way through a deallocator of the probe",
				(int)removal->probe->pid);
			return -EAGAIN;
		}
		sleep_ns(PAUSE_NSEC);
	}
	return see_all(removal, &question);
}

/* A thread that a pyleak sent on an errand before it died may be at it, or not have begun: what it is told must not be
 * changed under it. */
static int errand_settle(struct removal *removal)
{
	const struct pl_probe *probe = removal->probe;
	const struct question question = {.routine_only = true};
	const uint32_t idle = PL_PROBE_ERRAND_IDLE;
	uint32_t state;
	int code = pl_memory_read(probe->pid, probe->header.errand, &state, sizeof(state));

	if (code < 0 || state == PL_PROBE_ERRAND_IDLE)
		return code;
	code = see_all(removal, &question);
	return code < 0 ? code : carrier_write(removal->carrier, probe->header.errand, &idle, sizeof(idle));
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
static int open_lists(struct removal *removal)
{
	struct pl_probe_errand_row rows[PL_PROBE_MAX_HOOKS];
	int code = 0;

	for (int tries = 0; code == 0 && tries < LISTS_TRIES; tries++) {
		size_t count = rows_of_closed_lists(removal->probe, rows);

		if (!count)
			break;
		if (tries)
			sleep_ns(PAUSE_NSEC);
		code = carrier_run(removal->carrier, removal->probe, rows, count);
		(void)carrier_rest(removal->carrier);
	}
	return code;
}

/* Large tables in pieces, so that nobody waits for long whose memory the kernel looks after meanwhile. */
static int free_tables(struct removal *removal)
{
	struct pl_pieces pieces;
	int code = 0;

	pl_pieces_plan(removal->probe, &pieces);
	while (code == 0 && pieces.next < pieces.count) {
		const struct pl_range piece = pieces.items[pieces.next++];

		code = carrier_call(removal->carrier, SYS_madvise,
			(const uint64_t[6]){piece.start, piece.end - piece.start, MADV_DONTNEED, 0, 0, 0}, NULL);
	}
	(void)carrier_rest(removal->carrier);
	if (pieces.next)
		pl_log_debug("%zu pieces of its tables were freed before the rest", pieces.next);
	pl_pieces_free(&pieces);
	return code;
}

/* The code last: while it is there, the rest is found again. */
static int unmap(struct removal *removal)
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
static int disarm(struct removal *removal)
{
	const uint32_t zero = 0;

	return carrier_write(removal->carrier, removal->probe->header.armed_address, &zero, sizeof(zero));
}

static int prove(struct removal *removal)
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

static int let_go(struct carrier *carrier, const struct pl_probe *probe, int64_t give_up)
{
	struct removal removal = {.carrier = carrier, .probe = probe, .give_up = give_up};
	int code = 0;

	if (probe->filled)
		code = prove(&removal);
	if (code == 0 && probe->filled)
		code = open_lists(&removal);
	if (code == 0 && probe->filled)
		code = free_tables(&removal);
	if (code == 0 || (code == -EFAULT && !probe->tables))
		code = unmap(&removal);
	(void)carrier_rest(carrier);
	free(removal.seen.items);
	return code;
}

/* A thread that carried a call of a dead pyleak may have made it since the probe was found: the last but one unmaps the
 * tables. What is there then is let go anew. */
int pl_probe_let_go(struct carrier *carrier, const struct pl_probe *probe, int64_t patience_ns, struct pl_error *err)
{
	const int64_t give_up = pl_now_ns() + patience_ns;
	int code = let_go(carrier, probe, give_up);

	if (code == -EFAULT || code == -ENOMEM) {
		struct pl_probe now = {0};
		int found = pl_probe_find(probe->pid, &now);

		if (found == -ENOENT)
			code = 0;
		else if (found == 0 && now.base == probe->base && now.tables != probe->tables)
			code = let_go(carrier, &now, give_up);
		pl_probe_free(&now);
	}
	return pl_probe_explain_left(probe->pid, code, err);
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
