/* SPDX-License-Identifier: MIT */
#include "targets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "apart.h"
#include "pyleak/cleanup.h"
#include "pyleak/log.h"
#include "pyleak/process.h"
#include "pyleak/units.h"
#include "stop.h"
#include "target_places.h"
#include "watch.h"

#define LOOK_PAUSE_NSEC (20 * PL_NSEC_PER_MSEC)
/* Of a family that ends together the last figures stand, if no more than this is between its first and its last end. */
#define RETIRE_NSEC (2 * PL_NSEC_PER_SEC)

/* With --children the process that was named may be none to record: a shell, a supervisor. Then the first
 * of its family leads that is. */
int pl_targets_check(struct pl_targets *targets, const struct pl_options *options, pid_t pid, struct pl_error *err)
{
	pl_autofree pid_t *pids = NULL;
	size_t count = 0;
	int code;

	targets->named = pid;
	code = pl_target_check(&targets->lead, pid, options->force, err);
	if (code == 0 || !options->children || pl_process_family(pid, &pids, &count) < 0)
		return code;
	for (size_t i = 1; code < 0 && i < count; i++) {
		struct pl_error ignored = {0};

		pl_target_close(&targets->lead);
		code = pl_target_check(&targets->lead, pids[i], options->force, &ignored);
	}
	if (code == 0)
		*err = (struct pl_error){0};
	return code == 0 ? 0 : err->code;
}

/* The account of the next process, behind so many others. */
static void add_account(struct pl_account *sum, const struct pl_account *one, size_t behind)
{
	if (behind)
		pl_account_add(sum, one);
	else
		*sum = *one;
}

int pl_targets_start(struct pl_targets *targets, const struct pl_options *options, struct pl_sites *sites,
	struct pl_error *err)
{
	int code;

	if (options->children) {
		targets->family = pl_family_new(targets->named, options, sites);
		if (!targets->family)
			return pl_fail(err, -ENOMEM, "out of memory");
	}
	code = pl_target_start(&targets->lead, options, sites, err);
	if (code < 0)
		return code;
	if (targets->family) {
		pl_engine_begin(targets->lead.engine, 0);
		pl_family_know(targets->family, &targets->lead);
		pl_family_look(targets->family);
	}
	targets->facts = targets->lead.facts;
	for (size_t i = 1; i < pl_targets_count(targets); i++) {
		const struct pl_facts *facts = &pl_targets_at(targets, i)->facts;

		targets->facts.rss += facts->rss;
		pl_account_add(&targets->facts.account, &facts->account);
	}
	return 0;
}

int pl_targets_go_on(struct pl_targets *targets, const struct pl_options *options, pid_t pid, struct pl_sites *sites,
	struct pl_error *err)
{
	int64_t stop_ns = targets->lead.engine ? pl_engine_stop_ns(targets->lead.engine) : 0;
	int code;

	if (targets->lead.engine)
		pl_engine_retire(targets->lead.engine);
	pl_losses_add(&targets->departed_losses, &targets->lead.state.losses);
	if (stop_ns > targets->departed_stop_ns)
		targets->departed_stop_ns = stop_ns;
	pl_target_close(&targets->lead);
	code = pl_targets_check(targets, options, pid, err);
	if (code == 0)
		code = pl_target_start(&targets->lead, options, sites, err);
	if (code == 0)
		targets->facts = targets->lead.facts;
	return code;
}

/* A family lets go of it at once. */
static void note_end(struct pl_targets *targets, struct pl_target *target)
{
	target->ended = true;
	target->ended_ns = pl_now_ns();
	if (targets->family) {
		pl_apart_end(targets, target);
		pl_target_end(target);
	}
}

/* Whether one is still recorded, or may come from the process that was named. */
static bool any_left(struct pl_targets *targets)
{
	bool left = targets->family && pl_family_has_root(targets->family);

	for (size_t i = 0; !left && i < pl_targets_count(targets); i++)
		left = !pl_targets_at(targets, i)->ended;
	return left;
}

/* All that is left of a member is a number. False: out of memory, it stays. */
static bool depart(struct pl_targets *targets, size_t member)
{
	const struct pl_target *target = pl_family_member(targets->family, member);
	int64_t stop_ns = pl_engine_stop_ns(target->engine);
	struct pl_departed *grown = targets->departed;

	/* Powers of two are where it is full. */
	if ((targets->departed_count & (targets->departed_count - 1)) == 0)
		grown = reallocarray(grown, targets->departed_count ? 2 * targets->departed_count : 1, sizeof(*grown));
	if (!grown)
		return false;
	targets->departed = grown;
	grown[targets->departed_count++] = (struct pl_departed){target->pid, target->ended_ns};
	pl_losses_add(&targets->departed_losses, &target->state.losses);
	if (stop_ns > targets->departed_stop_ns)
		targets->departed_stop_ns = stop_ns;
	pl_family_forget(targets->family, member);
	return true;
}

