/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "info.h"
#include "output.h"
#include "pyleak/cleanup.h"
#include "pyleak/log.h"
#include "pyleak/recording_file.h"
#include "pyleak/units.h"
#include "pyleak/verdict.h"
#include "render.h"

/*
 * `pyleak report`: snapshots out of recordings. A recording may be of days, so it is gone through
 * twice: once to see which snapshots it has, once to take those that are wanted.
 */

enum { HISTORY_SNAPSHOTS = 200 };

struct recording {
	const char *name;
	FILE *stream;
	struct pl_recording_reader *reader;
	int64_t *times; /* of its whole snapshots, since the start */
	size_t count;
	struct pl_error damage; /* after them */
};

static void recording_close(struct recording *recording)
{
	pl_recording_reader_free(recording->reader);
	if (recording->stream)
		(void)fclose(recording->stream);
	free(recording->times);
}

static int note_time(struct recording *recording)
{
	size_t capacity = recording->count;

	/* Powers of two are where it is full. */
	if ((capacity & (capacity - 1)) == 0) {
		int64_t *grown = reallocarray(recording->times, capacity ? 2 * capacity : 1, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		recording->times = grown;
	}
	recording->times[recording->count++] = pl_recording_reader_time(recording->reader);
	return 0;
}

/* The file, or what comes through a pipe, to be read twice. */
static FILE *open_twice(const char *name)
{
	FILE *stream = strcmp(name, "-") == 0 ? fdopen(dup(STDIN_FILENO), "r") : fopen(name, "re");
	FILE *copy;
	char buffer[65536];
	size_t length;

	if (!stream || fseek(stream, 0, SEEK_CUR) == 0)
		return stream;
	copy = tmpfile();
	while (copy && (length = fread(buffer, 1, sizeof(buffer), stream)) > 0)
		if (fwrite(buffer, 1, length, copy) != length)
			break;
	if (copy && (ferror(stream) || ferror(copy))) {
		(void)fclose(copy);
		copy = NULL;
	}
	(void)fclose(stream);
	return copy;
}

/* From its beginning. */
static int start(struct recording *recording, struct pl_sites *sites, struct pl_error *err)
{
	pl_recording_reader_free(PL_TAKE(recording->reader));
	if (fseek(recording->stream, 0, SEEK_SET) < 0)
		return pl_fail(err, -errno, "%s: %s", recording->name, strerror(errno));
	return pl_recording_reader_new(recording->stream, recording->name, sites, &recording->reader, err);
}

static int recording_open(struct recording *recording, const char *name, struct pl_sites *sites, struct pl_error *err)
{
	int code;

	recording->name = strcmp(name, "-") == 0 ? "standard input" : name;
	recording->stream = open_twice(name);
	if (!recording->stream)
		return pl_fail(err, errno ? -errno : -EIO, "%s: %s", recording->name, strerror(errno ? errno : EIO));
	code = start(recording, sites, err);
	if (code < 0)
		return code;
	do {
		if (note_time(recording) < 0)
			return pl_fail(err, -ENOMEM, "out of memory");
		code = pl_recording_reader_next(recording->reader, &recording->damage);
	} while (code == 1);
	/* What is whole is shown. */
	return code == 0 || code == -EBADMSG ? 0 : pl_fail(err, code, "%s", recording->damage.text);
}

/* The snapshot nearest to `time` (-1: the last of all). */
static size_t find(const struct recording *recording, int64_t time)
{
	size_t at = recording->count ? recording->count - 1 : 0;

	while (at > 0 && time >= 0 && llabs(recording->times[at - 1] - time) <= llabs(recording->times[at] - time))
		at--;
	return at;
}

/* Goes to snapshot `number`, which is not behind the one that the reader is at. */
static int take(struct recording *recording, size_t *at, size_t number, struct pl_snapshot **ret, struct pl_error *err)
{
	while (*at < number) {
		int code = pl_recording_reader_next(recording->reader, err);

		if (code != 1)
			return pl_fail(err, code < 0 ? code : -EIO, "%s: it changed meanwhile", recording->name);
		++*at;
	}
	*ret = pl_recording_reader_snapshot(recording->reader);
	return *ret ? 0 : pl_fail(err, -ENOMEM, "out of memory");
}

/* The same, and notes what is on the way: as many snapshots as a history needs, at equal distances. */
static int follow(struct recording *recording, size_t *at, size_t number, struct pl_history *history,
	struct pl_snapshot **ret, struct pl_error *err)
{
	size_t stride = (number - *at) / HISTORY_SNAPSHOTS + 1;
	int code = 0;

	for (size_t next = *at + (number - *at) % stride; code == 0 && next < number; next += stride) {
		struct pl_snapshot *snapshot = NULL;

		code = take(recording, at, next, &snapshot, err);
		if (code == 0 && pl_history_add(history, snapshot) < 0)
			code = pl_fail(err, -ENOMEM, "out of memory");
		pl_snapshot_free(snapshot);
	}
	if (code == 0)
		code = take(recording, at, number, ret, err);
	if (code == 0 && pl_history_add(history, *ret) < 0)
		code = pl_fail(err, -ENOMEM, "out of memory");
	return code;
}

static char *copy_source(void *context, const char *filename, int line)
{
	const struct recording *recording = context;
	const char *source = pl_recording_reader_source(recording->reader, filename, line);

	return source ? strdup(source) : NULL;
}

static int copy_definition(void *context, const char *filename, const char *function, int line)
{
	const struct recording *recording = context;

	return pl_recording_reader_definition(recording->reader, filename, function, line);
}

/* Whether the recording kept the processes of a family apart. */
static bool is_per_process(const struct pl_snapshot *snapshot)
{
	for (size_t site = 0; site < snapshot->count; site++)
		if (pl_sites_process(snapshot->sites, (uint32_t)site))
			return true;
	return false;
}

static int print(const struct pl_options *options, struct pl_output *output, struct recording *recording,
	bool two_recordings, const struct pl_snapshot *now, const struct pl_snapshot *before,
	const struct pl_history *history, bool *ret_exceeded)
{
	struct pl_report report = {
		.kind = before ? PL_REPORT_DIFF : PL_REPORT_TOP,
		.facts = *pl_recording_reader_facts(recording->reader),
		.stop_ns = pl_recording_reader_stop(recording->reader),
		.per_process = is_per_process(now),
		.two_recordings = two_recordings,
	};
	const struct pl_report_options form = {
		.limit = options->limit,
		.color = pl_output_color(options, output),
		.traceback = !before || options->group_by == PL_GROUP_TRACEBACK,
		.source = copy_source,
		.definition = copy_definition,
		.source_context = recording,
	};

	return pl_render(options, &report, &form, now, before, history, !two_recordings, output->stream, ret_exceeded);
}

static int explain_length(const struct recording *recording, const char *option, int64_t wanted, struct pl_error *err)
{
	char length[PL_SIZE_TEXT], moment[PL_SIZE_TEXT];

	pl_format_duration(recording->times[recording->count - 1], length);
	pl_format_duration(wanted, moment);
	return pl_fail(err, -ERANGE, "%s is %s long: %s %s is beyond its end", recording->name, length, option, moment);
}

/* By more than a window: what is nearest is not what was meant. */
static void warn_of_end(const struct recording *recording, int64_t wanted)
{
	const int64_t *last = &recording->times[recording->count - 1];
	struct pl_error told = {0};

	if (recording->count < 2 || wanted <= *last + (last[0] - last[-1]))
		return;
	(void)explain_length(recording, "--to", wanted, &told);
	pl_log_warning("%s; this is up to there", told.text);
}

/* Two that read one probe, which stayed in the process, are parts of one recording. */
static bool is_another(const struct recording *first, const struct recording *last)
{
	const struct pl_facts *one = pl_recording_reader_facts(first->reader), *other = pl_recording_reader_facts(last->reader);

	return first != last && (one->pid != other->pid || one->started.tv_sec != other->started.tv_sec ||
					one->started.tv_nsec != other->started.tv_nsec);
}

/* Of each recording what it is of. */
static int show_info(const struct pl_options *options, struct pl_output *output, struct recording recordings[2],
	struct pl_sites *sites, struct pl_error *err)
{
	int code = 0;

	for (int i = 0; i < 2 && code == 0 && options->files[i]; i++) {
		struct pl_snapshot *last = NULL;
		size_t at = 0;

		code = start(&recordings[i], sites, err);
		if (code == 0)
			code = take(&recordings[i], &at, recordings[i].count - 1, &last, err);
		if (code == 0 && last) {
			const struct pl_info info = {
				.name = recordings[i].name,
				.facts = pl_recording_reader_facts(recordings[i].reader),
				.first_ns = recordings[i].times[0],
				.length_ns = recordings[i].times[recordings[i].count - 1],
				.snapshots = recordings[i].count,
				.last = last,
				.per_process = is_per_process(last),
			};

			code = options->format == PL_FORMAT_JSON ? pl_info_print_json(output->stream, &info)
								 : pl_info_print(output->stream, &info);
		}
		pl_snapshot_free(last);
	}
	return code;
}

/* The first recording has the older snapshot, the last (which may be the same) the newer one. */
static int show(const struct pl_options *options, struct pl_output *output, struct recording recordings[2],
	struct pl_sites *sites, bool *ret_exceeded, struct pl_error *err)
{
	struct recording *first = &recordings[0], *last = options->files[1] ? &recordings[1] : first;
	bool difference = first != last || options->from_ns >= 0;
	struct pl_snapshot *before = NULL, *now = NULL;
	struct pl_history *history = pl_history_new();
	size_t from = find(first, options->from_ns), to = find(last, options->to_ns), at = 0;
	int code = history ? 0 : pl_fail(err, -ENOMEM, "out of memory");

	if (code == 0 && first == last && first->count && options->from_ns > first->times[first->count - 1])
		code = explain_length(first, "--from", options->from_ns, err);
	if (code == 0 && difference && first == last && from >= to)
		code = pl_fail(err, -ERANGE, "%s: --from and --to are nearest to the same snapshot", first->name);
	if (code == 0 && last->count && options->to_ns >= 0)
		warn_of_end(last, options->to_ns);
	if (code == 0)
		code = start(first, sites, err);
	if (code == 0 && difference)
		code = take(first, &at, from, &before, err);
	if (code == 0 && first != last) {
		code = start(last, sites, err);
		at = 0;
	}
	if (code == 0)
		code = follow(last, &at, to, history, &now, err);
	if (code == 0) {
		code = print(options, output, last, is_another(first, last), now, before, history, ret_exceeded);
		if (code < 0)
			(void)pl_fail(err, code, "the report could not be written: %s", strerror(-code));
	}
	pl_history_free(history);
	pl_snapshot_free(before);
	pl_snapshot_free(now);
	return code;
}

int pl_command_report(const struct pl_options *options)
{
	struct recording recordings[2] = {0};
	struct pl_sites *sites = pl_sites_new();
	struct pl_output output = {0};
	struct pl_error err = {0};
	bool exceeded = false;
	int code = sites ? 0 : pl_fail(&err, -ENOMEM, "out of memory");

	if (code == 0)
		pl_sites_set_libraries(sites, options->exclude);
	for (int i = 0; i < 2 && code == 0 && options->files[i]; i++)
		code = recording_open(&recordings[i], options->files[i], sites, &err);
	if (code == 0)
		code = pl_output_open(options, &output, &err);
	if (code == 0 && options->info)
		code = show_info(options, &output, recordings, sites, &err);
	else if (code == 0)
		code = show(options, &output, recordings, sites, &exceeded, &err);
	if (pl_output_close(&output, &err) < 0)
		code = err.code;
	for (int i = 0; i < 2; i++) {
		if (code == 0 && recordings[i].damage.code) {
			pl_log_error("%s; what is whole was shown", recordings[i].damage.text);
			code = -EBADMSG;
		}
		recording_close(&recordings[i]);
	}
	pl_sites_free(sites);
	if (err.code)
		pl_log_error("%s", err.text);
	if (code < 0)
		return PL_EXIT_FAILED;
	return exceeded ? PL_EXIT_GREW : PL_EXIT_DONE;
}
