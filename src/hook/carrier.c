/* SPDX-License-Identifier: MIT */
#include "carrier.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"
#include "pyleak/memory.h"
#include "pyleak/page.h"
#include "pyleak/units.h"

#define CARRIER_HOLD_NSEC PL_NSEC_PER_MSEC
#define CARRIER_PATIENCE_NSEC (2 * PL_NSEC_PER_SEC)
/* Each takes two stops for the routine to get through. */
enum { PROTECTED_AT_ONCE = 16 };

int carrier_init(struct carrier *carrier, pid_t pid, struct pl_error *err)
{
	*carrier = (struct carrier){.pid = pid};

	int code = pl_maps_read(pid, &carrier->maps);

	return code < 0 ? code : pl_gadgets_find(pid, &carrier->maps, &carrier->gadgets, err);
}

int carrier_look(struct carrier *carrier)
{
	pl_maps_free(&carrier->maps);
	return pl_maps_read(carrier->pid, &carrier->maps);
}

void carrier_free(struct carrier *carrier)
{
	carrier->keep = false;
	(void)carrier_rest(carrier);
	pl_maps_free(&carrier->maps);
}

int carrier_rest(struct carrier *carrier)
{
	int code = pl_remote_end(PL_TAKE(carrier->remote));

	if (!carrier->tracee || carrier->keep)
		return code;

	int64_t held = pl_tracee_detach(PL_TAKE(carrier->tracee));

	if (held > carrier->longest_hold)
		carrier->longest_hold = held;
	return code;
}

int carrier_hold(struct carrier *carrier, struct pl_error *err)
{
	int64_t give_up = pl_now_ns() + CARRIER_PATIENCE_NSEC;
	int code;

	if (carrier->remote && (carrier->keep || pl_now_ns() - carrier->held_since < CARRIER_HOLD_NSEC))
		return 0;
	if (carrier->tracee && carrier->keep)
		return pl_remote_begin(carrier->tracee, &carrier->maps, &carrier->gadgets, &carrier->remote, err);
	(void)carrier_rest(carrier);
	do {
		struct pl_error last = {0};

		code = pl_remote_hold(
			carrier->pid, &carrier->maps, &carrier->gadgets, &carrier->tracee, &carrier->remote, &last);
		if (code < 0)
			code = pl_fail(pl_now_ns() < give_up ? NULL : err, code, "%s", last.text);
		/* Its stack may be newer than what was read of the mappings. */
		if (code == -EAGAIN)
			(void)carrier_look(carrier);
	} while ((code == -EAGAIN || code == -ETIMEDOUT) && pl_now_ns() < give_up);
	carrier->held_since = pl_now_ns();
	return code;
}

int carrier_write(struct carrier *carrier, uint64_t address, const void *bytes, size_t length)
{
	int code = pl_trace_write(carrier->pid, address, bytes, length);

	if (code != -EACCES)
		return code;
	code = carrier_hold(carrier, NULL);
	return code < 0 ? code : pl_tracee_write(carrier->tracee, address, bytes, length);
}

int pl_probe_write(pid_t pid, uint64_t address, const void *bytes, size_t length)
{
	struct carrier carrier;
	int code = pl_trace_write(pid, address, bytes, length);

	if (code != -EACCES)
		return code;
	code = carrier_init(&carrier, pid, NULL);
	if (code == 0)
		code = carrier_write(&carrier, address, bytes, length);
	carrier_free(&carrier);
	return code;
}

int carrier_call(struct carrier *carrier, long number, const uint64_t arguments[6], int64_t *ret_result)
{
	int64_t result = 0;
	int code = carrier_hold(carrier, NULL);

	if (code == 0)
		code = pl_remote_call(carrier->remote, number, arguments, &result);
	if (code < 0)
		return code;
	if (result < 0 && result > -4096)
		return (int)result;
	if (ret_result)
		*ret_result = result;
	return 0;
}

int carrier_landing(struct carrier *carrier, struct pl_landing *landing, struct pl_error *err)
{
	int code;

	if (!landing || landing->there == landing->count)
		return 0;
	code = carrier_hold(carrier, err);
	/* It makes calls of its own. */
	if (code == 0)
		code = pl_remote_end(PL_TAKE(carrier->remote));
	if (code == 0)
		code = pl_landing_prepare(carrier->tracee, &carrier->maps, &carrier->gadgets, landing, err);
	return code;
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
		if (code < 0 && code != -EFAULT)
			return code;
		if (pl_memory_read(carrier->pid, place, errand, size) < 0)
			return -EFAULT;
		if (code == 0)
			return 0;
		/* The thread stands at the fault. */
		(void)carrier_rest(carrier);
		while (next < count && errand->rows[next].result != PL_PROBE_ERRAND_TRYING)
			next++;
		if (next++ == count)
			return -EFAULT;
	}
	errand->state = PL_PROBE_ERRAND_IDLE;
	return carrier_write(carrier, place, &errand->state, sizeof(errand->state));
}

int carrier_run(struct carrier *carrier, const struct pl_probe *probe, struct pl_probe_errand_row *rows, size_t count)
{
	pl_autofree struct pl_probe_errand *errand = malloc(sizeof(*errand));
	int code = 0;

	if (!errand)
		return -ENOMEM;
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
