/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "free_lists.h"
#include "pyleak/log.h"
#include "pyleak/memory.h"

_Static_assert((int)PL_PARKING_TYPES == (int)PL_INLINE_TYPES && (int)PL_PARKING_DICT == (int)PL_INLINE_DICT &&
		       (int)PL_PARKING_TUPLE == (int)PL_INLINE_TUPLE && (int)PL_PARKING_FLOAT == (int)PL_INLINE_FLOAT,
	"one order");

enum {
	TYPE_FREE = 320,   /* PyTypeObject.tp_free, 3.6 to 3.13 */
	TYPE_BYTES = 416,  /* of the largest, 3.13's; behind a smaller one lies other static data */
	LOOKS = 30,        /* of a process that runs */
	DICT_VERSION = 24, /* PyDictObject.ma_version_tag: its low byte says who watches it */
};
_Static_assert((int)TYPE_BYTES <= (int)PL_INLINE_TYPE_BYTES, "room for a copy");

/* More than any list is allowed to have; and where the interpreter prints lengths as ints, it says the truth. */
#define LENGTH_BIAS (1ULL << 32)
#define LENGTH_BIAS_INT (1U << 20)

static uint32_t add_hook(struct pl_probe_plan *plan, enum pl_probe_hook_kind kind, uint64_t address, uint64_t original)
{
	uint32_t i = plan->hook_count++;

	plan->hooks[i].kind = kind;
	plan->hooks[i].address = address;
	plan->hooks[i].original = original;
	plan->order[i] = i;
	return i;
}

static void add_bias(struct pl_probe_plan *plan, enum pl_probe_hook_kind kind, uint64_t address, uint64_t head, uint64_t bias)
{
	plan->hooks[add_hook(plan, kind, address, head)].bias = bias;
}

/*
 * The word of a type is loaded long before it is called: subtype_dealloc() has its base's in a register while it lets go of
 * the object's attributes, whose destructors may sleep for hours, and 3.13's _Py_Dealloc() calls a tracer of references
 * first. So it leads to the landing page. The word of that comes first.
 */
static bool add_type(pid_t pid, struct pl_landing *landing, uint32_t type, uint64_t entry, struct pl_probe_word *words,
	uint32_t *count, uint64_t address, uint64_t dealloc)
{
	uint32_t row = pl_landing_row(landing, dealloc, PL_INLINE_NATIVE_KINDS + type);
	uint64_t leads;

	/* A page that was there may have been written to. */
	if (row == PL_LANDING_CAPACITY ||
		(row < landing->there && (pl_memory_read_u64(pid, pl_landing_word(landing, row), &leads) < 0 || leads != dealloc))) {
		pl_log_debug("free lists: a type is left alone: no room on the landing page");
		return false;
	}
	words[(*count)++] = (struct pl_probe_word){
		.address = pl_landing_word(landing, row), .original = dealloc, .entry = entry, .kind = PL_PROBE_HOOK_LANDING};
	words[(*count)++] = (struct pl_probe_word){
		.address = address, .original = dealloc, .entry = pl_landing_stub(landing, row), .kind = PL_PROBE_HOOK_LOADED};
	return true;
}

uint32_t free_lists_plan(const struct pl_python *python, const struct pl_inline_image *image, struct free_lists *lists,
	struct pl_landing *landing, struct pl_probe_word words[FREE_LISTS_WORDS])
{
	uint32_t count = 0;

	memset(lists, 0, sizeof(*lists));
	lists->known = python->free_lists;
	for (uint32_t i = 0; i < PL_PARKING_TYPES && python->minor < 14 && !python->free_threaded; i++) {
		uint64_t type = lists->known.types[i], dealloc, release;

		if (!type || pl_memory_read(python->pid, type, lists->type[i].bytes, TYPE_BYTES) < 0)
			continue;
		memcpy(&dealloc, lists->type[i].bytes + python->layout.type_dealloc, sizeof(dealloc));
		memcpy(&release, lists->type[i].bytes + TYPE_FREE, sizeof(release));
		if (!dealloc || !release ||
			!add_type(python->pid, landing, i, image->entry[PL_INLINE_ENTRY_DEALLOC + i], words, &count,
				type + (uint64_t)python->layout.type_dealloc, dealloc))
			continue;
		lists->type[i].dealloc = dealloc;
		lists->type[i].free = release;
	}
	return count;
}

/* Where the lists could not be closed. */
static void add_tracer(const struct pl_python *python, struct free_lists *lists, struct pl_probe_plan *plan)
{
	const struct pl_inline_image *image = (const void *)(plan->image + PL_INLINE_IMAGE_OFFSET);

	if (!lists->known.reference_tracer ||
		pl_memory_read_u64(python->pid, lists->known.reference_tracer, &lists->tracer) < 0)
		return;

	uint32_t hook = add_hook(plan, PL_PROBE_HOOK_WORD, lists->known.reference_tracer, lists->tracer);

	plan->hooks[hook].entry_offset = image->entry[PL_INLINE_ENTRY_CREATED];
}

