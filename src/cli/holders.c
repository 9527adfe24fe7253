/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "checks.h"
#include "output.h"
#include "pyleak/account_reader.h"
#include "pyleak/cleanup.h"
#include "pyleak/holders_report.h"
#include "pyleak/log.h"
#include "pyleak/trace.h"
#include "pyleak/units.h"
#include "stop.h"

/* Who keeps the memory. */

#define STOP_PATIENCE_NSEC (5 * PL_NSEC_PER_SEC)

/* The one moment at which the process is stopped: nothing in it changes, and if pyleak dies here the kernel lets it go. */
static int copy_stopped(pid_t pid, struct pl_heap_copy *copy, int64_t *ret_stop_ns, struct pl_error *err)
{
	struct pl_tracee *tracee = NULL;
	int code = pl_tracee_seize(pid, STOP_PATIENCE_NSEC, &tracee, err);

	if (code < 0)
		return code;
	code = pl_heap_copy_finish(copy, err);
	*ret_stop_ns = pl_tracee_detach(tracee);
	return code;
}

static int copy(const struct pl_options *options, const struct pl_subject *subject, struct pl_heap_copy **ret,
	int64_t *ret_stop_ns, struct pl_error *err)
{
	char estimate[PL_SIZE_TEXT], most[PL_SIZE_TEXT], size[PL_SIZE_TEXT];
	int64_t expected;
	int code = pl_heap_copy_prepare(subject->python, ret, &expected, err);

	if (code < 0)
		return code;
	pl_format_duration(expected, estimate);
	pl_format_duration(options->max_stop_ns, most);
	pl_format_size((int64_t)pl_heap_copy_size(*ret), false, size);
	if (expected > options->max_stop_ns)
		return pl_fail(err, -EBUSY,
			"process %d would have to be stopped for some %s, as its heap is copied at one moment (%s): give --max-stop to "
			"allow more than %s",
			(int)subject->process.pid, estimate, size, most);
	pl_log_note("process %d is stopped for some %s: %s are copied", (int)subject->process.pid, estimate, size);
	code = copy_stopped(subject->process.pid, *ret, ret_stop_ns, err);
	if (code < 0)
		return code;
	pl_format_duration(*ret_stop_ns, estimate);
	pl_log_note("it was stopped for %s", estimate);
	return 0;
}

static void account(const struct pl_python *python, struct pl_holders_report *report)
{
	struct pl_account_reader *reader = NULL;
	struct pl_account taken;

	if (pl_account_open(python, &reader) < 0)
		return;
	pl_account_take(reader, 0, &taken);
	pl_account_close(reader);
	if (!taken.taken)
		return;
	report->account_known = taken.known[PL_ACCOUNT_HEAP_FREE] || taken.known[PL_ACCOUNT_ARENAS_FREE];
	for (int part = 0; part < PL_ACCOUNT_PARTS; part++)
		if (taken.parts[part] > 0 && (part == PL_ACCOUNT_HEAP_FREE || part == PL_ACCOUNT_ARENAS_FREE))
			report->free += (uint64_t)taken.parts[part];
	report->files = taken.parts[PL_ACCOUNT_FILES] > 0 ? (uint64_t)taken.parts[PL_ACCOUNT_FILES] : 0;
}

/* The holders at one moment. */
static int find(const struct pl_options *options, const struct pl_subject *subject, const struct pl_holders_options *wanted,
	struct pl_holders *ret, int64_t *longest_ns, struct pl_error *err)
{
	struct pl_heap_copy *heap = NULL;
	int64_t stop_ns = 0;
	int code = copy(options, subject, &heap, &stop_ns, err);

	if (stop_ns > *longest_ns)
		*longest_ns = stop_ns;
	if (code == 0)
		code = pl_holders_find(heap, wanted, ret, err);
	pl_heap_copy_free(heap);
	return code;
}

/* False: it is to end. */
static bool wait_for(int64_t ns)
{
	int64_t end = pl_now_ns() + ns;

	while (!*pl_stop_flag() && pl_now_ns() < end) {
		const struct timespec pause = { .tv_nsec = 20 * PL_NSEC_PER_MSEC };

		(void)nanosleep(&pause, NULL);
	}
	return !*pl_stop_flag();
}

/* What grew within an interval; ^C ends it early. */
static int find_growth(const struct pl_options *options, const struct pl_subject *subject, struct pl_holders *ret,
	int64_t *longest_ns, struct pl_error *err)
{
	const struct pl_holders_options all = { 0 };
	struct pl_holders before = { 0 };
	int code = find(options, subject, &all, &before, longest_ns, err);

	if (code == 0) {
		(void)wait_for(options->interval_ns);
		code = find(options, subject, &all, ret, longest_ns, err);
	}
	if (code == 0)
		pl_holders_compare(&before, ret, options->limit);
	pl_holders_free(&before);
	return code;
}

static int look(const struct pl_options *options, struct pl_subject *subject, struct pl_output *output, struct pl_error *err)
{
	const struct pl_holders_options wanted = { .limit = options->limit, .type = options->type };
	struct pl_holders holders = { 0 };
	struct pl_holders_report report = { .holders = &holders, .pid = subject->process.pid, .type = options->type,
		.python = subject->python->version };
	int64_t stop_ns = 0;
	int code;

	if (options->interval_ns && options->type)
		return pl_fail(err, -EINVAL, "--type says who leads to objects, not what grows: leave --interval out");
	code = options->interval_ns ? find_growth(options, subject, &holders, &stop_ns, err) :
					 find(options, subject, &wanted, &holders, &stop_ns, err);
	if (code < 0 && !pl_process_is_alive(subject->process.pid, subject->process.start_time)) {
		*err = (struct pl_error){ 0 };
		code = pl_fail(err, -ESRCH, "process %d ended while it was read", (int)subject->process.pid);
	}
	if (code == 0) {
		report.rss = pl_process_rss(subject->process.pid);
		account(subject->python, &report);
		report.stop_ms = (double)stop_ns / PL_NSEC_PER_MSEC;
		code = options->format == PL_FORMAT_JSON ? pl_holders_json(output->stream, &report) :
							   pl_holders_text(output->stream, &report, pl_output_color(options, output));
		if (code < 0)
			(void)pl_fail(err, code, "the report could not be written: %s", strerror(-code));
	}
	pl_holders_free(&holders);
	return code;
}

int pl_command_holders(const struct pl_options *options)
{
	struct pl_subject subject = { 0 };
	struct pl_output output = { 0 };
	struct pl_error err = { 0 };
	pid_t pid;
	int code = pl_choose_process(options, &pid, &err);

	if (code == 0)
		code = pl_output_open(options, &output, &err);
	if (code == 0)
		code = pl_subject_open(&subject, pid, options->force, &err);
	if (code == 0)
		code = pl_checks_before_reading(&subject, &err);
	if (code == 0)
		code = pl_process_check(&subject.process, PL_PROCESS_HAS_NO_TRACER, &err);
	if (code == 0)
		code = look(options, &subject, &output, &err);
	(void)pl_output_close(&output, &err);
	pl_subject_close(&subject);
	if (!err.code)
		return PL_EXIT_DONE;
	pl_log_error("%s", err.text);
	return PL_EXIT_FAILED;
}
