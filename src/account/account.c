/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "../heap/heap_private.h"
#include "pyleak/process.h"

int pl_account_open(const struct pl_python *python, struct pl_account_reader **ret)
{
	struct pl_account_reader *reader = calloc(1, sizeof(*reader));
	struct pl_maps maps = {0};
	int code;

	if (!reader)
		return -ENOMEM;
	reader->python = python;
	/* Whether that can be had, before anything else. */
	code = pl_space_pages(python->space, (struct pl_range){0, 0}, NULL);
	if (code == 0)
		code = pl_space_maps(python->space, &maps);
	if (code == 0)
		arenas_find(reader, &maps);
	pl_maps_free(&maps);
	if (code < 0) {
		pl_account_close(reader);
		return code;
	}
	*ret = reader;
	return 0;
}

void pl_account_close(struct pl_account_reader *reader)
{
	free(reader);
}

static void set(struct pl_account *account, enum pl_account_part part, uint64_t bytes)
{
	account->parts[part] = (int64_t)bytes;
	account->known[part] = true;
}

void pl_account_take(const struct pl_account_reader *reader, uint64_t own, struct pl_account *ret)
{
	struct pl_process_memory memory;
	struct pl_maps maps = {0};

	*ret = (struct pl_account){.alignment = PL_ACCOUNT_ALIGNMENT, .rounding = -1};
	if (!reader)
		return;
	if (pl_space_maps(reader->python->space, &maps) == 0 && pl_process_memory(reader->python->pid, &memory) == 0) {
		const struct moment moment = {reader, &maps};

		ret->taken = true;
		ret->rss = memory.rss;
		set(ret, PL_ACCOUNT_FILES, memory.files);
		set(ret, PL_ACCOUNT_SHARED, memory.shared);
		set(ret, PL_ACCOUNT_OWN, own);
		arenas_count(&moment, ret);
		heap_count(&moment, ret);
		stacks_count(&moment, ret);
		ret->parts[PL_ACCOUNT_OTHER] = (int64_t)memory.rss;
		ret->known[PL_ACCOUNT_OTHER] = true;
		for (int part = 0; part < PL_ACCOUNT_OTHER; part++)
			ret->parts[PL_ACCOUNT_OTHER] -= ret->parts[part];
	}
	pl_maps_free(&maps);
}

void pl_account_add(struct pl_account *sum, const struct pl_account *one)
{
	if (!sum->taken || !one->taken) {
		sum->taken = false;
		return;
	}
	sum->rss += one->rss;
	for (int part = 0; part < PL_ACCOUNT_PARTS; part++) {
		/* So that the sum stays one: what is no longer known is in the rest. */
		sum->known[part] = sum->known[part] && one->known[part];
		sum->parts[part] += one->parts[part];
	}
	for (int part = 0; part < PL_ACCOUNT_OTHER; part++)
		if (!sum->known[part]) {
			sum->parts[PL_ACCOUNT_OTHER] += sum->parts[part];
			sum->parts[part] = 0;
		}
	sum->arenas_overhead += one->arenas_overhead;
	sum->rounding = sum->rounding < 0 || one->rounding < 0 ? -1 : (sum->rounding + one->rounding) / 2;
	if (one->alignment < sum->alignment)
		sum->alignment = one->alignment;
	for (int i = 0; i < PL_ACCOUNT_CLASSES; i++)
		sum->class_free[i] += one->class_free[i];
}