/* How many lists were found to be where they should. */
static uint32_t count_known(const struct pl_python_free_lists *lists)
{
	uint32_t known = lists->chain_count + (lists->float_count != 0) + (lists->keys_count != 0) +
			 (lists->objects.context_count != 0) + (lists->objects.slice_cache != 0);

	for (int i = 0; i < PL_COUNTED; i++)
		known += lists->objects.counts[i] != 0;
	return known;
}

/* Lists that change while they are looked at say nothing: they are looked at again. */
static void look_at_lists(const struct pl_python *python, struct pl_python_free_lists *lists)
{
	const struct pl_python_free_lists all = *lists;
	uint32_t best = 0;

	for (int looks = 0; looks < LOOKS && (!looks || best < count_known(&all)); looks++) {
		struct pl_python_free_lists now = all;

		pl_python_free_lists_check(python, &now);
		if (looks == 0 || count_known(&now) > best)
			*lists = now;
		best = count_known(lists);
	}
}

void free_lists_settle(const struct pl_python *python, struct free_lists *lists, struct pl_probe_plan *plan)
{
	look_at_lists(python, &lists->known);
	if (lists->known.float_count)
		add_bias(plan, PL_PROBE_HOOK_COUNT, lists->known.float_count, lists->known.float_head, PL_FLOATS_PARKED_MAX);
	for (int i = 0; i < PL_COUNTED; i++)
		if (lists->known.objects.counts[i])
			add_bias(plan, PL_PROBE_HOOK_LENGTH_INT, lists->known.objects.counts[i], 0, LENGTH_BIAS_INT);
	for (uint32_t i = 0; i < lists->known.chain_count; i++)
		add_bias(plan, PL_PROBE_HOOK_LENGTH, lists->known.chains + 16 * i + 8, 0, LENGTH_BIAS);
	if (!lists->known.chain_count)
		add_tracer(python, lists, plan);
	if (lists->known.chain_count)
		pl_log_debug("free lists: %u closed by their length", lists->known.chain_count);
	else if (lists->known.reference_tracer)
		pl_log_debug("free lists: by the tracer of references");
	else
		pl_log_debug("free lists: floats %s, key tables %s, frames %s, methods %s, contexts %s, slices %s",
			lists->known.float_count ? "by their count" : "by their type",
			lists->known.keys_count ? "too" : "not",
			lists->known.objects.counts[PL_COUNTED_FRAMES] ? "too" : "not",
			lists->known.objects.counts[PL_COUNTED_METHODS] ? "too" : "not",
			lists->known.objects.context_count ? "too" : "not",
			lists->known.objects.slice_cache ? "too" : "not");
}

static uint64_t known_or(uint64_t address, uint64_t nothing)
{
	return address ? address : nothing;
}

void free_lists_fill(const struct pl_python *python, const struct free_lists *lists, uint8_t *image, uint64_t base,
	struct pl_inline_free_lists *config)
{
	const struct pl_inline_image *header = (const void *)(image + PL_INLINE_IMAGE_OFFSET);
	const struct pl_parked_objects *objects = &lists->known.objects;
	uint64_t nothing = base + PL_INLINE_CONFIG_OFFSET + offsetof(struct pl_inline_config, free_lists.nothing);

	for (uint32_t i = 0; i < PL_PARKING_TYPES; i++) {
		uint64_t offset = PL_INLINE_TYPES_OFFSET + i * PL_INLINE_TYPE_BYTES;
		uint64_t free_entry = base + header->entry[PL_INLINE_ENTRY_TYPE_FREE + i];

		if (!lists->type[i].dealloc)
			continue;
		memcpy(image + offset, lists->type[i].bytes, TYPE_BYTES);
		memcpy(image + offset + TYPE_FREE, &free_entry, sizeof(free_entry));
		config->type[i].type = lists->known.types[i];
		config->type[i].dealloc = lists->type[i].dealloc;
		config->type[i].copy = base + offset;
		config->type[i].free = lists->type[i].free;
	}
	config->tracer = lists->tracer;
	config->interpreter = lists->known.interpreter;
	config->float_count = lists->known.float_count;
	config->float_bias = PL_FLOATS_PARKED_MAX;
	config->float_head = known_or(lists->known.float_head, nothing);
	config->keys_count = known_or(lists->known.keys_count, nothing);
	config->keys_list = lists->known.keys_list;
	config->context_count = known_or(objects->context_count, nothing);
	config->context_head = objects->context_head;
	config->context_free = objects->context_free;
	config->context_link = PL_CONTEXT_LINK;
	config->context_limit = PL_CONTEXTS_PARKED_MAX;
	config->slice_cache = known_or(objects->slice_cache, nothing);
	config->slice_free = objects->slice_free;
	config->keys_limit = PL_KEYS_PARKED_MAX;
	/* PyObject_Free(), from 3.13 on PyMem_Free(). */
	config->keys_table = python->allocators[python->minor < 13 ? PL_PYMEM_OBJ : PL_PYMEM_MEM];
	if (python->minor >= 12) {
		config->dict_watched_offset = DICT_VERSION;
		config->dict_watched_mask = 0xff;
	}
}
