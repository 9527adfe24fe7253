/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "inline_blocks.h"
#include "inline_engine.h"
#include "pyleak/log.h"
#include "pyleak/memory.h"
#include "pyleak/process.h"
#include "pyleak/resident.h"
#include "pyleak/units.h"

/*
 * The engine that does not stop. The probe records by itself; to plant and to remove it, one thread after the other
 * is held for a moment, and in between the tracer reads the probe's tables from outside.
 */

/* Nobody is held meanwhile, and nothing recorded. */
#define REMOVE_PATIENCE_NSEC (10 * PL_NSEC_PER_SEC)
#define CLAIM_PATIENCE_NSEC PL_NSEC_PER_SEC /* another reader has it for a moment at a time */
#define LOOK_NSEC (20 * PL_NSEC_PER_MSEC)
/* What is read while nobody asks, so that a process that ends leaves something to report: all of it, and in between the
 * figures alone, as often as costs no more than a hundredth of the time. A family has many members: not of these. */
#define PASS_NSEC (500 * PL_NSEC_PER_MSEC)
#define GLANCE_NSEC (40 * PL_NSEC_PER_MSEC)
#define GLANCE_SHARE 100
/* Sites whose native stacks are looked at again: while nobody asks, and for a report. */
#define STACKS_BEFORE_PASS_NSEC (200 * PL_NSEC_PER_MSEC)
#define STACKS_BY_THE_WAY 128
#define STACKS_REPORTED 8192

static int read_tracee(void *context, uint64_t address, void *buffer, size_t length)
{
	const struct pl_python *python = context;

	return pl_memory_read(python->pid, address, buffer, length);
}

static int find_pool(void *context, uint64_t address, struct pl_native_caller *ret)
{
	return native_caller_pool(context, address, ret);
}

static int find_caller(void *context, uint64_t address, struct pl_native_caller *ret)
{
	return native_caller_find(context, address, ret);
}

/* A program that was started in this process since has none of our pages. */
static bool still_there(const struct inline_engine *self)
{
	char magic[sizeof(self->probe.header.magic)];
	uint64_t start_time;

	return pl_process_start_time(self->python->pid, &start_time) == 0 && start_time == self->start_time &&
	       pl_memory_read(self->python->pid, self->probe.base, magic, sizeof(magic)) == 0 &&
	       memcmp(magic, PL_PROBE_MAGIC, sizeof(magic)) == 0;
}

/* Another tool may hook on top of ours, or write what it saved before we came over them
 * (tracemalloc.stop()): the one sees everything still, the other ends the recording unseen. */
static void watch_words(struct inline_engine *self)
{
	for (uint32_t i = 0; !self->words_changed && i < self->probe.header.hook_count; i++) {
		const struct pl_probe_hook *hook = &self->probe.hooks[i];
		uint64_t word;

		self->words_changed = hook->kind == PL_PROBE_HOOK_WORD &&
				      pl_memory_read_u64(self->python->pid, hook->address, &word) == 0 && word != hook->entry;
	}
	if (self->words_changed)
		pl_log_warning("another tool has changed the allocator hooks of process %d (tracemalloc?): what it does not "
			       "pass on is not recorded any more",
			(int)self->python->pid);
}

static int inline_pass(struct inline_engine *self, size_t stacks)
{
	int code;

	if (self->gone || !still_there(self)) {
		self->gone = true;
		return -ESRCH;
	}
	if (!self->words_changed)
		watch_words(self);
	pl_sites_set_process(self->engine.sites, self->apart ? self->python->pid : 0);
	/* It frees all that it has. What its process had is what it had before that. */
	if (pl_python_is_ending(self->python))
		return 0;
	self->reader.starting = pl_now_ns() < self->starts_until;
	code = pl_inline_reader_pass(&self->reader);
	if (code == 0) {
		inline_limit_look(&self->limit, &self->memory, &self->reader, &self->give, self->planted);
		inline_reuse_note(&self->reuse, &self->reader);
		inline_stacks_review(&self->stacks, &self->reader, self->planted, stacks);
	}
	return code;
}

/* Of one that is about to end this is the last look, most probably. */
static int glance(struct inline_engine *self, int64_t now)
{
	int64_t pause;
	int code;

	if (self->in_family)
		return 0;
	if (now < self->next_glance) {
		self->gone = !still_there(self);
		return self->gone ? -ESRCH : 0;
	}
	code = inline_pass(self, 0);
	pause = GLANCE_SHARE * (pl_now_ns() - now);
	/* The first one is dear: what was imported is new to us. */
	if (pause > PASS_NSEC / 2)
		pause = PASS_NSEC / 2;
	self->next_glance = now + (pause > GLANCE_NSEC ? pause : GLANCE_NSEC);
	return code == -ESRCH ? code : 0;
}

