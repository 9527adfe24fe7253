/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak-version.h"
#include "pyleak/cleanup.h"
#include "pyleak/index.h"
#include "writer_private.h"

struct pl_recording_writer *pl_recording_writer_new(
	const struct pl_facts *facts, pl_source_reader *source, void *context)
{
	struct pl_recording_writer *writer = calloc(1, sizeof(*writer));

	if (!writer)
		return NULL;
	writer->facts = *facts;
	writer->source = source;
	writer->context = context;
	writer->compressor = ZSTD_createCCtx();
	if (!writer->compressor || ZSTD_isError(ZSTD_CCtx_setParameter(writer->compressor, ZSTD_c_checksumFlag, 1))) {
		pl_recording_writer_free(writer);
		return NULL;
	}
	return writer;
}

void pl_recording_writer_free(struct pl_recording_writer *writer)
{
	if (!writer)
		return;
	ZSTD_freeCCtx(writer->compressor);
	pl_table_free(&writer->texts);
	pl_table_free(&writer->definitions);
	free(writer->totals);
	free(writer->placed);
	free(writer);
}

static void piece_free(struct piece *piece)
{
	Pyleak__Recording *message = &piece->message;

	if (piece->text_stream)
		(void)fclose(piece->text_stream);
	free(piece->text_bytes);
	free(message->frame_filename);
	free(message->frame_function);
	free(message->frame_line);
	free(message->frame_source);
	free(message->frame_definition);
	free(message->frame_definition_source);
	free(message->site_domain);
	free(message->site_more);
	free(message->site_depth);
	free(message->site_frames);
	free(message->site_process);
	free(message->site_class);
	free(message->site_module);
	free(message->site_symbol);
	free(message->site_offset);
	free(message->site_source);
	free(message->site_line);
	free(message->stack_more);
	free(message->stack_depth);
	free(message->stack_frames);
	free(message->stack_modules);
	free(message->stack_thread);
	free(message->stack_begins);
	free(message->stack_begins_module);
	free(message->stack_meanwhile);
	free(message->placed_site);
	free(message->placed_stack);
	free(piece->snapshot.site_step);
	free(piece->snapshot.allocated_size);
	free(piece->snapshot.allocated_count);
	free(piece->snapshot.freed_size);
	free(piece->snapshot.freed_count);
	free(piece->snapshot.size_variance);
	free(piece->snapshot.count_variance);
	free(piece->snapshot.apart_size);
	free(piece->snapshot.apart_count);
	free(piece->snapshot.apart_allocated);
}

/* The sites from *ret_end's beginning on, as many as go into a piece. */
static int add_sites(
	struct pl_recording_writer *writer, struct piece *piece, const struct pl_snapshot *snapshot, size_t *ret_end)
{
	Pyleak__Recording *message = &piece->message;
	size_t first = writer->site_count, end = first, total = 0;

	for (; end < snapshot->count && total < RECORDING_PIECE_FRAMES; end++) {
		size_t depth;

		(void)pl_sites_trace(snapshot->sites, (uint32_t)end, &depth, NULL);
		total += depth;
	}
	*ret_end = end;
	if (end == first)
		return 0;
	message->site_domain = calloc(end - first, sizeof(*message->site_domain));
	message->site_more = calloc(end - first, sizeof(*message->site_more));
	message->site_depth = calloc(end - first, sizeof(*message->site_depth));
	message->site_frames = calloc(total, sizeof(*message->site_frames));
	if (!message->site_domain || !message->site_more || !message->site_depth || !message->site_frames)
		return -ENOMEM;
	for (size_t site = first; site < end; site++) {
		size_t depth, i = site - first;
		bool more;
		const uint32_t *frames = pl_sites_trace(snapshot->sites, (uint32_t)site, &depth, &more);

		message->site_domain[i] = (uint32_t)pl_sites_domain(snapshot->sites, (uint32_t)site);
		message->site_more[i] = more;
		message->site_depth[i] = (uint32_t)depth;
		for (size_t frame = 0; frame < depth; frame++)
			message->site_frames[message->n_site_frames++] = writer_frame(piece, frames[frame]);
	}
	message->n_site_domain = message->n_site_more = message->n_site_depth = end - first;
	return 0;
}

static int add_processes(
	struct pl_recording_writer *writer, struct piece *piece, const struct pl_snapshot *snapshot, size_t end)
{
	Pyleak__Recording *message = &piece->message;
	size_t first = writer->site_count, count = end - first;
	bool wanted = false;

	for (size_t site = first; site < end && !wanted; site++)
		wanted = pl_sites_process(snapshot->sites, (uint32_t)site) != 0;
	if (!wanted)
		return 0;
	message->site_process = calloc(count, sizeof(*message->site_process));
	if (!message->site_process)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		message->site_process[i] = (uint32_t)pl_sites_process(snapshot->sites, (uint32_t)(first + i));
	message->n_site_process = count;
	return 0;
}

