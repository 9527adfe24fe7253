/* SPDX-License-Identifier: MIT */
#include "words.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "errand.h"
#include "pyleak/cleanup.h"
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

int pl_probe_word_kind(const struct pl_maps *maps, uint64_t address)
{
	const struct pl_map *map = pl_maps_find(maps, address);

	if (!map || map->flags & PL_MAP_SHARED || !(map->flags & PL_MAP_READ) || address & 7)
		return -1;
	if (map->flags & PL_MAP_WRITE)
		return PL_PROBE_ERRAND_SWAP;
	return map->flags & PL_MAP_EXEC ? -1 : PL_PROBE_ERRAND_PROTECTED;
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
static bool is_dead(const struct pl_probe *probe, const struct pl_probe_hook *hook)
{
	uint64_t found;

	return pl_memory_read_u64(probe->pid, hook->address, &found) < 0 || found != hook->entry;
}

/* The row for a word: one that was its own before (the object is back in its place), else a dead one,
 * else a new one. *at is where to look for dead ones, so that each is looked at once. */
static uint32_t choose_row(const struct pl_probe *probe, uint64_t address, uint32_t *at)
{
	const struct pl_probe_header *header = &probe->header;

	for (uint32_t i = 0; i < header->word_count; i++)
		if (probe->words[i].address == address)
			return i;
	if (header->word_count < header->word_capacity)
		return header->word_count;
	while (*at < header->word_count && !is_dead(probe, &probe->words[*at]))
		(*at)++;
	return *at < header->word_count ? (*at)++ : header->word_capacity;
}

/* The row, then the count: a pyleak that finds the probe meanwhile sees a row whose word is not ours. */
static int write_row(struct carrier *carrier, struct pl_probe *probe, uint32_t row, const struct pl_probe_hook *hook)
{
	struct pl_probe_header *header = &probe->header;
	int code = carrier_write(carrier, header->words + row * sizeof(*hook), hook, sizeof(*hook));

	if (code < 0)
		return code;
	probe->words[row] = *hook;
	if (row < header->word_count)
		return 0;

	uint32_t count = row + 1;

	code = carrier_write(carrier, probe->base + offsetof(struct pl_probe_header, word_count), &count, sizeof(count));
	if (code == 0)
		header->word_count = count;
	return code;
}

/* The rows for these words, written and not redirected yet. *ret_added: where they are. */
static int write_rows(struct carrier *carrier, struct pl_probe *probe, const struct pl_probe_word *words, uint32_t count,
	struct pl_probe_errand_row *rows, size_t *ret_added)
{
	uint32_t dead = 0;
	bool full = false;
	int code = 0;

	for (uint32_t i = 0; code == 0 && i < count; i++) {
		const struct pl_probe_hook hook = pl_probe_row(probe, &words[i]);
		uint32_t row = choose_row(probe, hook.address, &dead);
		int kind = pl_probe_word_kind(&carrier->maps, hook.address);

		if (row == probe->header.word_capacity) {
			full = true;
			continue;
		}
		/* Its own row, and it leads to us already: a look from before another pyleak was here. */
		if (kind < 0 || (row < probe->header.word_count && probe->words[row].address == hook.address &&
					!is_dead(probe, &probe->words[row])))
			continue;
		code = write_row(carrier, probe, row, &hook);
		rows[(*ret_added)++] = (struct pl_probe_errand_row){hook.address, hook.original, hook.entry, (uint32_t)kind, 0};
	}
	return code == 0 && full ? -ENOSPC : code;
}

int pl_probe_extend(struct pl_probe *probe, struct pl_landing *landing, const struct pl_probe_word *words, uint32_t count,
	uint32_t *ret_redirected, int64_t *ret_stop_ns)
{
	pl_autofree struct pl_probe_errand_row *rows = calloc(count + 1, sizeof(*rows));
	struct carrier carrier;
	size_t added = 0;
	int code = carrier_init(&carrier, probe->pid, NULL);

	*ret_redirected = 0;
	if (code == 0)
		code = landing_prepare(&carrier, landing, NULL);
	if (code == 0)
		code = carrier_look(&carrier);
	/* A thread that was sent may yet plant a word whose row would be another's by then. */
	if (code == 0)
		code = errand_await(&carrier, probe);
	if (code == 0)
		code = rows ? write_rows(&carrier, probe, words, count, rows, &added) : -ENOMEM;
	if ((code == 0 || code == -ENOSPC) && added) {
		int run = errand_run(&carrier, probe, rows, added);

		code = run < 0 ? run : code;
	}
	for (size_t i = 0; i < added; i++)
		*ret_redirected += rows[i].result == PL_PROBE_ERRAND_DONE;
	(void)carrier_rest(&carrier);
	*ret_stop_ns = carrier.longest_hold;
	carrier_free(&carrier);
	return code;
}
