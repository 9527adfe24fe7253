/* SPDX-License-Identifier: MIT */
#include "errand.h"

#include <errno.h>
#include <stdlib.h>

#include "pyleak/cleanup.h"
#include "pyleak/memory.h"
#include "pyleak/page.h"
#include "pyleak/units.h"

#define SETTLE_NSEC (500 * PL_NSEC_PER_MSEC)
/* Each takes two system calls of the routine, and each of these two stops: some 0.05 ms in all. */
enum { PROTECTED_AT_ONCE = 2 };

int errand_settle(struct seeing *seeing)
{
	const uint64_t place = seeing->probe->header.errand;
	const uint32_t idle = PL_PROBE_ERRAND_IDLE;
	uint32_t state;
	int code = pl_memory_read(seeing->carrier->pid, place, &state, sizeof(state));

	if (code < 0 || state == PL_PROBE_ERRAND_IDLE)
		return code;
	code = see_all_outside_of_routine(seeing);
	return code < 0 ? code : carrier_write(seeing->carrier, place, &idle, sizeof(idle));
}

/* One errand. After a fault the rest of it begins behind the row that ran into it. */
static int run(struct carrier *carrier, const struct pl_probe *probe, struct pl_probe_errand *errand, uint32_t count)
{
	const uint64_t place = probe->header.errand;
	const size_t size = offsetof(struct pl_probe_errand, rows) + count * sizeof(errand->rows[0]);
	uint32_t next = 0;
	int code = -EFAULT;

	while (code == -EFAULT && next < count) {
		errand->state = PL_PROBE_ERRAND_ASKED;
		errand->next = next;
		errand->count = count;
		/* Whatever page was left writable then belongs to nobody, or is protected already. */
		errand->page = 0;
		errand->page_bytes = (uint32_t)pl_page_size();
		code = carrier_write(carrier, place, errand, size);
		if (code == 0)
			code = carrier_hold(carrier, NULL);
		if (code == 0)
			code = pl_remote_run(carrier->remote, probe->header.errand_entry, place, PL_PROBE_ERRAND_END);

		/* After a fault the thread stands there, and is put back where it was. */
		int ended = carrier_rest(carrier);

		if (code < 0 && code != -EFAULT)
			return code;
		if (pl_memory_read(carrier->pid, place, errand, size) < 0)
			return -EFAULT;
		if (code == 0)
			return ended;
		while (next < count && errand->rows[next].result != PL_PROBE_ERRAND_TRYING)
			next++;
		if (next++ == count)
			return -EFAULT;
	}
	errand->state = PL_PROBE_ERRAND_IDLE;
	return carrier_write(carrier, place, &errand->state, sizeof(errand->state));
}

int errand_await(struct carrier *carrier, const struct pl_probe *probe)
{
	struct seeing seeing = {.carrier = carrier, .probe = probe, .patience_ns = SETTLE_NSEC};
	int code = errand_settle(&seeing);

	seeing_free(&seeing);
	return code;
}

int errand_run(struct carrier *carrier, const struct pl_probe *probe, struct pl_probe_errand_row *rows, size_t count)
{
	pl_autofree struct pl_probe_errand *errand = malloc(sizeof(*errand));
	int code = errand ? errand_await(carrier, probe) : -ENOMEM;

	for (size_t done = 0; code == 0 && done < count;) {
		uint64_t pages = 0, page = 0;
		uint32_t taken = 0;

		for (; done + taken < count && taken < PL_PROBE_ERRAND_ROWS; taken++) {
			const struct pl_probe_errand_row *row = &rows[done + taken];

			if (row->kind == PL_PROBE_ERRAND_PROTECTED && pl_kernel_page_start(row->address) != page) {
				if (++pages > PROTECTED_AT_ONCE)
					break;
				page = pl_kernel_page_start(row->address);
			}
			errand->rows[taken] = *row;
			errand->rows[taken].result = PL_PROBE_ERRAND_UNTRIED;
		}
		code = run(carrier, probe, errand, taken);
		for (uint32_t i = 0; i < taken; i++)
			rows[done + i].result = errand->rows[i].result;
		done += taken;
	}
	return code;
}
