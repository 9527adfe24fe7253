/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"
#include "reader_private.h"

/* Whoever made the file may mean harm: every number is checked before it is used. Sums of times stay
 * within 63 bits, sums of variances within a double. */
#define TIME_MAX (INT64_C(1) << 61)
#define VARIANCE_MAX 1e36

/* Room for `more` items behind `count`. */
static bool reserve(void **items, size_t size, size_t count, size_t more, size_t *capacity)
{
	size_t wanted = *capacity ? *capacity : 256;
	void *grown;

	if (more > UINT32_MAX - 1 - count)
		return false;
	if (count + more <= *capacity)
		return true;
	while (wanted < count + more)
		wanted *= 2;
	grown = reallocarray(*items, wanted, size);
	if (!grown)
		return false;
	*items = grown;
	*capacity = wanted;
	return true;
}

static int take_texts(struct recorded *recorded, const ProtobufCBinaryData *texts)
{
	const char *at = (const char *)texts->data, *end = at + texts->len;

	while (at < end) {
		const char *stop = memchr(at, '\0', (size_t)(end - at));
		const char *text;

		if (!stop || stop - at > RECORDING_TEXT_MAX)
			return -EBADMSG;
		text = pl_sites_string(recorded->sites, at);
		if (!text || !reserve((void **)&recorded->texts, sizeof(*recorded->texts), recorded->text_count, 1,
				     &recorded->text_capacity))
			return -ENOMEM;
		recorded->texts[recorded->text_count++] = text;
		at = stop + 1;
	}
	return 0;
}

static int remember_source(struct recorded *recorded, const struct pl_frame *frame, const char *source)
{
	const struct pl_frame place = {.filename = frame->filename, .line = frame->line};
	uint32_t number = pl_frame_number(&recorded->places, &place);

	if (number == UINT32_MAX || !reserve((void **)&recorded->sources, sizeof(*recorded->sources), number, 1,
					    &recorded->source_capacity))
		return -ENOMEM;
	recorded->sources[number] = source;
	return 0;
}

/* Where the function of a frame begins, and what stands there. */
static int take_definition(struct recorded *recorded, const Pyleak__Recording *message, size_t i, const struct pl_frame *frame)
{
	uint32_t line = message->n_frame_definition ? message->frame_definition[i] : 0;
	uint32_t source = message->n_frame_definition_source ? message->frame_definition_source[i] : 0;
	const struct pl_frame place = {.filename = frame->filename, .line = (int)line};
	uint32_t number;

	if (line > INT_MAX || source > recorded->text_count)
		return -EBADMSG;
	if (!line)
		return 0;
	number = pl_frame_number(&recorded->functions, frame);
	if (number == UINT32_MAX || !reserve((void **)&recorded->definitions, sizeof(*recorded->definitions), number, 1,
					    &recorded->definition_capacity))
		return -ENOMEM;
	recorded->definitions[number] = (int)line;
	return source ? remember_source(recorded, &place, recorded->texts[source - 1]) : 0;
}

static int take_frames(struct recorded *recorded, const Pyleak__Recording *message)
{
	size_t count = message->n_frame_filename;
	int code = 0;

	if (message->n_frame_function != count || message->n_frame_line != count ||
		(message->n_frame_source && message->n_frame_source != count) ||
		(message->n_frame_definition && message->n_frame_definition != count) ||
		(message->n_frame_definition_source && message->n_frame_definition_source != count))
		return -EBADMSG;
	if (!reserve((void **)&recorded->frames, sizeof(*recorded->frames), recorded->frame_count, count,
		    &recorded->frame_capacity))
		return -ENOMEM;
	for (size_t i = 0; i < count && code == 0; i++) {
		uint32_t filename = message->frame_filename[i], function = message->frame_function[i];
		uint32_t source = message->n_frame_source ? message->frame_source[i] : 0;
		struct pl_frame *frame = &recorded->frames[recorded->frame_count + i].frame;

		if (filename >= recorded->text_count || function >= recorded->text_count || source > recorded->text_count ||
			message->frame_line[i] < 0)
			return -EBADMSG;
		*frame = (struct pl_frame){
			.filename = recorded->texts[filename],
			.function = recorded->texts[function],
			.line = message->frame_line[i],
		};
		if (source)
			code = remember_source(recorded, frame, recorded->texts[source - 1]);
		if (code == 0)
			code = take_definition(recorded, message, i, frame);
	}
	recorded->frame_count += count;
	return code;
}