static int add_classes(
	struct pl_recording_writer *writer, struct piece *piece, const struct pl_snapshot *snapshot, size_t end)
{
	Pyleak__Recording *message = &piece->message;
	size_t first = writer->site_count, count = end - first;
	bool wanted = false;

	for (size_t site = first; site < end && !wanted; site++)
		wanted = pl_sites_older_class(snapshot->sites, (uint32_t)site) != 0;
	if (!wanted)
		return 0;
	message->site_class = calloc(count, sizeof(*message->site_class));
	if (!message->site_class)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		message->site_class[i] = pl_sites_older_class(snapshot->sites, (uint32_t)(first + i));
	message->n_site_class = count;
	return 0;
}

void pl_recording_writer_set_definitions(struct pl_recording_writer *writer, pl_definition_finder *definition)
{
	writer->definition = definition;
}

/* Where the function of a frame begins, and what stands there, once for each. */
static int add_definition(struct pl_recording_writer *writer, struct piece *piece, const struct pl_frame *frame, size_t i)
{
	Pyleak__Recording *message = &piece->message;
	int line = writer->definition ? writer->definition(writer->context, frame->filename, frame->function, frame->line) : 0;
	struct pl_table_entry *entry;

	message->frame_definition[i] = line > 0 ? (uint32_t)line : 0;
	if (line <= 0 || line == frame->line || !writer->source)
		return 0;
	entry = pl_table_insert(&writer->definitions, pl_hash((uint64_t)(uintptr_t)frame->filename, (uint64_t)line));
	if (!entry)
		return -ENOMEM;
	if (!entry->value[0]) {
		pl_autofree char *source = writer->source(writer->context, frame->filename, line);

		if (source)
			message->frame_definition_source[i] = writer_add_text(writer, piece, source) + 1;
		entry->value[0] = 1;
	}
	return 0;
}

/* The frames that those sites have brought. */
static int add_frames(struct pl_recording_writer *writer, struct piece *piece, const struct pl_sites *sites)
{
	Pyleak__Recording *message = &piece->message;
	size_t count = piece->frame_end > writer->frame_count ? piece->frame_end - writer->frame_count : 0;

	if (!count)
		return 0;
	message->frame_filename = calloc(count, sizeof(*message->frame_filename));
	message->frame_function = calloc(count, sizeof(*message->frame_function));
	message->frame_line = calloc(count, sizeof(*message->frame_line));
	message->frame_source = calloc(count, sizeof(*message->frame_source));
	message->frame_definition = calloc(count, sizeof(*message->frame_definition));
	message->frame_definition_source = calloc(count, sizeof(*message->frame_definition_source));
	if (!message->frame_filename || !message->frame_function || !message->frame_line || !message->frame_source ||
		!message->frame_definition || !message->frame_definition_source)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		const struct pl_frame *frame = pl_sites_frame(sites, (uint32_t)(writer->frame_count + i));
		pl_autofree char *source =
			writer->source ? writer->source(writer->context, frame->filename, frame->line) : NULL;

		if (writer_text(writer, piece, frame->filename, &message->frame_filename[i]) < 0 ||
			writer_text(writer, piece, frame->function, &message->frame_function[i]) < 0)
			return -ENOMEM;
		message->frame_line[i] = frame->line;
		if (source)
			message->frame_source[i] = writer_add_text(writer, piece, source) + 1;
		if (add_definition(writer, piece, frame, i) < 0)
			return -ENOMEM;
	}
	writer->frame_count = piece->frame_end;
	message->n_frame_filename = message->n_frame_function = message->n_frame_line = message->n_frame_source = count;
	if (writer->definition)
		message->n_frame_definition = message->n_frame_definition_source = count;
	return 0;
}

static bool is_sampled(const struct pl_totals *totals)
{
	return totals->size_variance != 0 || totals->count_variance != 0;
}

static bool equal(const struct pl_totals *a, const struct pl_totals *b)
{
	return a->allocated_size == b->allocated_size && a->allocated_count == b->allocated_count &&
	       a->freed_size == b->freed_size && a->freed_count == b->freed_count &&
	       a->size_variance == b->size_variance && a->count_variance == b->count_variance &&
	       a->apart_size == b->apart_size && a->apart_count == b->apart_count && a->apart_allocated == b->apart_allocated;
}