/*
 * What was live in a process that ended has ended with it, as long as others go on: of a family of which nobody is left,
 * the last figures stand, as they do of one process. So those who ended before `before_ns` are retired, and forgotten.
 */
static void retire_ended(struct pl_targets *targets, int64_t before_ns)
{
	if (!targets->family || !any_left(targets))
		return;
	for (size_t i = pl_targets_count(targets); i-- > 0;) {
		struct pl_target *target = pl_targets_at(targets, i);

		if (!target->ended || target->ended_ns > before_ns)
			continue;
		if (!target->retired)
			pl_engine_retire(target->engine);
		target->retired = true;
		if (i > 0)
			(void)depart(targets, i - 1);
	}
}

static void look_at_all(struct pl_targets *targets)
{
	for (size_t i = 0; i < pl_targets_count(targets); i++) {
		struct pl_target *target = pl_targets_at(targets, i);

		if (target->ended)
			continue;
		if (pl_engine_look(target->engine) != -ESRCH) {
			pl_apart_look(target);
			continue;
		}
		note_end(targets, target);
		pl_log_note("process %d has ended", (int)target->pid);
	}
	retire_ended(targets, pl_now_ns() - RETIRE_NSEC);
	pl_family_look(targets->family);
}

static int run_family(struct pl_targets *targets, int64_t until_ns, struct pl_error *err)
{
	for (int64_t now = pl_now_ns(); now < until_ns; now = pl_now_ns()) {
		int64_t pause = until_ns - now < LOOK_PAUSE_NSEC ? until_ns - now : LOOK_PAUSE_NSEC;
		const struct timespec timeout = {0, pause};

		if (*pl_stop_flag())
			return -EINTR;
		(void)nanosleep(&timeout, NULL);
		look_at_all(targets);
		if (!any_left(targets))
			return -ESRCH;

		int code = pl_watch_headroom(targets, err);

		if (code < 0)
			return code;
	}
	return 0;
}

/* One process, in steps between which other things are looked at. */
static int run_one(struct pl_targets *targets, int64_t until_ns, struct pl_error *err)
{
	int code;

	do {
		int64_t next = targets->next_headroom_look;

		code = pl_engine_run(targets->lead.engine, next < until_ns ? next : until_ns, pl_stop_flag(), err);
		if (code == 0)
			code = pl_watch_headroom(targets, err);
	} while (code == 0 && pl_now_ns() < until_ns);
	return code;
}

int pl_targets_run(struct pl_targets *targets, int64_t until_ns, struct pl_error *err)
{
	int code;

	if (targets->family)
		return run_family(targets, until_ns, err);
	code = run_one(targets, until_ns, err);
	if (code == -ESRCH)
		note_end(targets, &targets->lead);
	return code;
}

void pl_targets_update(struct pl_targets *targets, struct pl_engine_state *ret)
{
	*ret = (struct pl_engine_state){.losses = targets->departed_losses};
	for (size_t i = 0; i < pl_targets_count(targets); i++) {
		struct pl_target *target = pl_targets_at(targets, i);
		int code = target->ended && targets->family ? 0 : pl_engine_update(target->engine, &target->state);

		/* Once recording is over, the probe is gone and the process is not. */
		if (code == -ESRCH && targets->family && !targets->finished)
			note_end(targets, target);
		if (target->ended)
			target->state.rss = 0;
		ret->rss += target->state.rss;
		pl_losses_add(&ret->losses, &target->state.losses);
	}
	retire_ended(targets, INT64_MAX);
}

void pl_targets_account(struct pl_targets *targets, const struct pl_touched *by_site, struct pl_account *ret)
{
	size_t living = 0;

	*ret = (struct pl_account){0};
	for (size_t i = 0; i < pl_targets_count(targets); i++) {
		struct pl_target *target = pl_targets_at(targets, i);
		struct pl_account one;

		if (target->ended && targets->family)
			continue;
		pl_target_account(target, by_site, &one);
		if (targets->family)
			pl_apart_account(targets, target, &one);
		add_account(ret, &one, living++);
	}
	pl_apart_into_account(targets, ret);
}

static bool is_named(const struct pl_unrecorded *all, size_t count, const char *path)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(all[i].path, path) == 0)
			return true;
	return false;
}