/* Room for as many sites in both arrays, which share their capacity. */
static bool reserve_sites(struct recorded *recorded, size_t count)
{
	size_t capacity = recorded->site_capacity;

	return reserve((void **)&recorded->site_map, sizeof(*recorded->site_map), recorded->site_count, count, &capacity) &&
	       reserve((void **)&recorded->totals, sizeof(*recorded->totals), recorded->site_count, count,
		       &recorded->site_capacity);
}

/* Columns that may be left out. */
static bool are_sound_details(const struct recorded *recorded, const Pyleak__Recording *message, size_t count)
{
	if ((message->n_site_process && message->n_site_process != count) ||
		(message->n_site_class && message->n_site_class != count) ||
		(message->n_site_module && message->n_site_module != count) ||
		message->n_site_symbol != message->n_site_module || message->n_site_offset != message->n_site_module ||
		(message->n_site_source && message->n_site_source != message->n_site_module) ||
		message->n_site_line != message->n_site_source)
		return false;
	for (size_t i = 0; i < message->n_site_source; i++)
		if (message->site_source[i] > recorded->text_count)
			return false;
	for (size_t i = 0; i < message->n_site_process; i++)
		if (message->site_process[i] > INT_MAX)
			return false;
	for (size_t i = 0; i < message->n_site_module; i++)
		if (message->site_module[i] > recorded->text_count || message->site_symbol[i] > recorded->text_count)
			return false;
	return true;
}

static uint32_t intern(struct recorded *recorded, const Pyleak__Recording *message, size_t i,
	const struct pl_frame *frames, size_t depth)
{
	uint32_t module = message->n_site_module ? message->site_module[i] : 0;
	uint32_t symbol = message->n_site_module ? message->site_symbol[i] : 0;

	if (message->site_domain[i] == PL_SITE_OLDER)
		return pl_sites_intern_older(recorded->sites, message->n_site_class ? message->site_class[i] : 0, frames, depth,
			message->site_more[i]);
	if (!module || message->site_domain[i] == PL_SITE_PYTHON)
		return pl_sites_intern(recorded->sites, (enum pl_site_domain)message->site_domain[i], frames, depth,
			message->site_more[i]);

	const uint32_t source = message->n_site_source ? message->site_source[i] : 0;
	const struct pl_native_caller caller = {
		.module = recorded->texts[module - 1],
		.symbol = symbol ? recorded->texts[symbol - 1] : NULL,
		.filename = source ? recorded->texts[source - 1] : NULL,
		.line = source ? message->site_line[i] : 0,
		.offset = message->site_offset[i],
	};

	if (message->site_domain[i] == PL_SITE_POOL)
		return pl_sites_intern_pool(recorded->sites, frames, depth, message->site_more[i], &caller);
	return pl_sites_intern_native(recorded->sites, frames, depth, message->site_more[i], &caller);
}

static int take_sites(struct recorded *recorded, const Pyleak__Recording *message)
{
	size_t count = message->n_site_domain, at = 0;

	if (message->n_site_more != count || message->n_site_depth != count ||
		count > RECORDING_SITES_MAX - recorded->site_count || !are_sound_details(recorded, message, count))
		return -EBADMSG;
	if (!reserve_sites(recorded, count))
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		struct pl_frame frames[RECORDING_DEPTH_MAX];
		size_t depth = message->site_depth[i];
		uint32_t site;

		if (message->site_domain[i] >= PL_SITE_DOMAIN_COUNT || !depth || depth > RECORDING_DEPTH_MAX ||
			depth > message->n_site_frames - at)
			return -EBADMSG;
		for (size_t n = 0; n < depth; n++) {
			uint32_t number = message->site_frames[at + n];

			if (number >= recorded->frame_count)
				return -EBADMSG;
			frames[n] = recorded->frames[number].frame;
		}
		at += depth;
		if (message->n_site_process)
			pl_sites_set_process(recorded->sites, (pid_t)message->site_process[i]);
		site = intern(recorded, message, i, frames, depth);
		if (site == UINT32_MAX)
			return -ENOMEM;
		recorded->site_map[recorded->site_count] = site;
		recorded->totals[recorded->site_count++] = (struct pl_totals){0};
	}
	pl_sites_set_process(recorded->sites, 0);
	return at == message->n_site_frames ? 0 : -EBADMSG;
}

static bool take_frame(const struct recorded *recorded, uint32_t number, struct pl_frame *ret)
{
	if (number > recorded->frame_count)
		return false;
	if (number)
		*ret = recorded->frames[number - 1].frame;
	return true;
}

