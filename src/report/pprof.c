/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/frame_numbers.h"
#include "gzip.h"
#include "pprof.pb-c.h"
#include "pyleak-version.h"
#include "pyleak/cleanup.h"
#include "pyleak/report.h"
#include "pyleak/text.h"
#include "pyleak/table.h"
#include "shown.h"

/* The order is that of Go's own heap profiles. */
enum value { ALLOC_OBJECTS, ALLOC_SPACE, INUSE_OBJECTS, INUSE_SPACE, VALUE_COUNT };
static const char *const value_names[VALUE_COUNT] = {"alloc_objects", "alloc_space", "inuse_objects", "inuse_space"};
static const char *const value_units[VALUE_COUNT] = {"count", "bytes", "count", "bytes"};

/* Messages lie in arrays, so that each array is freed at once; the library wants pointers to each. */
struct sample {
	Pprof__Sample message;
	Pprof__Label label, *labels[1];
	int64_t values[VALUE_COUNT];
};

struct location {
	Pprof__Location message;
	Pprof__Line line, *lines[1];
};

struct builder {
	const struct pl_report *report;
	Pprof__Profile profile;
	struct pl_frame_numbers frames, functions; /* a function is a frame without a line */
	struct pl_table strings;                /* address of the text to its index + 1 */
	size_t string_capacity;
	struct sample *samples;
	uint64_t *ids; /* the location_ids of all samples, one behind the other */
	size_t id_count, id_capacity;
	struct location *locations;
	Pprof__Function *function_items;
	Pprof__ValueType types[VALUE_COUNT], period_type, *type_list[VALUE_COUNT];
	Pprof__Mapping mapping, *mappings[1];
	int64_t comments[1];
	bool failed; /* out of memory */
};

static void builder_free(struct builder *builder)
{
	for (size_t i = 0; i < builder->profile.n_string_table; i++)
		free(builder->profile.string_table[i]);
	free(builder->profile.string_table);
	free(builder->profile.sample);
	free(builder->profile.location);
	free(builder->profile.function);
	free(builder->samples);
	free(builder->ids);
	free(builder->locations);
	free(builder->function_items);
	pl_table_free(&builder->strings);
	pl_frame_numbers_free(&builder->frames);
	pl_frame_numbers_free(&builder->functions);
}

/* The index of a text that stays where it is; the texts of the sites are told apart by address. */
static int64_t text_index(struct builder *builder, const char *text)
{
	struct pl_table_entry *entry = pl_table_insert(&builder->strings, (uint64_t)(uintptr_t)text);
	Pprof__Profile *profile = &builder->profile;

	if (entry && entry->value[0])
		return (int64_t)entry->value[0] - 1;
	if (profile->n_string_table == builder->string_capacity) {
		size_t capacity = builder->string_capacity ? 2 * builder->string_capacity : 256;
		char **grown = reallocarray(profile->string_table, capacity, sizeof(*grown));

		if (grown) {
			profile->string_table = grown;
			builder->string_capacity = capacity;
		}
	}
	if (!entry || profile->n_string_table == builder->string_capacity) {
		builder->failed = true;
		return 0;
	}
	profile->string_table[profile->n_string_table] = pl_printable(text); /* go tool pprof prints them as they are */
	if (!profile->string_table[profile->n_string_table]) {
		builder->failed = true;
		return 0;
	}
	entry->value[0] = ++profile->n_string_table;
	return (int64_t)entry->value[0] - 1;
}

/* One more frame of the sample that is being built. */
static void add_frame(struct builder *builder, const struct pl_frame *frame)
{
	uint32_t number = pl_frame_number(&builder->frames, frame);

	if (builder->id_count == builder->id_capacity) {
		size_t capacity = builder->id_capacity ? 2 * builder->id_capacity : 4096;
		uint64_t *grown = reallocarray(builder->ids, capacity, sizeof(*grown));

		if (!grown) {
			builder->failed = true;
			return;
		}
		builder->ids = grown;
		builder->id_capacity = capacity;
	}
	builder->failed |= number == UINT32_MAX;
	builder->ids[builder->id_count++] = (uint64_t)number + 1;
}