static int inline_look(struct pl_engine *engine)
{
	struct inline_engine *self = (struct inline_engine *)engine;
	struct pollfd process = {.fd = self->process_fd, .events = POLLIN};
	int64_t now = pl_now_ns();
	bool pressed;
	int code;

	if (self->process_fd >= 0 && poll(&process, 1, 0) > 0)
		self->gone = true;
	if (self->gone)
		return -ESRCH;
	pl_trace_release_late();
	if (glance(self, now) == -ESRCH)
		return -ESRCH;
	inline_follow_libraries(self, now);
	/* To open objects for it can take long: not shortly before a pass, which a process that is about to end needs. */
	pressed = now >= self->reuse.next_ns && inline_reuse_is_pressed(&self->memory, &self->reader);
	/* What gives rows to be used again is in a hurry: it must keep up with the process (test_code_that_never_ends). */
	if (now < self->next_pass - STACKS_BEFORE_PASS_NSEC)
		inline_stacks_look(&self->stacks, &self->reader, &self->callers, self->planted, !pressed);
	if (now < self->next_pass && !pressed)
		return 0;
	self->next_pass = now + PASS_NSEC;
	code = inline_pass(self, STACKS_BY_THE_WAY);
	if (code == 0 && !self->disarmed) {
		inline_reuse_sweep(&self->reuse, &self->memory, &self->reader, self->planted);
		inline_note_stop(self, inline_give_look(&self->give, &self->probe, &self->memory, &self->reader, self->planted));
	}
	return code == -ESRCH ? -ESRCH : 0;
}

static void inline_begin(struct pl_engine *engine, int64_t until_ns)
{
	struct inline_engine *self = (struct inline_engine *)engine;

	self->in_family = true;
	self->starts_until = until_ns;
}

static void inline_retire(struct pl_engine *engine)
{
	struct inline_engine *self = (struct inline_engine *)engine;

	unseen_free(&self->unseen, &self->reader);
	pl_inline_reader_retire(&self->reader);
}

static int inline_run(struct pl_engine *engine, int64_t until_ns, const volatile int *stop, struct pl_error *err)
{
	struct inline_engine *self = (struct inline_engine *)engine;

	for (int64_t now = pl_now_ns(); now < until_ns; now = pl_now_ns()) {
		int64_t left = until_ns - now < LOOK_NSEC ? until_ns - now : LOOK_NSEC;
		const struct timespec timeout = {0, left};
		struct pollfd process = {.fd = self->process_fd, .events = POLLIN};

		if (*stop)
			return -EINTR;
		(void)ppoll(&process, self->process_fd >= 0, &timeout, NULL);
		if (inline_look(engine) == -ESRCH)
			return -ESRCH;
	}
	return 0;
}

static int inline_update(struct pl_engine *engine, struct pl_engine_state *ret)
{
	struct inline_engine *self = (struct inline_engine *)engine;
	int64_t started = pl_now_ns();
	int code = inline_pass(self, STACKS_REPORTED);

	if (code < 0 && code != -ESRCH)
		pl_log_debug("the tables could not be read: %s", strerror(-code));
	pl_log_debug("a snapshot took %.1f ms", (double)(pl_now_ns() - started) / PL_NSEC_PER_MSEC);
	if (code == 0)
		unseen_correct(&self->unseen, self->python->pid, &self->reader, &self->old_pools);
	ret->rss = pl_process_rss(self->python->pid);
	ret->losses.events = self->reader.control.lost_events;
	ret->losses.freed_before_count = self->reader.control.freed_native;
	ret->losses.freed_before_size = self->reader.control.freed_native_size;
	ret->losses.freed_unseen_count = self->unseen.count;
	ret->losses.freed_unseen_size = self->unseen.size;
	ret->losses.shortened = self->reader.control.shortened;
	ret->losses.sampling = inline_limit_sampling(&self->reader);
	/* Of all of these the blocks are counted, but not where. */
	ret->losses.sites = self->reader.control.lost_sites + self->reader.control.lost_codes + self->reader.control.untraced;
	return code == -ESRCH ? code : 0;
}

/* The chunks of the pool that were never given out are address space: nothing to look for. */
static uint64_t chunks_in_use(const struct inline_engine *self)
{
	return self->reader.control.next_chunk < self->reader.config.chunk_count ? self->reader.control.next_chunk
									       : self->reader.config.chunk_count;
}

static uint64_t inline_memory(const struct pl_engine *engine)
{
	const struct inline_engine *self = (const struct inline_engine *)engine;
	const struct pl_inline_config *config = &self->reader.config;

	if (self->gone)
		return 0;
	return pl_resident_or_swapped(self->python->pid,
		(struct pl_range){config->data_start, config->pool + chunks_in_use(self) * PL_INLINE_CHUNK_BYTES});
}

