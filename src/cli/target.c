/* SPDX-License-Identifier: MIT */
#include "target.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "checks.h"
#include "pyleak/account_reader.h"
#include "pyleak/cleanup.h"
#include "pyleak/hook.h"
#include "pyleak/log.h"
#include "pyleak/process.h"
#include "pyleak/units.h"
#include "target_places.h"
#include "stop.h"

#define LEFTOVER_PATIENCE_NSEC (2 * PL_NSEC_PER_SEC)
#define GUARDIAN_PATIENCE_NSEC (10 * PL_NSEC_PER_SEC) /* it took four on a machine with ten times the work that it can do */
#define SOON_NSEC (PL_NSEC_PER_SEC / 4)
enum { SOON_SHARE = 10 };
#define RECORDING_PERCENT 35 /* of what is tracked, at most */
#define CLAIM_PAUSE_NSEC (20 * PL_NSEC_PER_MSEC)

static bool may_pass(pid_t pid)
{
	pid_t holder = pl_probe_claimant(pid);
	struct pl_process process = {0};
	bool stranger = !holder || pl_process_read(holder, &process) < 0 || !pl_check_is_pyleak(&process);

	pl_process_free(&process);
	return stranger;
}

/* The guardian of a killed pyleak has it for a second. */
/* Nobody's any more, or a guardian's: that of a killed pyleak. */
static bool is_left_soon(pid_t pid)
{
	pid_t other = pl_probe_claimant(pid);
	struct pl_process process = {0};
	bool soon = !other || pl_process_read(other, &process) < 0 || strcmp(process.comm, PL_GUARDIAN_NAME) == 0;

	pl_process_free(&process);
	return soon;
}

int pl_target_claim(pid_t pid, bool by_force, struct pl_error *err)
{
	const struct timespec pause = {.tv_nsec = CLAIM_PAUSE_NSEC};
	const int64_t begun = pl_now_ns();
	int code;

	while ((code = pl_probe_claim(pid)) == -EBUSY && !*pl_stop_flag() &&
		(pl_now_ns() - begun < LEFTOVER_PATIENCE_NSEC ||
			(pl_now_ns() - begun < GUARDIAN_PATIENCE_NSEC && is_left_soon(pid))))
		(void)nanosleep(&pause, NULL);
	if (code == -EBUSY && by_force && may_pass(pid))
		code = pl_probe_claim_by_force(pid);
	if (code == -EBUSY)
		return pl_check_claimed(pid, err);
	return code < 0 ? pl_fail(err, code, "process %d cannot be read: %s", (int)pid, strerror(-code)) : 0;
}

static int check(struct pl_subject *subject, struct pl_error *err)
{
	int code = pl_checks_before_planting(subject, err);
	struct pl_error claimed = {0};

	/* Perhaps a guardian has it, which is done in a moment. */
	if (code == -EBUSY && pl_target_claim(subject->process.pid, subject->by_force, &claimed) == 0) {
		*err = (struct pl_error){0};
		code = pl_checks_before_planting(subject, err);
	}
	return code;
}

/* Whatever failed failed for that. */
static int explain_end(const struct pl_target *target, int code, struct pl_error *err)
{
	if (code == 0 || !target->start_time || pl_process_is_alive(target->pid, target->start_time))
		return code;
	*err = (struct pl_error){0};
	return pl_fail(err, -ESRCH, "process %d ended before anything was recorded", (int)target->pid);
}

int pl_target_check(struct pl_target *target, pid_t pid, bool by_force, struct pl_error *err)
{
	struct pl_subject subject;
	int code = pl_subject_open(&subject, pid, by_force, err);
	/* Else the check says what it is: a zombie, or a thread of the kernel, which has no memory either. */
	bool lived = pl_process_is_alive(pid, subject.process.start_time);

	*target = (struct pl_target){.pid = pid, .start_time = subject.process.start_time};
	if (code == 0)
		code = check(&subject, err);
	target->space = PL_TAKE(subject.space);
	target->python = PL_TAKE(subject.python);
	if (code == 0)
		pl_log_note("process %d, Python %s: %s", (int)pid, target->python->version, subject.process.command_line);
	if (code == 0 && target->python->unknown)
		pl_log_note("Python %s is newer than this pyleak, which goes by what the interpreter says of itself",
			target->python->version);
	pl_subject_close(&subject);
	return lived ? explain_end(target, code, err) : code;
}