static void add_sample(struct builder *builder, const int64_t values[VALUE_COUNT], size_t id_count, bool base)
{
	Pprof__Profile *profile = &builder->profile;
	struct sample *sample = &builder->samples[profile->n_sample];
	static const char key[] = "pprof::base", yes[] = "true";
	bool empty = true;

	for (int i = 0; i < VALUE_COUNT; i++)
		empty &= !values[i];
	if (empty)
		return;
	pprof__sample__init(&sample->message);
	memcpy(sample->values, values, sizeof(sample->values));
	sample->message.value = sample->values;
	sample->message.n_value = VALUE_COUNT;
	/* Where they are is told when no more are added. */
	sample->message.n_location_id = id_count;
	if (base) {
		pprof__label__init(&sample->label);
		sample->label.key = text_index(builder, key);
		sample->label.str = text_index(builder, yes);
		sample->labels[0] = &sample->label;
		sample->message.label = sample->labels;
		sample->message.n_label = 1;
	}
	profile->sample[profile->n_sample++] = &sample->message;
}

static int64_t cut(uint64_t number)
{
	return number > INT64_MAX ? INT64_MAX : (int64_t)number;
}

/*
 * A difference is what `pprof -diff_base` makes of two profiles: what was there before stands in it
 * with a minus and a label, so that shares are shares of that.
 */
static void add_stack(struct builder *builder, const struct pl_row *row, const struct pl_frame *frames, size_t count, bool more)
{
	static const struct pl_frame older = {OLDER_FRAMES, OLDER_FRAMES, 0};
	const int64_t now[VALUE_COUNT] = {
		[ALLOC_OBJECTS] = cut(row->window.allocated_count),
		[ALLOC_SPACE] = cut(row->window.allocated_size),
		[INUSE_OBJECTS] = row->count,
		[INUSE_SPACE] = row->size,
	};
	const int64_t before[VALUE_COUNT] = {
		[INUSE_OBJECTS] = row->count_diff - row->count,
		[INUSE_SPACE] = row->size_diff - row->size,
	};
	bool difference = builder->report->kind == PL_REPORT_DIFF;

	for (int twice = 0; twice < 1 + difference && !builder->failed; twice++) {
		size_t samples = builder->profile.n_sample, ids = builder->id_count;

		for (size_t i = 0; i < count; i++)
			add_frame(builder, &frames[i]);
		if (more)
			add_frame(builder, &older);
		add_sample(builder, twice ? before : now, builder->id_count - ids, twice);
		if (builder->profile.n_sample == samples)
			builder->id_count = ids;
	}
}

static void add_stacks(struct builder *builder, size_t limit)
{
	static const struct pl_frame other = {"(more stacks)", "(more stacks)", 0};
	const struct pl_rows *stacks = builder->report->stacks;
	size_t shown = shown_rows(stacks, limit);
	const struct pl_row rest = shown_rest(stacks, shown);
	uint64_t *id;

	builder->samples = calloc(2 * (shown + 1), sizeof(*builder->samples));
	builder->profile.sample = calloc(2 * (shown + 1), sizeof(void *));
	builder->failed |= !builder->samples || !builder->profile.sample;
	for (size_t i = 0; i < shown && !builder->failed; i++) {
		struct pl_traceback traceback;

		pl_sites_traceback(builder->report->sites, stacks->items[i].site, &traceback);
		add_stack(builder, &stacks->items[i], traceback.frames, traceback.count, traceback.more);
	}
	if (!builder->failed)
		add_stack(builder, &rest, &other, 1, false);
	id = builder->ids;
	for (size_t i = 0; !builder->failed && i < builder->profile.n_sample; i++) {
		builder->profile.sample[i]->location_id = id;
		id += builder->profile.sample[i]->n_location_id;
	}
}

