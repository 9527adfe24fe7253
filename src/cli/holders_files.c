/* SPDX-License-Identifier: MIT */
#include "holders_files.h"

#include <errno.h>
#include <string.h>

#include "holding.h"
#include "output.h"
#include "pyleak/cleanup.h"
#include "pyleak/core.h"
#include "pyleak/holders_report.h"
#include "pyleak/log.h"

/* Who kept the memory, by a core file or a heap that --save wrote. */

struct source {
	const char *path;
	struct pl_space *space;
	struct pl_python *python;
};

static void source_close(struct source *source)
{
	pl_python_close(source->python);
	pl_space_close(source->space);
}

/* What is missing, once for each file. */
static void warn_of_missing(const struct source *source)
{
	const struct pl_core_missing *missing;
	size_t count = pl_core_missing(source->space, &missing);

	for (size_t i = 0; i < count; i++)
		pl_log_warning("%s: %s %s: what is in it is missing%s", source->path, missing[i].path, missing[i].why,
			i ? "" : " (--sysroot says where the files of its machine are)");
}

static int source_open(struct source *source, const struct pl_options *options, struct pl_error *err)
{
	int code = pl_space_of_core(source->path, options->sysroot, &source->space, err);

	if (code == 0)
		code = pl_python_open(source->space, options->force, &source->python, err);
	if (code < 0 && source->space)
		warn_of_missing(source);
	return code;
}

static int find(struct source *source, const struct pl_holders_options *wanted, struct pl_holders *ret, struct pl_error *err)
{
	struct pl_heap_copy *copy = NULL;
	int code = pl_heap_copy_take(source->python, &copy, err);

	if (code == 0)
		code = pl_holders_find(copy, wanted, ret, err);
	pl_heap_copy_free(copy);
	if (code == 0)
		warn_of_missing(source);
	return code;
}

static int print(const struct pl_options *options, struct pl_output *output, const struct source *source,
	const struct pl_holders *holders, const struct pl_held_tree *tree, struct pl_error *err)
{
	struct pl_holders_report report = { .holders = holders, .pid = source->space->pid, .type = options->type,
		.python = source->python->version, .file = source->path, .tree = tree };
	struct pl_core_facts facts;
	int code;

	pl_core_facts(source->space, &facts);
	report.memory = facts.bytes;
	report.rss = facts.rss;
	report.free = facts.free;
	report.files = facts.files;
	report.account_known = facts.rss != 0;
	report.stop_ms = facts.stop_ms;
	code = pl_holders_print(output->stream, options->format, &report, pl_output_color(options, output));
	return code < 0 ? pl_fail(err, code, "the report could not be written: %s", strerror(-code)) : 0;
}

/* Of two, the first is what was before. */
static int look(const struct pl_options *options, struct source *sources, struct pl_output *output, struct pl_error *err)
{
	const bool two = options->files[1] != NULL;
	struct pl_held_tree tree = { 0 };
	struct pl_holders_options wanted = pl_holding_wanted(options, output->stream, &tree);
	struct pl_holders holders[2] = { 0 };
	int code = source_open(&sources[0], options, err);

	if (two)
		wanted.limit = 0;
	if (code == 0)
		code = find(&sources[0], &wanted, &holders[0], err);
	if (code == 0 && two)
		code = source_open(&sources[1], options, err);
	if (code == 0 && two)
		code = find(&sources[1], &wanted, &holders[1], err);
	if (code == 0 && two)
		pl_holders_compare(&holders[0], &holders[1], options->limit);
	if (code == 0)
		code = print(options, output, &sources[two], &holders[two], &tree, err);
	pl_held_tree_free(&tree);
	pl_holders_free(&holders[0]);
	pl_holders_free(&holders[1]);
	return code;
}

int pl_holders_of_files(const struct pl_options *options)
{
	struct source sources[2] = { { .path = options->files[0] }, { .path = options->files[1] } };
	struct pl_output output = { 0 };
	struct pl_error err = { 0 };
	int code = pl_output_open(options, &output, &err);

	if (code == 0)
		code = look(options, sources, &output, &err);
	(void)pl_output_close(&output, &err);
	source_close(&sources[0]);
	source_close(&sources[1]);
	if (!err.code)
		return PL_EXIT_DONE;
	pl_log_error("%s", err.text);
	return PL_EXIT_FAILED;
}