static void look_at_rounding(const struct inline_engine *self, struct inline_rounding *ret)
{
	*ret = (struct inline_rounding){0};
	/* Of samples the larger ones are more. */
	if (!self->gone && !pl_inline_reader_samples(&self->reader))
		inline_rounding_look(self->python->pid, &self->reader, chunks_in_use(self), ret);
}

static double inline_rounding_now(const struct pl_engine *engine, uint32_t alignment)
{
	const struct inline_engine *self = (const struct inline_engine *)engine;
	struct inline_rounding rounding = self->last_rounding;

	if (self->planted || self->keep)
		look_at_rounding(self, &rounding);
	return inline_rounding_mean(&rounding, alignment);
}

/* Not of samples: each stands for others. */
static void inline_touched_now(struct pl_engine *engine, struct pl_touched *ret)
{
	struct inline_engine *self = (struct inline_engine *)engine;
	struct inline_touched touched = self->last_touched;

	if (self->planted || self->keep) {
		touched = (struct inline_touched){.by_site = ret->by_site, .site_count = ret->site_count};
		if (!self->gone && !pl_inline_reader_samples(&self->reader))
			inline_untouched_look(self->python->pid, &self->reader, &self->old_pools, &touched);
	}
	ret->untouched = touched.untouched;
	ret->pools = touched.pools;
}

static int inline_live_blocks(const struct pl_engine *engine, const uint32_t *group_of_site, size_t site_count,
	struct pl_live_blocks *blocks)
{
	const struct inline_engine *self = (const struct inline_engine *)engine;

	/* An engine that is finished has left no tables, or those that another one may be taking away. */
	if (self->gone || !(self->planted || self->keep) || !still_there(self))
		return -ENOTSUP;
	return inline_blocks_read(self->python->pid, &self->reader, group_of_site, site_count, blocks);
}

static void inline_live_sites(const struct pl_engine *engine, bool *has, size_t count)
{
	pl_inline_reader_live(&((const struct inline_engine *)engine)->reader, has, count);
}

static int inline_owned(struct pl_engine *engine, const struct pl_range *ranges, size_t count, int64_t *ret)
{
	const struct inline_engine *self = (const struct inline_engine *)engine;

	if (self->gone || !(self->planted || self->keep) || pl_inline_reader_samples(&self->reader))
		return -ENOTSUP;
	return inline_owned_look(self, ranges, count, ret);
}

static const struct pl_engine_library *inline_left(const struct pl_engine *engine, size_t *ret_count)
{
	const struct inline_engine *self = (const struct inline_engine *)engine;

	*ret_count = self->native.left.count;
	return self->native.left.items;
}

static int inline_disarm(struct pl_engine *engine)
{
	struct inline_engine *self = (struct inline_engine *)engine;
	int code;

	if (self->gone || !still_there(self))
		return -ESRCH;
	code = pl_probe_disarm(&self->probe);
	self->disarmed |= code == 0;
	return code;
}

/* Whoever has not planted it has no claim on the process. */
static int detach(struct inline_engine *self, int64_t *ret_stop_ns, struct pl_error *err)
{
	pid_t pid = self->python->pid;
	bool found, claimed = !self->planted && pl_probe_claim_within(pid, CLAIM_PATIENCE_NSEC) == 0;
	struct pl_error why = {0};
	int code;

	if (!self->planted && !claimed)
		return pl_fail(err, -EBUSY, "another pyleak is at work in process %d: the probe was left, switched off", (int)pid);
	code = pl_probe_detach(pid, REMOVE_PATIENCE_NSEC, &found, ret_stop_ns, &why);
	if (claimed)
		pl_probe_unclaim(pid, self->start_time);
	return pl_engine_pass_on(self->python, code, why.text, err);
}

static int inline_finish(struct pl_engine *engine, struct pl_error *err)
{
	struct inline_engine *self = (struct inline_engine *)engine;
	struct pl_error failure = {0};
	int64_t stop_ns = 0;
	int code = 0;

	if (((self->planted && !self->keep) || self->disarmed) && !self->gone) {
		/* The tables go with the probe. */
		(void)inline_pass(self, STACKS_REPORTED);
		look_at_rounding(self, &self->last_rounding);
		self->last_touched = (struct inline_touched){0};
		if (!pl_inline_reader_samples(&self->reader))
			inline_untouched_look(self->python->pid, &self->reader, &self->old_pools, &self->last_touched);
		code = detach(self, &stop_ns, &failure);
		/* A process that ends by itself, or starts another program, takes the hooks with it. */
		if (code < 0 && !still_there(self))
			code = 0;
		if (code < 0)
			(void)pl_fail(err, code, "%s", failure.text);
		if (stop_ns > engine->stop_ns)
			engine->stop_ns = stop_ns;
	}
	if (self->keep && !self->disarmed && !self->gone)
		inline_stacks_end(&self->stacks, &self->reader, self->planted);
	self->planted = self->disarmed = false;
	return code;
}

