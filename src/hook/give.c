/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "errand.h"
#include "pyleak/cleanup.h"

/* Of pages that are there some 0.08 ms. */
#define DROPPED_AT_ONCE (UINT64_C(2) << 20)

static bool is_within(const struct pl_probe *probe, uint64_t address, uint64_t length)
{
	return address >= probe->tables && length <= probe->tables_mapped_size &&
	       address - probe->tables <= probe->tables_mapped_size - length;
}

static int change(struct carrier *carrier, const struct pl_probe *probe, struct pl_probe_change **changes, size_t count)
{
	pl_autofree struct pl_probe_errand_row *rows = calloc(count + 1, sizeof(*rows));
	int code = rows ? 0 : -ENOMEM;

	for (size_t i = 0; code == 0 && i < count; i++) {
		changes[i]->done = false;
		rows[i] = (struct pl_probe_errand_row){
			changes[i]->address, changes[i]->expected, changes[i]->desired, PL_PROBE_ERRAND_SWAP, 0};
		if (!is_within(probe, changes[i]->address, sizeof(uint64_t)))
			code = -EINVAL;
	}
	if (code == 0 && count)
		code = errand_run(carrier, probe, rows, count);
	for (size_t i = 0; rows && i < count; i++)
		changes[i]->done = rows[i].result == PL_PROBE_ERRAND_DONE;
	return code;
}

static int end(struct carrier *carrier, int code, int64_t *ret_stop_ns)
{
	(void)carrier_rest(carrier);
	*ret_stop_ns = carrier->longest_hold;
	carrier_free(carrier);
	return code;
}

int pl_probe_change(const struct pl_probe *probe, struct pl_probe_change *changes, size_t count, int64_t *ret_stop_ns)
{
	pl_autofree struct pl_probe_change **each = calloc(count + 1, sizeof(struct pl_probe_change *));
	struct carrier carrier;
	int code = carrier_init(&carrier, probe->pid, NULL);

	for (size_t i = 0; each && i < count; i++)
		each[i] = &changes[i];
	if (code == 0)
		code = !each ? -ENOMEM : probe->header.errand_entry ? change(&carrier, probe, each, count) : -ENOTSUP;
	return end(&carrier, code, ret_stop_ns);
}

/* The thread is let go after each: for a program that only has this one they are short pauses. */
static int drop(struct carrier *carrier, struct pl_range pages)
{
	int code = 0;

	for (uint64_t at = pages.start; code == 0 && at < pages.end; at += DROPPED_AT_ONCE) {
		const uint64_t length = pages.end - at < DROPPED_AT_ONCE ? pages.end - at : DROPPED_AT_ONCE;
		const uint64_t arguments[6] = {at, length, MADV_DONTNEED};
		int64_t result;

		code = carrier_rest(carrier);
		if (code == 0)
			code = carrier_call(carrier, SYS_madvise, arguments, &result);
	}
	return code;
}

static int give(struct carrier *carrier, const struct pl_probe *probe, struct pl_probe_giving *item)
{
	const uint64_t length = item->pages.end - item->pages.start;
	struct pl_probe_change *before = &item->before, *after = &item->after;
	int code = is_within(probe, item->pages.start, length) ? change(carrier, probe, &before, 1) : -EINVAL;

	if (code < 0 || !before->done)
		return code;
	code = drop(carrier, item->pages);
	if (code < 0)
		return code;
	item->given = true;
	return change(carrier, probe, &after, 1);
}

int pl_probe_drop(const struct pl_probe *probe, const struct pl_range *pages, size_t count, int64_t *ret_stop_ns)
{
	struct carrier carrier;
	int code = carrier_init(&carrier, probe->pid, NULL);

	for (size_t i = 0; code == 0 && i < count; i++)
		code = is_within(probe, pages[i].start, pages[i].end - pages[i].start) ? drop(&carrier, pages[i]) : -EINVAL;
	return end(&carrier, code, ret_stop_ns);
}

int pl_probe_give_back(const struct pl_probe *probe, struct pl_probe_giving *items, size_t count, int64_t *ret_stop_ns)
{
	struct carrier carrier;
	int code = carrier_init(&carrier, probe->pid, NULL);

	if (code == 0 && !probe->header.errand_entry)
		code = -ENOTSUP;
	for (size_t i = 0; code == 0 && i < count; i++)
		code = give(&carrier, probe, &items[i]);
	return end(&carrier, code, ret_stop_ns);
}
