/* SPDX-License-Identifier: MIT */
#include "seen.h"

#include <errno.h>
#include <stdlib.h>

#include "pyleak/cleanup.h"
#include "pyleak/log.h"
#include "pyleak/process.h"
#include "pyleak/units.h"
#include "quiescent.h"

/* Until it has stopped it is not held: it waits for a processor. */
#define HELD_NSEC (200 * PL_NSEC_PER_MSEC)
#define PAUSE_NSEC PL_NSEC_PER_MSEC
#define PAUSE_NSEC_MAX (20 * PL_NSEC_PER_MSEC)
/* However long a round takes on a busy machine, or of very many threads, there are so many before it is given up, if they fit
 * into twice the time. */
enum { LOOKS_LEAST = 20, STACK_TRIES = 3 };

static const struct seen_thread *find_seen(struct seen *seen, pid_t tid)
{
	for (size_t i = 0; i < seen->count; i++) {
		const size_t at = seen->next < seen->count ? seen->next : 0;

		seen->next = at + 1;
		if (seen->items[at].tid == tid)
			return &seen->items[at];
	}
	return NULL;
}

static int note_seen(struct seen *seen, const struct seen_thread *thread)
{
	if (seen->count == seen->capacity) {
		size_t capacity = seen->capacity ? 2 * seen->capacity : 64;
		struct seen_thread *items = reallocarray(seen->items, capacity, sizeof(*items));

		if (!items)
			return -ENOMEM;
		seen->items = items;
		seen->capacity = capacity;
	}
	seen->items[seen->count++] = *thread;
	return 0;
}

/* Whether a thread is outside of what is asked about: the probe, or its routine for errands alone. */
struct question {
	bool routine_only;
};

static bool in_routine(const struct seeing *seeing, uint64_t ip)
{
	return ip >= seeing->probe->header.errand_entry && ip < seeing->probe->header.errand_end;
}

static enum outside hold_once(struct seeing *seeing, const struct question *question, pid_t pid, pid_t tid)
{
	struct pl_tracee *tracee = NULL;
	enum outside outside = OUTSIDE_UNKNOWN;
	pl_registers regs;
	int code = pl_tracee_hold(pid, tid, HELD_NSEC, &tracee);

	seeing->left = (struct pl_probe_left){.stay = code == -EPERM ? PL_PROBE_STAY_TRACED : PL_PROBE_STAY_UNSEEN, .tid = tid};
	if (code < 0)
		return code == -ESRCH ? OUTSIDE_YES : OUTSIDE_UNKNOWN;
	if (!question->routine_only)
		outside = pl_thread_outside(&tracee->threads[0], tid == seeing->probe->pid, seeing->probe,
			&seeing->carrier->maps, &seeing->left);
	else if (pl_thread_registers(&tracee->threads[0], &regs) == 0)
		outside = in_routine(seeing, pl_registers_ip(&regs)) ? OUTSIDE_NO : OUTSIDE_YES;

	int64_t held = pl_tracee_detach(tracee);

	if (held > seeing->carrier->longest_hold)
		seeing->carrier->longest_hold = held;
	return outside;
}

/* A thread that goes on to another stack again and again: what is mapped is looked at just before. */
static enum outside hold_and_look(struct seeing *seeing, const struct question *question, pid_t pid, pid_t tid)
{
	enum outside outside = hold_once(seeing, question, pid, tid);

	for (int tries = 0; outside == OUTSIDE_UNKNOWN && seeing->left.stay == PL_PROBE_STAY_STACK && tries < STACK_TRIES; tries++) {
		if (carrier_look(seeing->carrier) < 0)
			break;
		outside = hold_once(seeing, question, pid, tid);
	}
	return outside;
}

static enum outside look_at_thread(
	struct seeing *seeing, const struct question *question, pid_t pid, pid_t tid, struct seen_thread *ret);

/* A child that shares the memory until it calls exec() can be in the probe like a thread; its parent waits for it. */
static enum outside look_at_children(struct seeing *seeing, const struct question *question, pid_t pid, pid_t tid)
{
	pl_autofree pid_t *children = NULL;
	enum outside outside = OUTSIDE_YES;
	size_t count = 0;

	if (pl_process_thread_children(pid, tid, &children, &count) < 0)
		return OUTSIDE_UNKNOWN;
	for (size_t i = 0; i < count && outside == OUTSIDE_YES; i++) {
		struct seen_thread child;

		if (pl_process_shares_memory(pid, children[i]))
			outside = look_at_thread(seeing, question, children[i], children[i], &child);
	}
	return outside;
}

/* One that sleeps as it did when it was seen outside in the round before: it has not run since. */
static bool sleeps_on(struct seeing *seeing, pid_t pid, pid_t tid, struct pl_asleep *asleep)
{
	const struct seen_thread *before = find_seen(&seeing->before, tid);

	return before && before->slept && pl_asleep_read(pid, tid, asleep) == 0 && pl_asleep_same(&before->asleep, asleep);
}

static enum outside look_at_thread(
	struct seeing *seeing, const struct question *question, pid_t pid, pid_t tid, struct seen_thread *ret)
{
	struct pl_asleep asleep;
	enum outside outside = OUTSIDE_UNKNOWN;

