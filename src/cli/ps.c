/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "json_text.h"
#include "output.h"
#include "pyleak/cleanup.h"
#include "pyleak/log.h"
#include "pyleak/units.h"
#include "scan.h"

enum { COLUMNS = 6, CELL = 64 }; /* and the command line, as long as it is */
static const char *const titles[COLUMNS] = {"PID", "PYTHON", "RSS", "THREADS", "ATTACHABLE", "PROBE"};
static const bool right_aligned[COLUMNS] = {[0] = true, [2] = true, [3] = true};

struct row {
	char cells[COLUMNS][CELL];
	const char *command;
};

static void row_fill(struct row *row, const struct pl_candidate *candidate)
{
	const char *reason = pl_candidate_reason(candidate);

	(void)snprintf(row->cells[0], CELL, "%d", candidate->process.pid);
	(void)snprintf(row->cells[1], CELL, "%s", *candidate->python ? candidate->python : "?");
	pl_format_size((int64_t)candidate->process.rss, false, row->cells[2]);
	(void)snprintf(row->cells[3], CELL, "%d", candidate->process.threads);
	if (candidate->pyleak && candidate->block.code == -EBUSY)
		(void)snprintf(row->cells[4], CELL, "no: %s by %d", reason, (int)candidate->pyleak);
	else
		(void)snprintf(row->cells[4], CELL, "%s%s", reason ? "no: " : "yes", reason ? reason : "");
	(void)snprintf(row->cells[5], CELL, "%s", 
		candidate->probe ? "yes" : candidate->landing ? "landing" : candidate->readable ? "no" : "?");
	row->command = pl_process_title(&candidate->process);
}

static void row_print(FILE *out, const struct row *row, const size_t widths[COLUMNS], size_t terminal)
{
	size_t used = 0, length;

	for (size_t i = 0; i < COLUMNS; i++) {
		fprintf(out, right_aligned[i] ? "%*s  " : "%-*s  ", (int)widths[i], row->cells[i]);
		used += widths[i] + 2;
	}
	length = strlen(row->command);
	if (terminal > used)
		length = pl_output_fitting(row->command, terminal - used);
	fprintf(out, "%.*s", (int)length, row->command);
}

static int print_text(struct pl_output *output, const struct pl_candidates *candidates, bool color)
{
	pl_autofree struct row *rows = calloc(candidates->count + 1, sizeof(*rows));
	size_t widths[COLUMNS] = {0}, terminal = pl_output_width(output);

	if (!rows)
		return -ENOMEM;
	for (size_t i = 0; i < COLUMNS; i++)
		(void)snprintf(rows[0].cells[i], CELL, "%s", titles[i]);
	rows[0].command = "COMMAND";
	for (size_t i = 0; i < candidates->count; i++)
		row_fill(&rows[i + 1], &candidates->items[i]);
	for (size_t i = 0; i <= candidates->count; i++) {
		for (size_t j = 0; j < COLUMNS; j++) {
			size_t length = strlen(rows[i].cells[j]);

			widths[j] = length > widths[j] ? length : widths[j];
		}
	}
	for (size_t i = 0; i <= candidates->count; i++) {
		if (i == 0 && color)
			fputs("\033[1m", output->stream);
		row_print(output->stream, &rows[i], widths, terminal);
		fputs(i == 0 && color ? "\033[0m\n" : "\n", output->stream);
	}
	return 0;
}

static int print_json(FILE *out, const struct pl_candidate *candidate)
{
	const struct pl_process *process = &candidate->process;
	json_t *document = json_pack("{si ss si so sI si sb so so sb so}", "schema", 1, "kind", "ps", "pid", process->pid,
		"python", *candidate->python ? json_string(candidate->python) : json_null(), "rss",
		(json_int_t)process->rss, "threads", process->threads, "attachable", !candidate->block.code, "reason",
		candidate->block.code ? pl_json_text(candidate->block.text) : json_null(), "probe",
		candidate->readable ? json_boolean(candidate->probe) : json_null(), "landing", candidate->landing,
		"command", pl_json_text(process->command_line ? process->command_line : ""));
	int r;

	if (!document)
		return -ENOMEM;
	r = json_dumpf(document, out, JSON_COMPACT | JSON_ENSURE_ASCII);
	json_decref(document);
	fputc('\n', out);
	return r < 0 ? -EIO : 0;
}

static int print_all(const struct pl_options *options, struct pl_output *output,
		     const struct pl_candidates *candidates)
{
	int r = 0;

	if (options->format == PL_FORMAT_TEXT)
		return print_text(output, candidates, pl_output_color(options, output));
	for (size_t i = 0; r == 0 && i < candidates->count; i++)
		r = print_json(output->stream, &candidates->items[i]);
	return r;
}

int pl_command_ps(const struct pl_options *options)
{
	__attribute__((cleanup(pl_candidates_free))) struct pl_candidates candidates = {NULL, 0};
	struct pl_output output = {0};
	struct pl_error err = {0};
	int r;

	if (pl_output_open(options, &output, &err) == 0) {
		r = pl_candidates_scan(&candidates);
		if (r == 0)
			r = print_all(options, &output, &candidates);
		if (r < 0)
			pl_fail(&err, r, "cannot list the processes: %s", strerror(-r));
		else if (candidates.count == 0)
			pl_log_note("no Python process is to be seen from here");
		(void)pl_output_close(&output, &err);
	}
	if (!err.code)
		return PL_EXIT_DONE;
	pl_log_error("%s", err.text);
	return PL_EXIT_FAILED;
}
