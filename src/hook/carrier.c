/* SPDX-License-Identifier: MIT */
#include "carrier.h"

#include <errno.h>

#include "pyleak/cleanup.h"
#include "pyleak/units.h"

/* After so long nothing new is begun with a thread. */
#define CARRIER_HOLD_NSEC (PL_NSEC_PER_MSEC / 8)
#define CARRIER_PATIENCE_NSEC (2 * PL_NSEC_PER_SEC)

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

	if (carrier->remote &&
		(carrier->keep || pl_now_ns() - carrier->tracee->stopped_since < CARRIER_HOLD_NSEC))
		return 0;
	if (carrier->tracee && carrier->keep)
		return pl_remote_begin(carrier->tracee, &carrier->maps, &carrier->gadgets, &carrier->remote, err);
	(void)carrier_rest(carrier);
	do {
		struct pl_error last = {0};

		code = pl_remote_hold(carrier->pid, &carrier->maps, &carrier->gadgets, &carrier->choice, &carrier->tracee,
			&carrier->remote, &last);
		if (code < 0)
			code = pl_fail(pl_now_ns() < give_up ? NULL : err, code, "%s", last.text);
		/* Its stack may be newer than what was read of the mappings. */
		if (code == -EAGAIN)
			(void)carrier_look(carrier);
	} while ((code == -EAGAIN || code == -ETIMEDOUT) && pl_now_ns() < give_up);
	if (carrier->choice.in_vain > carrier->longest_hold)
		carrier->longest_hold = carrier->choice.in_vain;
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

	/* What -EAGAIN says of a call is another thing. */
	if (code == -EAGAIN)
		code = -ETIMEDOUT;
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
