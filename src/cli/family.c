/* SPDX-License-Identifier: MIT */
#include "family.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "pyleak/cleanup.h"
#include "pyleak/hook.h"
#include "pyleak/log.h"
#include "pyleak/process.h"
#include "pyleak/units.h"
#include "stop.h"

#define LOOK_NSEC (500 * PL_NSEC_PER_MSEC)
#define RETRY_NSEC_MAX (64 * PL_NSEC_PER_SEC)
#define SWEEP_PATIENCE_NSEC (2 * PL_NSEC_PER_SEC)
#define START_NSEC (1 * PL_NSEC_PER_SEC)
#define WARN_AT_TRY 3 /* a Python that is being started is none yet */

/* A process of the family, recorded or not. */
struct kin {
	pid_t pid;
	uint64_t start_time;
	const struct pl_target *target; /* NULL: not recorded */
	int64_t next_try;
	int tries;
	bool here; /* in the last look */
	bool left_alone; /* its probe was another's, who has removed it */
};

struct pl_family {
	const struct pl_options *options;
	struct pl_sites *sites;
	pid_t root;
	uint64_t root_start_time;
	struct kin *kin;
	size_t kin_count;
	struct pl_target **members;
	size_t member_count;
	int64_t next_look;
	bool looked;
};

/* Each process takes some. */
static void allow_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

struct pl_family *pl_family_new(pid_t root, const struct pl_options *options, struct pl_sites *sites)
{
	struct pl_family *family = calloc(1, sizeof(*family));

	if (!family)
		return NULL;
	family->options = options;
	family->sites = sites;
	family->root = root;
	(void)pl_process_start_time(root, &family->root_start_time);
	allow_descriptors();
	return family;
}

void pl_family_free(struct pl_family *family)
{
	if (!family)
		return;
	for (size_t i = 0; i < family->member_count; i++) {
		pl_target_close(family->members[i]);
		free(family->members[i]);
	}
	free(family->members);
	free(family->kin);
	free(family);
}

size_t pl_family_count(const struct pl_family *family)
{
	return family ? family->member_count : 0;
}

struct pl_target *pl_family_member(const struct pl_family *family, size_t i)
{
	return family->members[i];
}

void pl_family_forget(struct pl_family *family, size_t i)
{
	struct pl_target *member = family->members[i];

	for (size_t j = 0; j < family->kin_count; j++)
		if (family->kin[j].target == member)
			family->kin[j].target = NULL;
	pl_target_close(member);
	free(member);
	family->member_count--;
	memmove(&family->members[i], &family->members[i + 1], (family->member_count - i) * sizeof(struct pl_target *));
}

bool pl_family_has_root(const struct pl_family *family)
{
	return pl_process_is_alive(family->root, family->root_start_time);
}

static struct kin *kin_find(const struct pl_family *family, pid_t pid, uint64_t start_time)
{
	for (size_t i = 0; i < family->kin_count; i++)
		if (family->kin[i].pid == pid && family->kin[i].start_time == start_time)
			return &family->kin[i];
	return NULL;
}

/* NULL: out of memory. */
static struct kin *kin_add(struct pl_family *family, pid_t pid, uint64_t start_time)
{
	struct kin *grown = reallocarray(family->kin, family->kin_count + 1, sizeof(*grown));

	if (!grown)
		return NULL;
	family->kin = grown;
	grown[family->kin_count] = (struct kin){.pid = pid, .start_time = start_time};
	return &grown[family->kin_count++];
}

void pl_family_know(struct pl_family *family, const struct pl_target *lead)
{
	struct kin *kin = kin_add(family, lead->pid, lead->start_time);

	if (kin)
		kin->target = lead;
}

