/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include "checks.h"
#include "holders_files.h"
#include "holding.h"
#include "output.h"
#include "pyleak/account_reader.h"
#include "pyleak/core.h"
#include "pyleak/holders_report.h"
#include "pyleak/log.h"
#include "pyleak/units.h"
#include "save.h"

/* Who keeps the memory. */

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

/* --save: what was copied, and what there is beside it. */
struct saving {
	const struct pl_options *options;
	const struct pl_subject *subject;
};

static int save(void *context, struct pl_heap_copy *heap, int64_t stop_ns, struct pl_error *err)
{
	const struct saving *saving = context;
	struct pl_holders_report report = { 0 };
	struct pl_core_facts facts = { .rss = pl_process_rss(saving->subject->process.pid),
		.stop_ms = (double)stop_ns / PL_NSEC_PER_MSEC };

	account(saving->subject->python, &report);
	facts.free = report.free;
	facts.files = report.files;
	return pl_heap_save(saving->options, saving->subject->space, heap, &facts, err);
}

static int look(const struct pl_options *options, struct pl_subject *subject, struct pl_output *output, struct pl_error *err)
{
	struct pl_held_tree tree = { 0 };
	const struct pl_holders_options wanted = pl_holding_wanted(options, output->stream, &tree);
	struct saving saving = { options, subject };
	const struct pl_holding of = { subject->process.pid, subject->python, options->max_stop_ns,
		options->save ? save : NULL, &saving };
	struct pl_holders holders = { 0 };
	struct pl_holders_report report = { .holders = &holders, .pid = subject->process.pid, .type = options->type,
		.python = subject->python->version, .tree = &tree };
	int64_t stop_ns = 0;
	int code;

	if (options->interval_ns && options->type)
		return pl_fail(err, -EINVAL, "--type says who leads to objects, not what grows: leave --interval out");
	code = options->interval_ns ?
		       pl_holding_growth(&of, options->interval_ns, options->limit, &holders, &stop_ns, err) :
		       pl_holding_find(&of, &wanted, &holders, &stop_ns, err);
	if (code < 0 && !pl_process_is_alive(subject->process.pid, subject->process.start_time)) {
		*err = (struct pl_error){ 0 };
		code = pl_fail(err, -ESRCH, "process %d ended while it was read", (int)subject->process.pid);
	}
	if (code == 0) {
		report.rss = pl_process_rss(subject->process.pid);
		account(subject->python, &report);
		report.stop_ms = (double)stop_ns / PL_NSEC_PER_MSEC;
		code = pl_holders_print(output->stream, options->format, &report, pl_output_color(options, output));
		if (code < 0)
			(void)pl_fail(err, code, "the report could not be written: %s", strerror(-code));
	}
	pl_held_tree_free(&tree);
	pl_holders_free(&holders);
	return code;
}

/* All that is read of the process from here on is noted: a file that is read elsewhere needs it. */
static int note_pages(struct pl_subject *subject, struct pl_space **live, struct pl_error *err)
{
	struct pl_space *noting;

	if (pl_space_noting(subject->space, &noting) < 0)
		return pl_fail(err, -ENOMEM, "out of memory");
	*live = subject->space;
	subject->space = noting;
	return 0;
}

int pl_command_holders(const struct pl_options *options)
{
	struct pl_subject subject = { 0 };
	struct pl_output output = { 0 };
	struct pl_error err = { 0 };
	struct pl_space *live = NULL;
	pid_t pid;
	int code;

	if (options->files[0])
		return pl_holders_of_files(options);
	code = pl_choose_process(options, &pid, &err);
	if (code == 0)
		code = pl_output_open(options, &output, &err);
	if (code == 0 && options->save)
		code = pl_heap_save_check(options, &err);
	if (code == 0)
		code = pl_subject_open(&subject, pid, options->force, &err);
	if (code == 0 && options->save)
		code = note_pages(&subject, &live, &err);
	if (code == 0)
		code = pl_checks_before_reading(&subject, &err);
	if (code == 0)
		code = pl_process_check(&subject.process, PL_PROCESS_HAS_NO_TRACER, &err);
	if (code == 0)
		code = look(options, &subject, &output, &err);
	(void)pl_output_close(&output, &err);
	pl_subject_close(&subject);
	pl_space_close(live);
	if (!err.code)
		return PL_EXIT_DONE;
	pl_log_error("%s", err.text);
	return PL_EXIT_FAILED;
}