/* False: it makes no sense. */
static bool take_thread(
	const struct recorded *recorded, const Pyleak__Recording *message, size_t i, struct pl_native_thread *ret)
{
	uint32_t name = message->n_stack_thread ? message->stack_thread[i] : 0;
	uint32_t begins = message->n_stack_begins ? message->stack_begins[i] : 0;
	uint32_t module = message->n_stack_begins_module ? message->stack_begins_module[i] : 0;
	uint32_t meanwhile = message->n_stack_meanwhile ? message->stack_meanwhile[i] : 0;

	*ret = (struct pl_native_thread){0};
	if (name > recorded->text_count || module > recorded->text_count || !module != !begins ||
		!take_frame(recorded, begins, &ret->begins.frame) || !take_frame(recorded, meanwhile, &ret->meanwhile))
		return false;
	ret->name = name ? recorded->texts[name - 1] : NULL;
	ret->begins.module = module ? recorded->texts[module - 1] : NULL;
	return true;
}

static bool is_column(size_t size, size_t count)
{
	return !size || size == count;
}

static int take_stacks(struct recorded *recorded, const Pyleak__Recording *message)
{
	size_t count = message->n_stack_depth, at = 0;

	if (message->n_stack_more != count || message->n_stack_modules != message->n_stack_frames ||
		message->n_placed_stack != message->n_placed_site || !is_column(message->n_stack_thread, count) ||
		!is_column(message->n_stack_begins, count) || !is_column(message->n_stack_begins_module, count) ||
		!is_column(message->n_stack_meanwhile, count))
		return -EBADMSG;
	if (!reserve((void **)&recorded->stack_map, sizeof(*recorded->stack_map), recorded->stack_count, count,
		    &recorded->stack_capacity))
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		struct pl_native_line lines[PL_NATIVE_FRAMES_MAX];
		size_t depth = message->stack_depth[i];
		struct pl_native_thread thread;
		uint32_t stack;

		if (depth > PL_NATIVE_FRAMES_MAX || depth > message->n_stack_frames - at ||
			!take_thread(recorded, message, i, &thread))
			return -EBADMSG;
		for (size_t n = 0; n < depth; n++) {
			uint32_t frame = message->stack_frames[at + n], module = message->stack_modules[at + n];

			if (frame >= recorded->frame_count || module >= recorded->text_count)
				return -EBADMSG;
			lines[n].frame = recorded->frames[frame].frame;
			lines[n].module = recorded->texts[module];
		}
		at += depth;
		stack = pl_sites_intern_thread_stack(recorded->sites, lines, depth, message->stack_more[i], &thread);
		if (stack == UINT32_MAX)
			return -ENOMEM;
		recorded->stack_map[recorded->stack_count++] = stack;
	}
	for (size_t i = 0; i < message->n_placed_site; i++) {
		uint32_t site = message->placed_site[i], stack = message->placed_stack[i];

		if (site >= recorded->site_count || stack >= recorded->stack_count)
			return -EBADMSG;
		pl_sites_set_stack(recorded->sites, recorded->site_map[site], recorded->stack_map[stack]);
	}
	return at == message->n_stack_frames ? 0 : -EBADMSG;
}

static bool is_variance(double number)
{
	return isfinite(number) && number >= 0 && number <= VARIANCE_MAX;
}

/* Everything is looked at before anything is changed: the last snapshot stands until the next is whole. */
static bool is_sound(const struct recorded *recorded, const Pyleak__Snapshot *snapshot)
{
	size_t count = snapshot->n_site_step, sampled = snapshot->n_size_variance;
	uint64_t site = 0;
	struct pl_account account;

	if (snapshot->n_allocated_size != count || snapshot->n_allocated_count != count ||
		snapshot->n_freed_size != count || snapshot->n_freed_count != count ||
		(sampled && sampled != count) || snapshot->n_count_variance != sampled ||
		(snapshot->n_apart_size && snapshot->n_apart_size != count) ||
		snapshot->n_apart_count != snapshot->n_apart_size ||
		(snapshot->n_apart_allocated && snapshot->n_apart_allocated != count))
		return false;
	if (snapshot->time_ns < recorded->time_ns || snapshot->time_ns > TIME_MAX || snapshot->stop_ns > TIME_MAX ||
		snapshot->rss > INT64_MAX || snapshot->sampling > INT64_MAX || !recording_take_account(snapshot->account, &account))
		return false;
	for (size_t i = 0; i < count; i++) {
		site += snapshot->site_step[i];
		if ((i > 0 && !snapshot->site_step[i]) || site >= recorded->site_count)
			return false;
		if (sampled && (!is_variance(snapshot->size_variance[i]) || !is_variance(snapshot->count_variance[i])))
			return false;
	}
	return true;
}