static void add_locations(struct builder *builder)
{
	Pprof__Profile *profile = &builder->profile;
	size_t count = builder->frames.count;

	builder->locations = calloc(count + 1, sizeof(*builder->locations));
	profile->location = calloc(count + 1, sizeof(void *));
	builder->failed |= !builder->locations || !profile->location;
	for (size_t i = 0; i < count && !builder->failed; i++) {
		const struct pl_frame *frame = &builder->frames.items[i];
		const struct pl_frame function = {frame->filename, frame->function, 0};
		struct location *location = &builder->locations[i];
		uint32_t number = pl_frame_number(&builder->functions, &function);

		builder->failed |= number == UINT32_MAX;
		pprof__line__init(&location->line);
		location->line.function_id = (uint64_t)number + 1;
		location->line.line = frame->line;
		location->lines[0] = &location->line;
		pprof__location__init(&location->message);
		location->message.id = i + 1;
		location->message.mapping_id = 1;
		location->message.line = location->lines;
		location->message.n_line = 1;
		profile->location[profile->n_location++] = &location->message;
	}
}

static void add_functions(struct builder *builder)
{
	Pprof__Profile *profile = &builder->profile;
	size_t count = builder->functions.count;

	builder->function_items = calloc(count + 1, sizeof(*builder->function_items));
	profile->function = calloc(count + 1, sizeof(void *));
	builder->failed |= !builder->function_items || !profile->function;
	for (size_t i = 0; i < count && !builder->failed; i++) {
		Pprof__Function *function = &builder->function_items[i];

		pprof__function__init(function);
		function->id = i + 1;
		function->name = function->system_name = text_index(builder, builder->functions.items[i].function);
		function->filename = text_index(builder, builder->functions.items[i].filename);
		profile->function[profile->n_function++] = function;
	}
}

static void add_facts(struct builder *builder, const char *title, bool allocated)
{
	const struct pl_report *report = builder->report;
	Pprof__Profile *profile = &builder->profile;

	for (int i = 0; i < VALUE_COUNT; i++) {
		pprof__value_type__init(&builder->types[i]);
		builder->types[i].type = text_index(builder, value_names[i]);
		builder->types[i].unit = text_index(builder, value_units[i]);
		builder->type_list[i] = &builder->types[i];
	}
	profile->sample_type = builder->type_list;
	profile->n_sample_type = VALUE_COUNT;
	profile->default_sample_type = builder->types[allocated ? ALLOC_SPACE : INUSE_SPACE].type;
	builder->period_type = builder->types[INUSE_SPACE];
	profile->period_type = &builder->period_type;
	profile->period = report->facts.sample ? cut(report->facts.sample) : 1;
	profile->time_nanos = (int64_t)report->facts.started.tv_sec * 1000000000 + report->facts.started.tv_nsec;
	profile->duration_nanos = report->window_ns;
	pprof__mapping__init(&builder->mapping);
	builder->mapping.id = 1;
	builder->mapping.filename = text_index(builder, title);
	builder->mapping.has_functions = builder->mapping.has_filenames = builder->mapping.has_line_numbers = true;
	builder->mappings[0] = &builder->mapping;
	profile->mapping = builder->mappings;
	profile->n_mapping = 1;
	builder->comments[0] = text_index(builder, "pyleak " PYLEAK_VERSION);
	profile->comment = builder->comments;
	profile->n_comment = 1;
}

int pl_report_pprof(FILE *out, const struct pl_report *report, const struct pl_report_options *options)
{
	__attribute__((cleanup(builder_free))) struct builder builder = {.report = report};
	pl_autofree uint8_t *bytes = NULL;
	char title[64];

	(void)snprintf(title, sizeof(title), "process %d, Python %s", (int)report->facts.pid, report->facts.python[0] ? report->facts.python : "?");
	pprof__profile__init(&builder.profile);
	(void)text_index(&builder, ""); /* the first, always */
	add_facts(&builder, title, options->allocated);
	add_stacks(&builder, options->limit);
	add_locations(&builder);
	add_functions(&builder);
	if (builder.failed)
		return -ENOMEM;
	bytes = malloc(pprof__profile__get_packed_size(&builder.profile) + 1);
	if (!bytes)
		return -ENOMEM;
	return gzip_write(out, bytes, pprof__profile__pack(&builder.profile, bytes));
}