int pl_targets_unrecorded(struct pl_targets *targets, struct pl_unrecorded **ret, size_t *ret_count)
{
	struct pl_unrecorded *all = NULL;
	size_t total = 0;

	for (size_t i = 0; i < pl_targets_count(targets); i++) {
		const struct pl_target *target = pl_targets_at(targets, i);
		size_t count = 0;
		const struct pl_engine_library *left = target->engine && !(target->ended && targets->family) ?
							       pl_engine_left(target->engine, &count) : NULL;
		struct pl_unrecorded *grown = count ? reallocarray(all, total + count, sizeof(*all)) : all;

		if (count && !grown) {
			free(all);
			return -ENOMEM;
		}
		all = grown;
		for (size_t j = 0; j < count; j++)
			if (left[j].left && !is_named(all, total, left[j].path))
				all[total++] = (struct pl_unrecorded){left[j].path, left[j].left, left[j].why};
	}
	*ret = all;
	*ret_count = total;
	return 0;
}

int64_t pl_targets_stop_ns(struct pl_targets *targets)
{
	int64_t longest = targets->departed_stop_ns;

	for (size_t i = 0; i < pl_targets_count(targets); i++) {
		int64_t stop_ns = pl_engine_stop_ns(pl_targets_at(targets, i)->engine);

		if (stop_ns > longest)
			longest = stop_ns;
	}
	return longest;
}

pid_t pl_targets_living(struct pl_targets *targets)
{
	for (size_t i = 0; i < pl_targets_count(targets); i++)
		if (!pl_targets_at(targets, i)->ended)
			return pl_targets_at(targets, i)->pid;
	return 0;
}

pid_t *pl_targets_since(struct pl_targets *targets, int64_t since_ns, size_t *ret_count)
{
	pid_t *pids = calloc(pl_targets_count(targets) + targets->departed_count, sizeof(*pids));

	*ret_count = 0;
	for (size_t i = 0; pids && i < targets->departed_count; i++)
		if (targets->departed[i].ended_ns >= since_ns)
			pids[(*ret_count)++] = targets->departed[i].pid;
	for (size_t i = 0; pids && i < pl_targets_count(targets); i++) {
		const struct pl_target *target = pl_targets_at(targets, i);

		if (!target->ended || target->ended_ns >= since_ns)
			pids[(*ret_count)++] = target->pid;
	}
	return pids;
}

/* One that cannot be let go does not keep the others. */
int pl_targets_finish(struct pl_targets *targets, const struct pl_options *options, struct pl_error *err)
{
	bool again = targets->finished;
	int code = 0;

	targets->finished = true;
	for (size_t i = 0; i < pl_targets_count(targets); i++) {
		struct pl_target *target = pl_targets_at(targets, i);
		struct pl_error failure = {0};

		if (target->engine && pl_engine_finish(target->engine, &failure) < 0)
			code = pl_fail(err, failure.code, "%s", failure.text);
	}
	if (targets->family && !again && !options->keep)
		pl_family_sweep(targets->family);
	return code;
}

void pl_targets_close(struct pl_targets *targets)
{
	pl_target_close(&targets->lead);
	pl_family_free(PL_TAKE(targets->family));
	pl_places_free(&targets->apart_places);
	free(PL_TAKE(targets->departed));
}

struct pl_places *pl_targets_places(struct pl_targets *targets, const struct pl_account *account)
{
	struct pl_places *sum = account->taken ? calloc(1, sizeof(*sum)) : NULL;

	for (size_t i = 0; sum && i < pl_targets_count(targets); i++) {
		struct pl_target *target = pl_targets_at(targets, i);
		struct pl_places one;
		int code;

		if (target->ended || !target->python)
			continue;
		pl_target_places(target, account, &one);
		if (targets->family)
			pl_apart_places(targets, target, &one);
		code = one.count ? pl_places_add(sum, &one) : -1;
		pl_places_free(&one);
		if (code < 0) {
			pl_places_free(sum);
			free(PL_TAKE(sum));
		}
	}
	if (sum && pl_apart_into_places(targets, sum) < 0) {
		pl_places_free(sum);
		free(PL_TAKE(sum));
	}
	return sum;
}

struct pl_places *pl_targets_places_before(struct pl_targets *targets)
{
	struct pl_places *sum = calloc(1, sizeof(*sum));

	for (size_t i = 0; sum && i < pl_targets_count(targets); i++) {
		const struct pl_target *target = pl_targets_at(targets, i);

		if (!target->places.count || pl_places_add(sum, &target->places) < 0) {
			pl_places_free(sum);
			free(PL_TAKE(sum));
		}
	}
	return sum;
}