static int make_columns(Pyleak__Snapshot *message, size_t count, bool sampled, bool apart)
{
	message->site_step = calloc(count, sizeof(*message->site_step));
	message->allocated_size = calloc(count, sizeof(*message->allocated_size));
	message->allocated_count = calloc(count, sizeof(*message->allocated_count));
	message->freed_size = calloc(count, sizeof(*message->freed_size));
	message->freed_count = calloc(count, sizeof(*message->freed_count));
	if (!message->site_step || !message->allocated_size || !message->allocated_count || !message->freed_size ||
		!message->freed_count)
		return -ENOMEM;
	message->n_site_step = message->n_allocated_size = message->n_allocated_count = message->n_freed_size =
		message->n_freed_count = count;
	if (apart) {
		message->apart_size = calloc(count, sizeof(*message->apart_size));
		message->apart_count = calloc(count, sizeof(*message->apart_count));
		message->apart_allocated = calloc(count, sizeof(*message->apart_allocated));
		if (!message->apart_size || !message->apart_count || !message->apart_allocated)
			return -ENOMEM;
		message->n_apart_size = message->n_apart_count = message->n_apart_allocated = count;
	}
	if (!sampled)
		return 0;
	message->size_variance = calloc(count, sizeof(*message->size_variance));
	message->count_variance = calloc(count, sizeof(*message->count_variance));
	if (!message->size_variance || !message->count_variance)
		return -ENOMEM;
	message->n_size_variance = message->n_count_variance = count;
	return 0;
}

static int add_totals(struct pl_recording_writer *writer, Pyleak__Snapshot *message, const struct pl_snapshot *snapshot)
{
	size_t changed = 0, i = 0, previous = 0;
	bool sampled = false, apart = false;

	for (size_t site = 0; site < snapshot->count; site++) {
		apart |= snapshot->totals[site].apart_size != writer->totals[site].apart_size ||
			 snapshot->totals[site].apart_count != writer->totals[site].apart_count ||
			 snapshot->totals[site].apart_allocated != writer->totals[site].apart_allocated;
		changed += !equal(&writer->totals[site], &snapshot->totals[site]);
		sampled |= is_sampled(&snapshot->totals[site]) || is_sampled(&writer->totals[site]);
	}
	if (!changed)
		return 0;
	if (make_columns(message, changed, sampled, apart) < 0)
		return -ENOMEM;
	for (size_t site = 0; site < snapshot->count; site++) {
		struct pl_totals *old = &writer->totals[site];
		const struct pl_totals *now = &snapshot->totals[site];

		if (equal(old, now))
			continue;
		message->site_step[i] = (uint32_t)(site - previous);
		message->allocated_size[i] = (int64_t)(now->allocated_size - old->allocated_size);
		message->allocated_count[i] = (int64_t)(now->allocated_count - old->allocated_count);
		message->freed_size[i] = (int64_t)(now->freed_size - old->freed_size);
		message->freed_count[i] = (int64_t)(now->freed_count - old->freed_count);
		if (apart) {
			message->apart_size[i] = (int64_t)(now->apart_size - old->apart_size);
			message->apart_count[i] = (int64_t)(now->apart_count - old->apart_count);
			message->apart_allocated[i] = (int64_t)(now->apart_allocated - old->apart_allocated);
		}
		if (sampled) {
			message->size_variance[i] = now->size_variance;
			message->count_variance[i] = now->count_variance;
		}
		*old = *now;
		previous = site;
		i++;
	}
	return 0;
}

static void add_facts(struct pl_recording_writer *writer, struct piece *piece)
{
	static char name[] = "pyleak " PYLEAK_VERSION;
	struct pl_facts *facts = &writer->facts;
	Pyleak__Facts *message = &piece->facts;

	pyleak__facts__init(message);
	message->version = RECORDING_VERSION;
	message->pid = facts->pid;
	message->python = facts->python;
	message->engine = facts->engine;
	message->started_ns = (int64_t)facts->started.tv_sec * 1000000000 + facts->started.tv_nsec;
	message->frames = (uint32_t)facts->frames;
	message->sample = facts->sample;
	message->rss = facts->rss;
	message->writer = name;
	message->native = facts->native;
	if (recording_put_account(&facts->account, piece->parts_before, &piece->account_before))
		message->account = &piece->account_before;
	piece->message.facts = message;
}

static int add_snapshot(
	struct pl_recording_writer *writer, struct piece *piece, struct pl_snapshot *snapshot, int64_t stop_ns)
{
	Pyleak__Snapshot *message = &piece->snapshot;
	const struct pl_losses *losses = &snapshot->losses;
	int64_t since_ns = writer->facts.since_ns;

	message->time_ns = snapshot->taken_ns > since_ns ? (uint64_t)(snapshot->taken_ns - since_ns) : 0;
	message->rss = snapshot->rss;
	message->lost_events = losses->events;
	message->lost_sites = losses->sites;
	message->stop_ns = stop_ns > 0 ? (uint64_t)stop_ns : 0;
	message->freed_before_size = losses->freed_before_size;
	message->freed_before_count = losses->freed_before_count;
	message->freed_unseen_size = losses->freed_unseen_size;
	message->shortened = losses->shortened;
	message->sampling = losses->sampling;
	message->freed_unseen_count = losses->freed_unseen_count;
	if (recording_put_account(&snapshot->account, piece->parts, &piece->account))
		message->account = &piece->account;
	piece->snapshots[0] = message;
	piece->message.snapshots = piece->snapshots;
	piece->message.n_snapshots = 1;
	return add_totals(writer, message, snapshot);
}