/* The process and who descends from it. */
static void note_family_of(struct pl_family *family, pid_t pid)
{
	pl_autofree pid_t *pids = NULL;
	size_t count = 0;

	if (pl_process_family(pid, &pids, &count) < 0)
		return;
	for (size_t i = 0; i < count; i++) {
		struct kin *kin;
		uint64_t start_time;

		if (pids[i] == getpid() || pl_process_start_time(pids[i], &start_time) < 0)
			continue;
		kin = kin_find(family, pids[i], start_time);
		if (!kin) {
			kin = kin_add(family, pids[i], start_time);
			if (!kin)
				return;
			kin->next_try = family->looked ? pl_now_ns() + LOOK_NSEC : 0;
		}
		kin->here = true;
	}
}

/* Who lost its parent is nobody's descendant any more, but still in the family if it is recorded; and so are
 * its children. */
static void note_everybody(struct pl_family *family)
{
	size_t count = family->kin_count, kept = 0;

	for (size_t i = 0; i < count; i++)
		family->kin[i].here = false;
	if (pl_family_has_root(family))
		note_family_of(family, family->root);
	for (size_t i = 0; i < count; i++) {
		const struct kin *kin = &family->kin[i];

		if (!kin->here && kin->target && !kin->target->ended)
			note_family_of(family, kin->pid);
	}
	for (size_t i = 0; i < family->kin_count; i++)
		if (family->kin[i].here)
			family->kin[kept++] = family->kin[i];
	family->kin_count = kept;
}

static void put_off(struct kin *kin, int code, const struct pl_error *err)
{
	int64_t pause = kin->tries < 7 ? LOOK_NSEC << kin->tries : RETRY_NSEC_MAX;

	kin->next_try = pl_now_ns() + pause;
	if (++kin->tries == WARN_AT_TRY && code != -ENOEXEC && code != -ESRCH)
		pl_log_warning("process %d is not recorded: %s", (int)kin->pid, err->text);
}

static void take_in(struct pl_family *family, struct kin *kin)
{
	struct pl_target **grown = reallocarray(family->members, family->member_count + 1, sizeof(struct pl_target *));
	struct pl_target *target = calloc(1, sizeof(*target));
	struct pl_error err = {0};
	int code;

	if (grown)
		family->members = grown;
	if (!grown || !target) {
		free(target);
		return;
	}
	code = pl_target_check(target, kin->pid, family->options->force, &err);
	if (code == 0)
		code = pl_target_start(target, family->options, family->sites, &err);
	if (code < 0) {
		put_off(kin, code, &err);
		pl_target_close(target);
		free(target);
		return;
	}
	/* Its first moments are those of a start: imports, caches that every worker fills. */
	target->settled_ns = family->looked ? pl_now_ns() + START_NSEC : 0;
	pl_engine_begin(target->engine, target->settled_ns);
	family->members[family->member_count++] = target;
	kin->target = target;
}

void pl_family_look(struct pl_family *family)
{
	int64_t now = pl_now_ns();

	if (now < family->next_look)
		return;
	note_everybody(family);
	for (size_t i = 0; i < family->kin_count; i++) {
		struct kin *kin = &family->kin[i];

		/* It runs another program now. An adopted probe may have been removed by its owner. */
		if (kin->target && kin->target->ended) {
			kin->left_alone = kin->target->adopted;
			kin->target = NULL;
			kin->next_try = now + LOOK_NSEC;
		}
		if (!kin->target && !kin->left_alone && now >= kin->next_try && !*pl_stop_flag())
			take_in(family, kin);
	}
	family->looked = true;
	family->next_look = pl_now_ns() + LOOK_NSEC;
}

void pl_family_sweep(struct pl_family *family)
{
	note_everybody(family);
	for (size_t i = 0; i < family->kin_count; i++) {
		const struct kin *kin = &family->kin[i];
		struct pl_process process;
		bool found;

		if (kin->target || !pl_probe_present(kin->pid))
			continue;
		if (pl_process_read(kin->pid, &process) == 0 && pl_process_may_trace(&process, NULL) == 0 &&
			pl_probe_claim(kin->pid) == 0) {
			(void)pl_probe_detach(kin->pid, SWEEP_PATIENCE_NSEC, &found, NULL, NULL);
			pl_probe_unclaim(kin->pid, kin->start_time);
		}
		pl_process_free(&process);
	}
}
