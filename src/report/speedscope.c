/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "pyleak/frame_numbers.h"
#include "members.h"
#include "pyleak-version.h"
#include "pyleak/cleanup.h"
#include "pyleak/report.h"
#include "shown.h"

/* A weight is never negative there: what grew and what shrank are a profile each. */
enum part { PART_NOW, PART_GREW, PART_SHRANK };

static int64_t weigh(const struct pl_report *report, const struct pl_row *row, enum part part)
{
	int64_t before, weight = shown_weight(report, row, &before);

	if (part == PART_NOW)
		return weight;
	weight = part == PART_GREW ? weight - before : before - weight;
	return weight > 0 ? weight : 0;
}

static bool append_frame(json_t *stack, struct pl_frame_numbers *numbers, const struct pl_frame *frame)
{
	uint32_t number = pl_frame_number(numbers, frame);

	return number == UINT32_MAX || json_array_append_new(stack, json_integer(number)) < 0;
}

static json_t *make_stack(const struct pl_report *report, uint32_t site, struct pl_frame_numbers *numbers)
{
	static const struct pl_frame older = {OLDER_FRAMES, OLDER_FRAMES, 0};
	json_t *stack = json_array();
	struct pl_traceback traceback;
	bool failed;

	pl_sites_traceback(report->sites, site, &traceback);
	failed = !stack || (traceback.more && append_frame(stack, numbers, &older));
	for (size_t i = traceback.count; i-- > 0 && !failed;)
		failed = append_frame(stack, numbers, &traceback.frames[i]);
	if (!failed)
		return stack;
	json_decref(stack);
	return NULL;
}

static json_t *make_rest(struct pl_frame_numbers *numbers)
{
	static const struct pl_frame rest = {"(more stacks)", "(more stacks)", 0};
	json_t *stack = json_array();

	if (stack && !append_frame(stack, numbers, &rest))
		return stack;
	json_decref(stack);
	return NULL;
}

static bool append(json_t *samples, json_t *weights, json_t *stack, int64_t weight)
{
	return (json_array_append_new(samples, stack) < 0) | (json_array_append_new(weights, json_integer(weight)) < 0);
}

static json_t *make_profile(const struct pl_report *report, size_t limit, enum part part, struct pl_frame_numbers *numbers)
{
	static const char *const prefix[] = {[PART_NOW] = "", [PART_GREW] = "grown: ", [PART_SHRANK] = "shrunk: "};
	size_t shown = shown_rows(report->stacks, limit);
	const struct pl_row rest = shown_rest(report->stacks, shown);
	json_t *profile = json_object(), *samples = json_array(), *weights = json_array();
	char name[64];
	bool failed = false;
	int64_t sum = 0, weight;

	for (size_t i = 0; i < shown && !failed; i++) {
		const struct pl_row *row = &report->stacks->items[i];

		weight = weigh(report, row, part);
		if (!weight)
			continue;
		failed = append(samples, weights, make_stack(report, row->site, numbers), weight);
		sum += weight;
	}
	weight = weigh(report, &rest, part);
	if (weight && !failed) {
		failed = append(samples, weights, make_rest(numbers), weight);
		sum += weight;
	}
	(void)snprintf(name, sizeof(name), "%s%s", prefix[part], shown_weight_name(report));
	failed |= put_string(profile, "type", "sampled");
	failed |= put_string(profile, "name", name);
	failed |= put_string(profile, "unit", shown_weight_unit(report));
	failed |= put_integer(profile, "startValue", 0);
	failed |= put_integer(profile, "endValue", sum);
	failed |= put(profile, "samples", samples);
	failed |= put(profile, "weights", weights);
	if (!failed)
		return profile;
	json_decref(profile);
	return NULL;
}

static json_t *make_profiles(const struct pl_report *report, size_t limit, struct pl_frame_numbers *numbers)
{
	json_t *profiles = json_array();
	bool difference = report->kind == PL_REPORT_DIFF && report->sort != PL_SORT_CHURN;
	bool failed = !profiles;

	if (difference) {
		failed |= json_array_append_new(profiles, make_profile(report, limit, PART_GREW, numbers)) < 0;
		failed |= json_array_append_new(profiles, make_profile(report, limit, PART_SHRANK, numbers)) < 0;
	}
	failed |= json_array_append_new(profiles, make_profile(report, limit, PART_NOW, numbers)) < 0;
	if (!failed)
		return profiles;
	json_decref(profiles);
	return NULL;
}

static json_t *make_frames(const struct pl_frame_numbers *numbers)
{
	json_t *frames = json_array();
	bool failed = !frames;

	for (size_t i = 0; i < numbers->count && !failed; i++) {
		const struct pl_frame *frame = &numbers->items[i];
		json_t *object = json_object();

		failed |= put_string(object, "name", frame->function);
		failed |= put_string(object, "file", frame->filename);
		if (frame->line > 0)
			failed |= put_integer(object, "line", frame->line);
		failed |= json_array_append_new(frames, object) < 0;
	}
	if (!failed)
		return frames;
	json_decref(frames);
	return NULL;
}

int pl_report_speedscope(FILE *out, const struct pl_report *report, const struct pl_report_options *options)
{
	__attribute__((cleanup(pl_frame_numbers_free))) struct pl_frame_numbers numbers = {0};
	json_t *document = json_object(), *shared = json_object();
	char name[64];
	bool failed = false;

	(void)snprintf(name, sizeof(name), "process %d", (int)report->facts.pid);
	failed |= put_string(document, "$schema", "https://www.speedscope.app/file-format-schema.json");
	failed |= put_string(document, "name", name);
	failed |= put_string(document, "exporter", "pyleak " PYLEAK_VERSION);
	failed |= put_integer(document, "activeProfileIndex", 0);
	/* The stacks number the frames. */
	failed |= put(document, "profiles", make_profiles(report, options->limit, &numbers));
	failed |= put(shared, "frames", make_frames(&numbers));
	failed |= put(document, "shared", shared);
	if (failed) {
		json_decref(document);
		return -ENOMEM;
	}
	return json_print_line(out, document);
}
