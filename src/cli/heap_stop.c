/* SPDX-License-Identifier: MIT */
#include "heap_stop.h"

#include <errno.h>
#include <string.h>

#include "pyleak/log.h"
#include "pyleak/trace.h"
#include "pyleak/units.h"

#define STOP_PATIENCE_NSEC (5 * PL_NSEC_PER_SEC)

static int copy_stopped(struct heap_stop *stop, struct pl_heap_copy *copy, struct pl_error *err)
{
	struct pl_tracee *tracee = NULL;
	int code = pl_tracee_seize(stop->pid, STOP_PATIENCE_NSEC, &tracee, err);

	if (code < 0)
		return code;
	code = pl_heap_copy_finish(copy, err);
	if (code == 0 && stop->also) {
		code = stop->also(stop->context);
		if (code < 0)
			(void)pl_fail(err, code, "the recorder's tables in process %d cannot be read: %s", (int)stop->pid, strerror(-code));
	}
	stop->took_ns = pl_tracee_detach(tracee);
	return code;
}

int heap_stop_copy(struct heap_stop *stop, struct pl_heap_copy *copy, struct pl_error *err)
{
	char time[PL_SIZE_TEXT], most[PL_SIZE_TEXT], size[PL_SIZE_TEXT];
	int code;

	stop->took_ns = 0;
	pl_format_duration(stop->expected_ns, time);
	pl_format_duration(stop->most_ns, most);
	pl_format_size((int64_t)pl_heap_copy_size(copy), false, size);
	if (stop->expected_ns > stop->most_ns)
		return pl_fail(err, -EBUSY,
			"process %d would have to be stopped for some %s, as its heap is copied at one moment (%s): give --max-stop to "
			"allow more than %s",
			(int)stop->pid, time, size, most);
	pl_log_note("process %d is stopped for some %s: %s are copied", (int)stop->pid, time, size);
	code = copy_stopped(stop, copy, err);
	if (code < 0)
		return code;
	pl_format_duration(stop->took_ns, time);
	pl_log_note("it was stopped for %s", time);
	return 0;
}