static void add_setting(char *text, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void add_setting(char *text, size_t size, const char *format, ...)
{
	size_t used = strlen(text);
	va_list arguments;

	va_start(arguments, format);
	if (used)
		used += (size_t)snprintf(text + used, size - used, ", ");
	(void)vsnprintf(text + used, size - used, format, arguments);
	va_end(arguments);
}

/* A probe keeps the settings that it was planted with: whoever asks for others is told. */
static void note_settings(const struct pl_target *target, const struct pl_options *options)
{
	const struct pl_facts *facts = &target->facts;
	char text[200] = "", size[PL_SIZE_TEXT];

	if (options->frames_given && options->frames != facts->frames)
		add_setting(text, sizeof(text), "%d frame%s of each traceback", facts->frames, facts->frames == 1 ? "" : "s");
	if (options->sample_given && options->sample != facts->sample && facts->sample) {
		pl_format_size((int64_t)facts->sample, false, size);
		add_setting(text, sizeof(text), "one allocation of each %s", size);
	} else if (options->sample_given && options->sample != facts->sample) {
		add_setting(text, sizeof(text), "every allocation");
	}
	if (options->tables && options->tables != facts->tables) {
		pl_format_size((int64_t)facts->tables, false, size);
		add_setting(text, sizeof(text), "tables of at most %s", facts->tables ? size : "a share of its memory");
	}
	if (options->domain_given && options->native && !facts->native)
		add_setting(text, sizeof(text), "nothing of native allocators");
	if (*text)
		pl_log_warning("process %d goes on being recorded as it was before (%s): for other settings, 'pyleak detach %d' "
			       "first, which ends that recording",
			(int)target->pid, text, (int)target->pid);
}

static int adopt(struct pl_target *target, struct pl_probe *probe, const struct pl_options *options, struct pl_sites *sites,
	struct pl_error *err)
{
	int code = pl_engine_adopt(target->python, probe, sites, options->per_process, options->native_frames,
		&target->engine, err);

	target->adopted = code == 0;
	pl_probe_unclaim(target->pid, target->start_time); /* there may be any number of readers */
	return code;
}

/* A probe that is there: one that was planted to stay is adopted; what a killed pyleak left behind,
 * or a fork inherited, is in the way and goes. */
static int take_over(struct pl_target *target, const struct pl_options *options, struct pl_sites *sites,
	struct pl_error *err)
{
	pid_t pid = target->pid;
	struct pl_probe probe;
	bool found;
	int code = pl_probe_find(pid, &probe);
	bool kept = code == 0 && pl_probe_is_kept(&probe);

	pl_probe_free(&probe);
	if (kept && options->engine != PL_ENGINE_INLINE)
		return pl_fail(err, -EBUSY,
			"process %d is being recorded by a probe that was left in it: give --engine inline to read it, or "
			"remove it with 'pyleak detach %d'",
			(int)pid, (int)pid);

	/* If the pyleak that planted it was killed, its guardian may be about to remove it. */
	code = pl_target_claim(pid, options->force, err);
	if (code < 0)
		return code;
	if (kept && pl_probe_find(pid, &probe) == 0 && pl_probe_is_kept(&probe))
		return adopt(target, &probe, options, sites, err);
	if (kept)
		pl_probe_free(&probe);
	code = pl_probe_detach(pid, LEFTOVER_PATIENCE_NSEC, &found, NULL, err);
	/* What a child inherits is no surprise where its parent is recorded. */
	if (code == 0 && found && !options->children)
		pl_log_note("removed a probe that was left behind in process %d", (int)pid);
	return code;
}

/* The recorder's memory is charged to the cgroup of the process, whose limit kills it and not us. Where the first pages
 * would not fit it is left alone; where there is room for them but perhaps not for what comes, its user is told. */
static int check_headroom(const struct pl_target *target, const struct pl_options *options, struct pl_error *err)
{
	char left[PL_SIZE_TEXT], limit[PL_SIZE_TEXT];
	struct pl_headroom headroom;
	int code = pl_check_headroom(target->pid, &headroom, err);

	if (code < 0 || !headroom.limit)
		return code;
	pl_format_size((int64_t)headroom.left, false, left);
	pl_format_size((int64_t)headroom.limit, false, limit);
	if (options->engine == PL_ENGINE_INLINE && !options->sample &&
		headroom.left - PL_PLANT_BYTES < pl_process_rss(target->pid) / 100 * RECORDING_PERCENT)
		pl_log_warning("process %d has %s left of %s %s, and recording takes up to %d %% of what is allocated meanwhile "
			       "and stays: keep it short, or give --sample 512KiB",
			(int)target->pid, left, headroom.cgroup ? "its cgroup's" : "the machine's", limit, RECORDING_PERCENT);
	return 0;
}

static int find_places(void *context, struct pl_range **ret, size_t *ret_count)
{
	return pl_account_places(context, ret, ret_count);
}

/* What it has before it is hooked, and when that was. */
static void look_before(struct pl_target *target)
{
	const int64_t started = pl_now_ns();

	pl_account_take(target->account, 0, &target->began_with);
	pl_target_places(target, &target->began_with, &target->places);
	target->began_ns = pl_now_ns();
	target->took_ns = target->began_ns - started;
}

/*
 * All hooks are in place: to get there takes seconds where all processors are busy, and what the process grew by meanwhile is in
 * no row. Not if that was little beside what it takes to look: of a program with gigabytes of native blocks an account takes as
 * long as planting.
 */
static void note_beginning(void *context, uint64_t own)
{
	struct pl_target *target = context;
	struct pl_account *account = &target->began_with;
	const int64_t since = pl_now_ns() - target->began_ns;

	if (since < SOON_NSEC && since < SOON_SHARE * target->took_ns)
		return;
	pl_places_free(&target->places);
	pl_target_places(target, account, &target->places);
	/* Places take the longest, and need of the account only which parts it has. */
	pl_account_take(target->account, own, account);
	target->began_ns = pl_now_ns();
	/* What we take is growth. */
	if (account->taken && own < account->rss) {
		account->rss -= own;
		account->parts[PL_ACCOUNT_OWN] = 0;
	}
}

/* A probe that stays tells who adopts it of what was before it was planted. */
static void take_beginning(struct pl_target *target)
{
	struct pl_facts *facts = &target->facts;
	const int64_t later = target->began_ns - facts->since_ns;

	if (later > 0) {
		facts->since_ns += later;
		facts->started.tv_sec += (time_t)((facts->started.tv_nsec + later) / PL_NSEC_PER_SEC);
		facts->started.tv_nsec = (long)((facts->started.tv_nsec + later) % PL_NSEC_PER_SEC);
	}
	if (!target->began_with.taken)
		return;
	facts->account = target->began_with;
	facts->rss = target->began_with.rss;
}

/* Hooks the process itself; the guardian knows of it first. */
static int plant(struct pl_target *target, const struct pl_options *options, struct pl_sites *sites, struct pl_error *err)
{
	struct pl_engine_options wanted = {
		.sites = sites,
		.apart = options->per_process,
		.frames = options->frames,
		.native_frames = options->native_frames,
		.sample = options->sample,
		.tables = options->tables,
		.park = options->park,
		.native = options->native,
		.keep = options->keep,
		.rss = pl_process_rss(target->pid),
		/* Without a GIL CPython's own memory cannot be told from others'. */
		.places = target->account && !target->python->free_threaded ? find_places : NULL,
		.places_context = target->account,
		.begins = note_beginning,
		.begins_context = target,
	};
	int code = check_headroom(target, options, err);

	if (code < 0)
		return code;
	look_before(target);
	wanted.account = target->began_with;
	wanted.arena_map = pl_account_arena_map(target->account);
	if (wanted.account.taken)
		wanted.rss = wanted.account.rss;
	code = pl_guardian_add(target->pid, target->start_time);
	if (code < 0)
		return pl_fail(err, code, "the guardian process cannot be started: %s", strerror(-code));
	return options->engine == PL_ENGINE_INLINE ?
		       pl_engine_start_inline(target->python, &wanted, &target->engine, err) :
		       pl_engine_start_breakpoint(target->python, &wanted, &target->engine, err);
}

int pl_target_start(struct pl_target *target, const struct pl_options *options, struct pl_sites *sites, struct pl_error *err)
{
	int code = take_over(target, options, sites, err);

	if (code == 0 && pl_account_open(target->python, &target->account) < 0)
		pl_log_debug("what the RSS of process %d consists of cannot be read", (int)target->pid);
	if (code == 0 && !target->adopted)
		code = plant(target, options, sites, err);
	if (code == 0)
		target->facts = *pl_engine_facts(target->engine);
	if (code == 0 && target->adopted)
		note_settings(target, options);
	else if (code == 0)
		take_beginning(target);
	return explain_end(target, code, err);
}

void pl_target_account(const struct pl_target *target, const struct pl_touched *by_site, struct pl_account *ret)
{
	int64_t started = pl_now_ns();
	struct pl_touched touched = {0};

	if (by_site)
		touched = *by_site;
	pl_account_take(target->account, pl_engine_memory(target->engine), ret);
	ret->rounding = pl_engine_rounding(target->engine, ret->alignment);
	pl_engine_touched(target->engine, &touched);
	ret->untouched = touched.untouched;
	ret->pools = touched.pools;
	pl_log_debug("the account took %.1f ms", (double)(pl_now_ns() - started) / PL_NSEC_PER_MSEC);
}

void pl_target_end(struct pl_target *target)
{
	(void)pl_engine_update(target->engine, &target->state);
	target->state.rss = 0;
	pl_engine_end(target->engine);
	pl_account_close(PL_TAKE(target->account));
	pl_places_free(&target->places);
	pl_python_close(PL_TAKE(target->python));
	pl_space_close(PL_TAKE(target->space));
	pl_probe_unclaim(target->pid, target->start_time);
}

void pl_target_close(struct pl_target *target)
{
	pl_places_free(&target->came_places);
	pl_places_free(&target->last_places);
	pl_engine_free(PL_TAKE(target->engine));
	pl_account_close(PL_TAKE(target->account));
	pl_places_free(&target->places);
	pl_python_close(PL_TAKE(target->python));
	pl_space_close(PL_TAKE(target->space));
	pl_probe_unclaim(target->pid, target->start_time);
}