static int write_piece(struct pl_recording_writer *writer, const Pyleak__Recording *message, FILE *out)
{
	size_t size = pyleak__recording__get_packed_size(message);
	pl_autofree uint8_t *bytes = NULL, *packed = NULL;

	if (size > RECORDING_PIECE_MAX)
		return -EFBIG;
	bytes = malloc(size + 1);
	packed = malloc(ZSTD_compressBound(size));
	if (!bytes || !packed)
		return -ENOMEM;
	(void)pyleak__recording__pack(message, bytes);
	size = ZSTD_compress2(writer->compressor, packed, ZSTD_compressBound(size), bytes, size);
	if (ZSTD_isError(size))
		return -ENOMEM;
	return fwrite(packed, 1, size, out) == size ? 0 : -ENOMEM;
}

static void write_title(FILE *out)
{
	const uint32_t head[2] = {htole32(RECORDING_MAGIC), htole32(sizeof(RECORDING_TITLE) - 1)};

	(void)fwrite(head, sizeof(head), 1, out);
	(void)fputs(RECORDING_TITLE, out);
}

/* One piece: new sites, and after the last of them the snapshot. */
static int add_piece(struct pl_recording_writer *writer, struct pl_snapshot *snapshot, int64_t stop_ns, FILE *out)
{
	__attribute__((cleanup(piece_free))) struct piece piece = {0};
	size_t end;
	int code;

	pyleak__recording__init(&piece.message);
	pyleak__snapshot__init(&piece.snapshot);
	if (!writer->started) {
		write_title(out);
		add_facts(writer, &piece);
	}
	piece.text_stream = open_memstream(&piece.text_bytes, &piece.text_size);
	if (!piece.text_stream)
		return -ENOMEM;
	code = add_sites(writer, &piece, snapshot, &end);
	if (code == 0 && end == snapshot->count)
		code = writer_add_stacks(writer, &piece, snapshot);
	if (code == 0)
		code = add_frames(writer, &piece, snapshot->sites);
	if (code == 0)
		code = writer_add_callers(writer, &piece, snapshot, end);
	if (code == 0)
		code = add_processes(writer, &piece, snapshot, end);
	if (code == 0)
		code = add_classes(writer, &piece, snapshot, end);
	if (fclose(PL_TAKE(piece.text_stream)) != 0)
		code = -ENOMEM;
	if (piece.text_size) {
		piece.texts = (ProtobufCBinaryData){.len = piece.text_size, .data = (uint8_t *)piece.text_bytes};
		piece.message.texts = &piece.texts;
		piece.message.n_texts = 1;
	}
	writer->site_count = end;
	if (code == 0 && end == snapshot->count)
		code = add_snapshot(writer, &piece, snapshot, stop_ns);
	if (code == 0)
		code = write_piece(writer, &piece.message, out);
	writer->started = true;
	return code;
}

static int grow_totals(struct pl_recording_writer *writer, size_t count)
{
	struct pl_totals *grown;
	uint32_t *placed;

	if (count > RECORDING_SITES_MAX)
		return -EFBIG;
	if (count <= writer->site_count)
		return 0;
	grown = reallocarray(writer->totals, count, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	memset(grown + writer->site_count, 0, (count - writer->site_count) * sizeof(*grown));
	writer->totals = grown;
	placed = reallocarray(writer->placed, count, sizeof(*placed));
	if (!placed)
		return -ENOMEM;
	memset(placed + writer->site_count, 0, (count - writer->site_count) * sizeof(*placed));
	writer->placed = placed;
	return 0;
}

int pl_recording_writer_add(struct pl_recording_writer *writer, struct pl_snapshot *snapshot, int64_t stop_ns,
	void **ret_bytes, size_t *ret_size)
{
	pl_autofree char *bytes = NULL;
	FILE *out = writer->broken ? NULL : open_memstream(&bytes, ret_size);
	int code = out ? grow_totals(writer, snapshot->count) : -ENOMEM;

	do {
		if (code == 0)
			code = add_piece(writer, snapshot, stop_ns, out);
	} while (code == 0 && writer->site_count < snapshot->count);
	if (out && fclose(out) != 0 && code == 0)
		code = -ENOMEM;
	/* Something may be counted as written that is not. */
	writer->broken = code < 0;
	*ret_bytes = code == 0 ? PL_TAKE(bytes) : NULL;
	return code;
}