static void close_process(struct inline_engine *self)
{
	pl_probe_free(&self->probe);
	inline_stacks_free(&self->stacks);
	inline_reuse_free(&self->reuse);
	inline_memory_close(&self->memory);
	native_free(&self->native);
	old_pools_free(&self->old_pools);
	native_callers_free(&self->callers);
	if (self->process_fd >= 0)
		(void)close(self->process_fd);
	self->process_fd = -1;
}

static void inline_end(struct pl_engine *engine)
{
	struct inline_engine *self = (struct inline_engine *)engine;

	self->gone = true;
	(void)pl_inline_reader_end(&self->reader);
	close_process(self);
}

static void inline_free(struct pl_engine *engine)
{
	struct inline_engine *self = (struct inline_engine *)engine;

	(void)inline_finish(engine, NULL);
	unseen_free(&self->unseen, NULL);
	pl_inline_reader_free(&self->reader);
	close_process(self);
	free(self);
}

static const struct pl_engine_ops inline_ops = {
	.run = inline_run,
	.look = inline_look,
	.end = inline_end,
	.retire = inline_retire,
	.begin = inline_begin,
	.update = inline_update,
	.memory = inline_memory,
	.rounding = inline_rounding_now,
	.touched = inline_touched_now,
	.live_blocks = inline_live_blocks,
	.live_sites = inline_live_sites,
	.owned = inline_owned,
	.left = inline_left,
	.disarm = inline_disarm,
	.finish = inline_finish,
	.free = inline_free,
};

static struct inline_engine *engine_new(const struct pl_python *python, struct pl_sites *sites, bool apart,
	struct pl_error *err)
{
	struct inline_engine *self = calloc(1, sizeof(*self));

	if (!self) {
		(void)pl_fail(err, -ENOMEM, "out of memory");
		return NULL;
	}
	self->engine.ops = &inline_ops;
	self->engine.sites = sites;
	self->apart = apart;
	self->next_pass = pl_now_ns() + PASS_NSEC;
	self->python = python;
	self->process_fd = (int)syscall(SYS_pidfd_open, python->pid, 0);
	native_init(&self->native, python);
	self->callers = (struct native_callers){.space = python->space, .sites = sites};
	self->reader.find_caller = find_caller;
	self->reader.find_pool = find_pool;
	self->reader.caller_context = &self->callers;
	self->reader.read = read_tracee;
	self->reader.context = (void *)python;
	self->reader.minor = python->minor;
	self->reader.sites = self->engine.sites;
	if (pl_process_start_time(python->pid, &self->start_time) < 0) {
		(void)pl_fail(err, -ESRCH, "process %d has ended", (int)python->pid);
		inline_free(&self->engine);
		return NULL;
	}
	return self;
}

int pl_engine_start_inline(const struct pl_python *python, const struct pl_engine_options *options,
	struct pl_engine **ret, struct pl_error *err)
{
	struct inline_engine *self = engine_new(python, options->sites, options->apart, err);

	if (!self)
		return err->code;
	self->keep = options->keep;
	self->old_pools.places = options->places;
	self->old_pools.context = options->places_context;

	int code = inline_plant(self, options, err);

	if (code < 0) {
		self->keep = false;
		code = pl_fail(err, code, "process %d cannot be hooked: %s", (int)python->pid, strerror(-code));
		inline_free(&self->engine);
		return code;
	}
	*ret = &self->engine;
	return 0;
}

int pl_engine_adopt(const struct pl_python *python, struct pl_probe *probe, struct pl_sites *sites, bool apart,
	int native_frames, struct pl_engine **ret, struct pl_error *err)
{
	struct inline_engine *self = engine_new(python, sites, apart, err);

	if (!self)
		return err->code;
	self->probe = *probe;
	*probe = (struct pl_probe){0};
	self->keep = true;

	int code = inline_adopt_config(self, native_frames);

	if (code == 0)
		native_adopt(&self->native, &self->probe, &self->reader.config);
	if (code == -EPROTO)
		code = pl_fail(err, code,
			"the probe in process %d was planted by another version of pyleak: read it with that version, or "
			"remove it with 'pyleak detach %d'",
			(int)python->pid, (int)python->pid);
	if (code < 0) {
		code = pl_fail(err, code, "the probe in process %d cannot be read: %s; 'pyleak detach %d' removes it",
			(int)python->pid, strerror(-code), (int)python->pid);
		inline_free(&self->engine);
		return code;
	}
	*ret = &self->engine;
	return 0;
}
