/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "writer_private.h"

/* The columns that not every recording has; in one piece, those that are needed. */
int writer_add_callers(
	struct pl_recording_writer *writer, struct piece *piece, const struct pl_snapshot *snapshot, size_t end)
{
	Pyleak__Recording *message = &piece->message;
	size_t first = writer->site_count, count = end - first;
	bool wanted = false;

	for (size_t site = first; site < end && !wanted; site++)
		wanted = pl_sites_native_caller(snapshot->sites, (uint32_t)site) != NULL;
	if (!wanted)
		return 0;
	message->site_module = calloc(count, sizeof(*message->site_module));
	message->site_symbol = calloc(count, sizeof(*message->site_symbol));
	message->site_offset = calloc(count, sizeof(*message->site_offset));
	message->site_source = calloc(count, sizeof(*message->site_source));
	message->site_line = calloc(count, sizeof(*message->site_line));
	if (!message->site_module || !message->site_symbol || !message->site_offset || !message->site_source ||
		!message->site_line)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		const struct pl_native_caller *caller = pl_sites_native_caller(snapshot->sites, (uint32_t)(first + i));

		if (!caller)
			continue;
		if (writer_text(writer, piece, caller->module, &message->site_module[i]) < 0 ||
			(caller->symbol && writer_text(writer, piece, caller->symbol, &message->site_symbol[i]) < 0) ||
			(caller->filename && writer_text(writer, piece, caller->filename, &message->site_source[i]) < 0))
			return -ENOMEM;
		message->site_module[i]++;
		message->site_symbol[i] += caller->symbol != NULL;
		message->site_offset[i] = caller->offset;
		message->site_source[i] += caller->filename != NULL;
		message->site_line[i] = caller->line;
	}
	message->n_site_module = message->n_site_symbol = message->n_site_offset = count;
	message->n_site_source = message->n_site_line = count;
	return 0;
}

static int add_thread(struct pl_recording_writer *writer, struct piece *piece, const struct pl_sites *sites, size_t i,
	const struct pl_native_thread *thread)
{
	Pyleak__Recording *message = &piece->message;

	if ((thread->name && writer_text(writer, piece, thread->name, &message->stack_thread[i]) < 0) ||
		(thread->begins.module && writer_text(writer, piece, thread->begins.module, &message->stack_begins_module[i]) < 0))
		return -ENOMEM;
	message->stack_thread[i] += thread->name != NULL;
	message->stack_begins_module[i] += thread->begins.module != NULL;
	if (thread->begins.module)
		message->stack_begins[i] = writer_frame(piece, pl_sites_frame_number(sites, &thread->begins.frame)) + 1;
	if (thread->meanwhile.filename)
		message->stack_meanwhile[i] = writer_frame(piece, pl_sites_frame_number(sites, &thread->meanwhile)) + 1;
	return 0;
}

/* Of the stacks from `first` on; nothing where nothing is known of any. */
static int add_threads(
	struct pl_recording_writer *writer, struct piece *piece, const struct pl_sites *sites, size_t first, size_t count)
{
	Pyleak__Recording *message = &piece->message;
	bool wanted = false;

	for (size_t i = 0; i < count && !wanted; i++)
		wanted = pl_sites_stack_thread(sites, (uint32_t)(first + i)) != NULL;
	if (!wanted)
		return 0;
	message->stack_thread = calloc(count, sizeof(*message->stack_thread));
	message->stack_begins = calloc(count, sizeof(*message->stack_begins));
	message->stack_begins_module = calloc(count, sizeof(*message->stack_begins_module));
	message->stack_meanwhile = calloc(count, sizeof(*message->stack_meanwhile));
	if (!message->stack_thread || !message->stack_begins || !message->stack_begins_module || !message->stack_meanwhile)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		const struct pl_native_thread *thread = pl_sites_stack_thread(sites, (uint32_t)(first + i));

		if (thread && add_thread(writer, piece, sites, i, thread) < 0)
			return -ENOMEM;
	}
	message->n_stack_thread = message->n_stack_begins = message->n_stack_begins_module = message->n_stack_meanwhile = count;
	return 0;
}

static int add_new_stacks(struct pl_recording_writer *writer, struct piece *piece, const struct pl_sites *sites)
{
	Pyleak__Recording *message = &piece->message;
	size_t first = writer->stack_count, count = pl_sites_stack_count(sites) - first, total = 0, depth;

	if (!count)
		return 0;
	for (size_t i = 0; i < count; i++) {
		(void)pl_sites_stack_lines(sites, (uint32_t)(first + i), &depth, NULL);
		total += depth;
	}
	message->stack_more = calloc(count, sizeof(*message->stack_more));
	message->stack_depth = calloc(count, sizeof(*message->stack_depth));
	message->stack_frames = calloc(total + 1, sizeof(*message->stack_frames));
	message->stack_modules = calloc(total + 1, sizeof(*message->stack_modules));
	if (!message->stack_more || !message->stack_depth || !message->stack_frames || !message->stack_modules)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		bool more;
		const struct pl_native_line *lines = pl_sites_stack_lines(sites, (uint32_t)(first + i), &depth, &more);

		message->stack_more[i] = more;
		message->stack_depth[i] = (uint32_t)depth;
		for (size_t n = 0; n < depth; n++) {
			uint32_t number = pl_sites_frame_number(sites, &lines[n].frame);

			message->stack_frames[message->n_stack_frames++] = writer_frame(piece, number);
			if (writer_text(writer, piece, lines[n].module,
				    &message->stack_modules[message->n_stack_modules++]) < 0)
				return -ENOMEM;
		}
	}
	message->n_stack_more = message->n_stack_depth = count;
	writer->stack_count += count;
	return add_threads(writer, piece, sites, first, count);
}

int writer_add_stacks(struct pl_recording_writer *writer, struct piece *piece, const struct pl_snapshot *snapshot)
{
	Pyleak__Recording *message = &piece->message;
	size_t changed = 0;
	int code = add_new_stacks(writer, piece, snapshot->sites);

	for (size_t site = 0; site < snapshot->count; site++)
		changed += writer->placed[site] != pl_sites_stack(snapshot->sites, (uint32_t)site) + 1;
	if (code < 0 || !changed)
		return code;
	message->placed_site = calloc(changed, sizeof(*message->placed_site));
	message->placed_stack = calloc(changed, sizeof(*message->placed_stack));
	if (!message->placed_site || !message->placed_stack)
		return -ENOMEM;
	for (size_t site = 0; site < snapshot->count; site++) {
		uint32_t stack = pl_sites_stack(snapshot->sites, (uint32_t)site);

		if (writer->placed[site] == stack + 1)
			continue;
		message->placed_site[message->n_placed_site++] = (uint32_t)site;
		message->placed_stack[message->n_placed_stack++] = stack;
		writer->placed[site] = stack + 1;
	}
	return 0;
}
