/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include "inline_engine.h"
#include "pyleak/cleanup.h"
#include "pyleak/log.h"
#include "pyleak/memory.h"
#include "pyleak/units.h"

/* How often is looked for libraries that were loaded: at most so often, and for a fiftieth of the time. */
#define NATIVE_LOOK_NSEC (100 * PL_NSEC_PER_MSEC)
#define NATIVE_LOOK_SHARE 50

/* Entries that were given out since. The original goes last: an entry with one is complete. */
static int write_entries(struct inline_engine *self)
{
	struct pl_inline_config *config = &self->reader.config;
	uint64_t address = self->probe.base + PL_INLINE_CONFIG_OFFSET;
	int code = 0;

	for (uint32_t i = PL_INLINE_ENTRY_NATIVE; code == 0 && i < PL_INLINE_ENTRY_COUNT; i++) {
		if (config->original[i] == self->native.original[i])
			continue;
		config->flags[i] = self->native.flags[i];
		code = pl_probe_write(self->python->pid, address + offsetof(struct pl_inline_config, flags) + i, &config->flags[i], 1);
		if (code == 0 && self->native.quiet[i])
			code = pl_probe_write(self->python->pid,
				address + offsetof(struct pl_inline_config, quiet) + 8 * (i - PL_INLINE_FIRST_ALLOC),
				&self->native.quiet[i], 8);
		if (code == 0)
			code = pl_probe_write(self->python->pid, address + offsetof(struct pl_inline_config, original) + 8 * i,
				&self->native.original[i], 8);
		config->original[i] = self->native.original[i];
	}
	return code;
}

/* Whether no other pyleak has given out entries since this one knows them. */
static int check_entries(struct inline_engine *self)
{
	struct pl_inline_config now;
	int code = pl_memory_read(self->python->pid, self->probe.base + PL_INLINE_CONFIG_OFFSET, &now, sizeof(now));

	if (code < 0 || memcmp(now.original, self->reader.config.original, sizeof(now.original)) == 0)
		return code;
	memcpy(self->reader.config.original, now.original, sizeof(now.original));
	memcpy(self->reader.config.flags, now.flags, sizeof(now.flags));
	native_adopt(&self->native, &self->probe, &now);
	return -EAGAIN;
}

/* Hooks words of libraries that were loaded since. */
static int extend(struct inline_engine *self, const struct pl_probe_word *words, uint32_t count)
{
	pid_t pid = self->python->pid;
	uint32_t redirected = 0;
	int64_t stop_ns = 0;
	int code;

	/* As it is now: another pyleak may have extended it, or removed it. */
	pl_probe_free(&self->probe);
	code = pl_probe_find(pid, &self->probe);
	if (code == 0 && !self->probe.filled)
		code = -ENOENT;
	if (code == 0)
		code = check_entries(self);
	if (code == 0)
		code = write_entries(self);
	if (code == 0)
		code = pl_probe_extend(&self->probe, &self->native.landing, words, count, &redirected, &stop_ns);
	/* What was planned and has not come about is planned again. */
	if (self->probe.filled)
		native_adopt(&self->native, &self->probe, &self->reader.config);
	inline_note_stop(self, stop_ns);
	if (code == -ENOSPC && !self->native.full) {
		pl_log_note("process %d has loaded more libraries than the probe has room for: some are not recorded", (int)pid);
		self->native.full = true;
		code = 0;
	}
	if (redirected < count && !self->native.full)
		native_look_again(&self->native);
	pl_log_debug("%u of %u words of libraries loaded since hooked, a thread held for %.2f ms", redirected, count, (double)stop_ns / 1e6);
	return code;
}

/* Libraries come and go. Whoever has not planted the probe has no claim on the process: it takes one. */
void inline_follow_libraries(struct inline_engine *self, int64_t now)
{
	const uint8_t *image = pl_inline_bytes + PL_INLINE_IMAGE_OFFSET;
	pl_autofree struct pl_probe_word *words = NULL;
	uint32_t count = 0;

	if (!self->engine.facts.native || now < self->next_native_look)
		return;

	int code = native_look(&self->native, (const void *)image, NULL, &words, &count);
	bool claimed = false;

	if (code == 0 && count && !self->planted) {
		claimed = pl_probe_claim(self->python->pid) == 0;
		if (!claimed) {
			native_look_again(&self->native);
			count = 0;
		}
	}
	if (code == 0 && count)
		code = extend(self, words, count);
	if (code == 0 && count)
		old_pools_look(&self->old_pools, &self->native, self->engine.sites);
	if (claimed)
		pl_probe_unclaim(self->python->pid, 0);
	if (code < 0)
		pl_log_debug("libraries of process %d could not be looked at: %s", (int)self->python->pid, strerror(-code));

	int64_t taken = pl_now_ns() - now;

	self->next_native_look = now + NATIVE_LOOK_NSEC;
	if (taken * NATIVE_LOOK_SHARE > NATIVE_LOOK_NSEC)
		self->next_native_look = now + taken * NATIVE_LOOK_SHARE;
}
