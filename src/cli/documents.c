/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <limits.h>
#include <unistd.h>

#include "pyleak/cleanup.h"
#include "pyleak/units.h"
#include "render.h"
#include "row_types.h"
#include "session_private.h"

/* What a session has recorded, as a document. */

/* What a session knows of a report; pl_render() fills in the rest. *ret_pids is freed after it; NULL: out of memory. */
static void fill_report(struct pl_session *session, enum pl_report_kind kind, const struct pl_snapshot *before,
	char host[HOST_NAME_MAX + 1], struct pl_report *report, pid_t **ret_pids)
{
	struct pl_targets *targets = &session->targets;

	*report = (struct pl_report){
		.kind = kind,
		.facts = targets->facts,
		.stop_ns = pl_targets_stop_ns(targets),
		.held = session->held,
		.held_count = session->held_count,
		.per_process = session->options->per_process,
		.host = host,
	};
	*ret_pids = pl_targets_since(targets, before ? before->taken_ns : 0, &report->pid_count);
	host[0] = host[HOST_NAME_MAX] = '\0';
	if (gethostname(host, HOST_NAME_MAX) < 0 || !*host)
		report->host = NULL;
	report->pids = *ret_pids;
	report->places_before = before ? before->places : session->places;
	if (session->held_stop_ns > report->stop_ns)
		report->stop_ns = session->held_stop_ns;
	if (targets->finished) {
		report->types = session->types;
		report->type_count = session->type_count;
	}
	report->collector_before = session->collector;
	report->last_full_ns = session->last_full_ns ? pl_now_ns() - session->last_full_ns : 0;
	if (!targets->family && !targets->lead.ended)
		pl_collector_read(targets->lead.python, &report->collector);
}

/* The report in the format of `options`. */
int session_document(struct pl_session *session, const struct pl_options *options, enum pl_report_kind kind,
	const struct pl_snapshot *now, const struct pl_snapshot *before, bool allocated, char **ret_text,
	size_t *ret_length, bool *ret_exceeded)
{
	const struct pl_report_options form = {
		.limit = options->limit,
		.allocated = allocated,
		.color = pl_output_color(options, &session->output),
		.traceback = kind == PL_REPORT_TOP || options->group_by == PL_GROUP_TRACEBACK,
		.source_pid = pl_targets_living(&session->targets),
	};
	const bool looks = !session->targets.finished && (options->format == PL_FORMAT_JSON || options->format == PL_FORMAT_HTML);
	char host[HOST_NAME_MAX + 1];
	struct pl_report report;
	pl_autofree pid_t *pids = NULL;
	pl_autofree struct pl_row_types *types = NULL;
	pl_autofree struct pl_unrecorded *unrecorded = NULL;
	FILE *stream = open_memstream(ret_text, ret_length);
	/* Not a page that somebody asks for meanwhile. */
	bool own = options == session->options;

	fill_report(session, kind, before, host, &report, &pids);
	if (pl_targets_unrecorded(&session->targets, &unrecorded, &report.unrecorded_count) == 0)
		report.unrecorded = unrecorded;
	report.window = own ? session->window : 0;
	report.windows = own ? session->windows : 0;
	if (looks) {
		types = pl_row_types_of_snapshots(&session->targets, options, session->history, now, before, &report.type_count);
		report.types = types;
	}

	int code = stream && pids ?
			   pl_render(options, &report, &form, now, before, session->history, own && session->last, stream, ret_exceeded) :
			   -ENOMEM;

	if (stream && fclose(stream) != 0 && code == 0)
		code = -ENOMEM;
	return code;
}

int pl_session_use_report(struct pl_session *session, const struct pl_snapshot *now, const struct pl_snapshot *before,
	const struct pl_render_use *use)
{
	const struct pl_report_options form = {.source_pid = pl_targets_living(&session->targets)};
	char host[HOST_NAME_MAX + 1];
	struct pl_report report;
	pl_autofree pid_t *pids = NULL;
	bool exceeded;

	fill_report(session, PL_REPORT_DIFF, before, host, &report, &pids);
	return pids ? pl_render_for(session->options, &report, &form, now, before, session->history, false, use,
			      &exceeded) : -ENOMEM;
}
