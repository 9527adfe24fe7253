/* SPDX-License-Identifier: MIT */
#include "words.h"

#include <errno.h>
#include <stddef.h>

#include "pyleak/memory.h"

struct pl_probe_hook pl_probe_row(const struct pl_probe *probe, const struct pl_probe_word *word)
{
	return (struct pl_probe_hook){
		.address = word->address,
		.original = word->original,
		.entry = word->kind == PL_PROBE_HOOK_LOADED ? word->entry : probe->base + word->entry,
		.kind = word->kind,
		.object = word->object,
	};
}

int pl_probe_redirect(struct pl_tracee *tracee, const struct pl_probe_hook *hook, bool *ret_redirected)
{
	int code = pl_tracee_swap_word(tracee, hook->address, hook->original, hook->entry, NULL);

	if (ret_redirected)
		*ret_redirected = code == 0;
	return code == -EAGAIN || code == -EFAULT || code == -EINVAL ? 0 : code;
}

/* Whether the word of a row does not lead to us, so that the row says nothing any more: its object was
 * unloaded. A word that is not mapped, or holds anything but our entry, will never be put back. */
static bool is_dead(const struct pl_tracee *tracee, const struct pl_probe_hook *hook)
{
	uint64_t found;

	return pl_memory_read_u64(tracee->threads[0].tid, hook->address, &found) < 0 || found != hook->entry;
}

/* The row for a word: one that was its own before (the object is back in its place), else a dead one,
 * else a new one. *at is where to look for dead ones, so that each is looked at once. */
static uint32_t choose_row(const struct pl_tracee *tracee, const struct pl_probe *probe, uint64_t address, uint32_t *at)
{
	const struct pl_probe_header *header = &probe->header;

	for (uint32_t i = 0; i < header->word_count; i++)
		if (probe->words[i].address == address)
			return i;
	if (header->word_count < header->word_capacity)
		return header->word_count;
	while (*at < header->word_count && !is_dead(tracee, &probe->words[*at]))
		(*at)++;
	return *at < header->word_count ? (*at)++ : header->word_capacity;
}

/* The row, then the count: a pyleak that finds the probe meanwhile sees a row whose word is not ours. */
static int write_row(struct pl_tracee *tracee, struct pl_probe *probe, uint32_t row, const struct pl_probe_hook *hook)
{
	struct pl_probe_header *header = &probe->header;
	int code = pl_tracee_write(tracee, header->words + row * sizeof(*hook), hook, sizeof(*hook));

	if (code < 0)
		return code;
	probe->words[row] = *hook;
	if (row < header->word_count)
		return 0;

	uint32_t count = row + 1;

	code = pl_tracee_write(tracee, probe->base + offsetof(struct pl_probe_header, word_count), &count, sizeof(count));
	if (code == 0)
		header->word_count = count;
	return code;
}

int pl_probe_extend(struct pl_tracee *tracee, struct pl_probe *probe, const struct pl_probe_word *words, uint32_t count,
	uint32_t *ret_redirected)
{
	uint32_t dead = 0;
	bool full = false;
	int code = 0;

	*ret_redirected = 0;
	for (uint32_t i = 0; code == 0 && i < count; i++) {
		const struct pl_probe_hook hook = pl_probe_row(probe, &words[i]);
		uint32_t row = choose_row(tracee, probe, hook.address, &dead);
		bool redirected = false;

		if (row == probe->header.word_capacity) {
			full = true;
			continue;
		}
		/* Its own row, and it leads to us already: a look from before another pyleak was here. */
		if (row < probe->header.word_count && probe->words[row].address == hook.address &&
			!is_dead(tracee, &probe->words[row]))
			continue;
		code = write_row(tracee, probe, row, &hook);
		if (code == 0)
			code = pl_probe_redirect(tracee, &hook, &redirected);
		*ret_redirected += redirected;
	}
	return code == 0 && full ? -ENOSPC : code;
}