static void take_snapshot(struct recorded *recorded, const Pyleak__Snapshot *snapshot)
{
	size_t site = 0;

	for (size_t i = 0; i < snapshot->n_site_step; i++) {
		struct pl_totals *totals;

		site += snapshot->site_step[i];
		totals = &recorded->totals[site];
		totals->allocated_size += (uint64_t)snapshot->allocated_size[i];
		totals->allocated_count += (uint64_t)snapshot->allocated_count[i];
		totals->freed_size += (uint64_t)snapshot->freed_size[i];
		totals->freed_count += (uint64_t)snapshot->freed_count[i];
		totals->apart_size += snapshot->n_apart_size ? (uint64_t)snapshot->apart_size[i] : 0;
		totals->apart_count += snapshot->n_apart_size ? (uint64_t)snapshot->apart_count[i] : 0;
		totals->apart_allocated += snapshot->n_apart_allocated ? (uint64_t)snapshot->apart_allocated[i] : 0;
		totals->size_variance = snapshot->n_size_variance ? snapshot->size_variance[i] : 0;
		totals->count_variance = snapshot->n_size_variance ? snapshot->count_variance[i] : 0;
	}
	recorded->time_ns = snapshot->time_ns;
	recorded->rss = snapshot->rss;
	recorded->losses = (struct pl_losses){
		.events = snapshot->lost_events,
		.sites = snapshot->lost_sites,
		.freed_before_count = snapshot->freed_before_count,
		.freed_before_size = snapshot->freed_before_size,
		.freed_unseen_count = snapshot->freed_unseen_count,
		.freed_unseen_size = snapshot->freed_unseen_size,
		.shortened = snapshot->shortened,
		.sampling = snapshot->sampling,
	};
	recorded->stop_ns = snapshot->stop_ns;
	(void)recording_take_account(snapshot->account, &recorded->account);
}

/* A short word that may be printed as it is. */
static bool take_word(const char *word, char *to, size_t size)
{
	size_t length = strlen(word);

	if (length >= size)
		return false;
	for (size_t i = 0; i < length; i++)
		if (word[i] < ' ' || word[i] > '~')
			return false;
	memcpy(to, word, length + 1);
	return true;
}

static int take_facts(struct recorded *recorded, const Pyleak__Facts *message)
{
	struct pl_facts *facts = &recorded->facts;

	if (message && message->version > RECORDING_VERSION)
		return -EPROTONOSUPPORT;
	if (!message || message->version != RECORDING_VERSION || message->pid < 0 || message->frames > INT_MAX || message->started_ns < 0 ||
		message->started_ns > TIME_MAX || message->rss > INT64_MAX ||
		!take_word(message->python, facts->python, sizeof(facts->python)) ||
		!take_word(message->engine, facts->engine, sizeof(facts->engine)) ||
		!recording_take_account(message->account, &facts->account))
		return -EBADMSG;
	facts->pid = message->pid;
	facts->frames = (int)message->frames;
	facts->sample = message->sample;
	facts->native = message->native;
	facts->rss = message->rss;
	facts->started = (struct timespec){
		.tv_sec = message->started_ns / 1000000000,
		.tv_nsec = message->started_ns % 1000000000,
	};
	facts->since_ns = message->started_ns;
	recorded->started = true;
	return 0;
}

static int take_message(struct recorded *recorded, const Pyleak__Recording *message)
{
	int code = 0;

	if (!recorded->started)
		code = take_facts(recorded, message->facts);
	else if (message->facts)
		code = -EBADMSG;
	for (size_t i = 0; code == 0 && i < message->n_texts; i++)
		code = take_texts(recorded, &message->texts[i]);
	if (code == 0)
		code = take_frames(recorded, message);
	if (code == 0)
		code = take_sites(recorded, message);
	if (code == 0)
		code = take_stacks(recorded, message);
	if (code < 0 || !message->n_snapshots)
		return code;
	if (message->n_snapshots > 1 || !is_sound(recorded, message->snapshots[0]))
		return -EBADMSG;
	take_snapshot(recorded, message->snapshots[0]);
	return 1;
}

int recorded_apply(struct recorded *recorded, const void *bytes, size_t size)
{
	Pyleak__Recording *message = recording_unpack(bytes, size);
	int code;

	if (!message)
		return -EBADMSG;
	code = take_message(recorded, message);
	recording_free(message);
	return code;
}

void recorded_free(struct recorded *recorded)
{
	free(recorded->texts);
	free(recorded->frames);
	free(recorded->site_map);
	free(recorded->stack_map);
	free(recorded->totals);
	free(recorded->sources);
	pl_frame_numbers_free(&recorded->places);
	pl_frame_numbers_free(&recorded->functions);
	free(recorded->definitions);
}