	*ret = (struct seen_thread){.tid = tid};
	if (question->routine_only) {
		int code = pl_asleep_read(pid, tid, &asleep);

		if (code == -ESRCH)
			return OUTSIDE_YES;
		if (code == 0)
			outside = in_routine(seeing, asleep.ip) ? OUTSIDE_NO : OUTSIDE_YES;
	} else if (sleeps_on(seeing, pid, tid, &asleep)) {
		outside = OUTSIDE_YES;
	} else {
		outside = pl_sleeper_outside(pid, tid, seeing->probe, &seeing->carrier->maps, &asleep, &seeing->left);
	}
	*ret = (struct seen_thread){.tid = tid, .slept = outside == OUTSIDE_YES, .asleep = asleep};
	if (outside == OUTSIDE_YES && pl_asleep_may_wait_for_child(&asleep))
		return look_at_children(seeing, question, pid, tid);
	/* Who waits uninterruptibly could not be stopped. */
	if (outside != OUTSIDE_UNKNOWN || asleep.state == 'D')
		return outside;
	if (pl_thread_is_kernels(pid, tid))
		return OUTSIDE_YES;
	return hold_and_look(seeing, question, pid, tid);
}

static bool is_over(int looks, int64_t give_up, int64_t patience_ns)
{
	const int64_t now = pl_now_ns();

	return now >= give_up && (looks >= LOOKS_LEAST || now >= give_up + patience_ns);
}

/*
 * Each thread is seen outside once. 0; -EAGAIN: some were not in time.
 *
 * One that was born since this began need not be looked at: it began outside, and nobody comes in. That is more than
 * saving: of a program that begins threads all the time there was always one whose stack was newer than the look at what
 * is mapped, and on a busy machine no round was ever without one (test_no_stop.py: test_newborns). For the same reason the
 * list of the threads comes before that look.
 */
static int see_all(struct seeing *seeing, const struct question *question)
{
	const int64_t give_up = pl_now_ns() + seeing->patience_ns;
	const uint64_t began = pl_thread_ticks_now();
	const pid_t pid = seeing->probe->pid;
	int64_t pause = PAUSE_NSEC;

	/* Who carries calls is looked at too. */
	(void)carrier_rest(seeing->carrier);
	seeing->seen.count = 0;
	for (int looks = 1;; looks++) {
		pl_autofree pid_t *tids = NULL;
		size_t count = 0, left = 0;
		struct pl_probe_left first = {0};
		int code = pl_process_threads(pid, &tids, &count);

		if (code == 0)
			code = carrier_look(seeing->carrier);
		for (size_t i = 0; code == 0 && i < count; i++) {
			struct seen_thread thread;

			if (looks > 1 && find_seen(&seeing->seen, tids[i]))
				continue;
			/* Who says nothing of it was not seen. */
			seeing->left = (struct pl_probe_left){.stay = PL_PROBE_STAY_UNSEEN, .tid = tids[i]};
			if (look_at_thread(seeing, question, pid, tids[i], &thread) == OUTSIDE_YES ||
				(seeing->left.stay != PL_PROBE_STAY_CODE && pl_thread_began_after(pid, tids[i], began)))
				code = note_seen(&seeing->seen, &thread);
			else if (!left++)
				first = seeing->left;
		}
		seeing->left = first;
		if (code < 0 || !left)
			return code;
		if (is_over(looks, give_up, seeing->patience_ns)) {
			pl_log_debug("%zu threads of process %d were not seen outside of the probe", left, (int)pid);
			return -EAGAIN;
		}
		pl_sleep_ns(pause);
		pause = 2 * pause < PAUSE_NSEC_MAX ? 2 * pause : PAUSE_NSEC_MAX;
	}
}

/* Nobody is about to enter a deallocator; once no object is in one either, nobody will be led back. */
static int wait_for_objects(struct seeing *seeing)
{
	const int64_t give_up = pl_now_ns() + seeing->patience_ns;
	const struct pl_probe *probe = seeing->probe;
	uint32_t objects = 0;
	int code = 0;

	for (int looks = 1; (code = pl_probe_objects(probe, probe->pid, &objects)) == 0 && objects; looks++) {
		if (is_over(looks, give_up, seeing->patience_ns)) {
			seeing->left = (struct pl_probe_left){
				.stay = PL_PROBE_STAY_OBJECTS, .objects = objects, .tid = pl_probe_find_holder(probe)};
			pl_log_debug("%u objects of process %d are on their way through a deallocator of the probe", objects,
				(int)probe->pid);
			return -EAGAIN;
		}
		pl_sleep_ns(PAUSE_NSEC);
	}
	return code;
}

int see_all_outside(struct seeing *seeing)
{
	const struct question question = {0};
	int code = see_all(seeing, &question);

	if (code < 0 || !seeing->probe->header.inside_words)
		return code;
	code = wait_for_objects(seeing);
	if (code < 0)
		return code;

	const struct seen before = seeing->before;

	seeing->before = seeing->seen;
	seeing->seen = before;
	code = see_all(seeing, &question);
	seeing->before.count = 0;
	return code;
}

void seeing_free(struct seeing *seeing)
{
	free(seeing->seen.items);
	free(seeing->before.items);
}

int see_all_outside_of_routine(struct seeing *seeing)
{
	const struct question question = {.routine_only = true};

	return see_all(seeing, &question);
}
