/* SPDX-License-Identifier: MIT */
#include "pyleak/arch.h"
#include "pyleak/space.h"
#include "python_private.h"

/*
 * The lists of frames (up to 3.10), bound methods and built-in functions (up to 3.8), contexts and slices
 * (from 3.14 on they are chains like all the others: see free_lists.c). Up to 3.9 they are static variables:
 * by their names, or by what exported functions refer to, in a stripped object. From 3.10 on they are in the
 * interpreter's state, at the offsets that the headers of 3.10.13, 3.11.7, 3.12.1 and 3.13.0 give.
 *
 * Objects/frameobject.c, methodobject.c, classobject.c, context.c, sliceobject.c.
 */

enum {
	FRAMES_MAX = 200,    /* PyFrame_MAXFREELIST */
	FUNCTIONS_MAX = 256, /* PyMethod_MAXFREELIST, PyCFunction_MAXFREELIST */
	REFERENCES_MAX = 32,
	TYPE_FREE = 320,     /* PyTypeObject.tp_free, 3.6 to 3.13 */
	FRAME_BACK = 24,     /* the link of parked frames */
	BESIDE = 16,         /* bytes between static variables that are declared together */
};

static const struct {
	int32_t slice_cache, context_head, context_count;
} parkings[] = {
	[10] = {9792, 13296, 13304},
	[11] = {3624, 7112, 7120},
	[12] = {269824, 273384, 273392},
	[13] = {13152, 13160, 13168},
};
enum { FRAME_HEAD_310 = 11984, FRAME_COUNT_310 = 11992 };

static size_t references(const struct object *object, const char *function, uint64_t words[REFERENCES_MAX])
{
	uint64_t address;
	size_t count = 0;

	if (object_export(object, function, &address) < 0 ||
			pl_arch_data_references(address, object_code_read, object_code_is_data, (void *)object, words,
				REFERENCES_MAX, &count) < 0)
		return 0;
	return count;
}

static bool is_count(struct pl_space *space, uint64_t address, int32_t max, int32_t *ret)
{
	return address % 4 == 0 && pl_space_read(space, address, ret, sizeof(*ret)) == 0 && *ret >= 0 && *ret <= max;
}

static bool is_a(const struct pl_python *python, uint64_t object, uint64_t type)
{
	uint64_t found;

	return object && object % 8 == 0 && type &&
	       pl_space_read_u64(python->space, object + (uint64_t)python->layout.object_type, &found) == 0 && found == type;
}

/* The one count that a function which prints a list's length looks at. */
static uint64_t printed_count(const struct object *object, const char *function, int32_t max)
{
	uint64_t words[REFERENCES_MAX], found = 0;
	size_t count = references(object, function, words);
	int32_t value;

	for (size_t i = 0; i < count; i++) {
		if (!is_count(object->space, words[i], max, &value))
			continue;
		if (found)
			return 0;
		found = words[i];
	}
	return found;
}

/* The length of a chain of objects of one type, -1 if it is none. */
static int32_t chain_length(const struct pl_python *python, uint64_t at, uint64_t type, uint64_t link, int32_t max)
{
	int32_t length = 0;

	for (; at && length <= max; length++)
		if (!is_a(python, at, type) || pl_space_read_u64(python->space, at + link, &at) < 0)
			return -1;
	return at ? -1 : length;
}

/*
 * Among what is referred to: the head of a chain of contexts that are no longer used, and right beside it its
 * length. If two words could be that, neither is believed: a count that is none would be changed.
 */
static void find_contexts(const struct object *object, const struct pl_python *python, struct pl_parked_objects *parked)
{
	static const char *const functions[] = {"PyContext_ClearFreeList", "PyContext_New", "PyContext_CopyCurrent"};
	uint64_t words[REFERENCES_MAX], head, found;
	int32_t length, value;
	int candidates;

	if (object_local(object, "ctx_freelist_len", &parked->context_count) == 0 &&
			object_local(object, "ctx_freelist", &parked->context_head) == 0)
		return;
	for (size_t f = 0; f < sizeof(functions) / sizeof(functions[0]); f++) {
		size_t count = references(object, functions[f], words);

		for (size_t i = 0; i < count; i++) {
			if (words[i] % 8 || pl_space_read_u64(object->space, words[i], &head) < 0 || !head)
				continue;
			length = chain_length(python, head, parked->context_type, PL_CONTEXT_LINK, PL_CONTEXTS_PARKED_MAX);
			candidates = 0;
			for (size_t j = 0; j < count && length > 0; j++)
				if (words[j] != words[i] && words[j] + BESIDE - words[i] <= 2 * BESIDE &&
						is_count(object->space, words[j], PL_CONTEXTS_PARKED_MAX, &value) && value == length) {
					found = words[j];
					candidates++;
				}
			if (candidates != 1)
				continue;
			parked->context_head = words[i];
			parked->context_count = found;
			return;
		}
	}
	parked->context_count = parked->context_head = 0;
}

static void find_slices(const struct object *object, const struct pl_python *python, struct pl_parked_objects *parked)
{
	uint64_t words[REFERENCES_MAX], cached;
	size_t count;
	int candidates = 0;

	if (object_local(object, "slice_cache", &parked->slice_cache) == 0)
		return;
	count = references(object, "PySlice_New", words);
	parked->slice_cache = 0;
	for (size_t i = 0; i < count; i++)
		if (words[i] % 8 == 0 && pl_space_read_u64(object->space, words[i], &cached) == 0 &&
				is_a(python, cached, parked->slice_type)) {
			parked->slice_cache = words[i];
			candidates++;
		}
	if (candidates != 1)
		parked->slice_cache = 0;
}

bool parked_keys_find(const struct object *object, uint64_t *ret_count, uint64_t *ret_list,
	bool (*are_tables)(const struct pl_python *, uint64_t list, int32_t count), const struct pl_python *python)
{
	uint64_t words[REFERENCES_MAX], dicts = printed_count(object, "_PyDict_DebugMallocStats", PL_KEYS_PARKED_MAX);
	size_t count = references(object, "PyDict_ClearFreeList", words);
	int32_t value, length = 0;
	int counts = 0, lists = 0;

	/* Up to 3.8 it names both counts and both lists, and nothing else but functions through the GOT. */
	for (size_t i = 0; dicts && i < count; i++)
		if (words[i] != dicts && is_count(object->space, words[i], PL_KEYS_PARKED_MAX, &value)) {
			*ret_count = words[i];
			length = value;
			counts++;
		}
	for (size_t i = 0; counts == 1 && length > 0 && i < count; i++)
		if (words[i] % 8 == 0 && words[i] != *ret_count && are_tables(python, words[i], length)) {
			*ret_list = words[i];
			lists++;
		}
	return lists == 1;
}

static uint64_t exported_type(const struct object *object, const char *name, uint64_t *ret_free)
{
	uint64_t type;

	if (object_export(object, name, &type) < 0 || pl_space_read_u64(object->space, type + TYPE_FREE, ret_free) < 0 ||
			!*ret_free)
		return 0;
	return type;
}

void parked_objects_find(const struct object *object, const struct pl_python *python, struct pl_parked_objects *parked)
{
	uint64_t interpreter = python->free_lists.interpreter, ignored;

	memset(parked, 0, sizeof(*parked));
	if (python->minor > 13 || python->free_threaded)
		return;
	parked->frame_type = exported_type(object, "PyFrame_Type", &ignored);
	parked->context_type = exported_type(object, "PyContext_Type", &parked->context_free);
	parked->slice_type = exported_type(object, "PySlice_Type", &parked->slice_free);
	if (python->minor >= 10) {
		if (!interpreter)
			return;
		parked->slice_cache = interpreter + (uint64_t)parkings[python->minor].slice_cache;
		parked->context_head = interpreter + (uint64_t)parkings[python->minor].context_head;
		parked->context_count = interpreter + (uint64_t)parkings[python->minor].context_count;
		if (python->minor == 10)
			parked->counts[PL_COUNTED_FRAMES] = interpreter + FRAME_COUNT_310;
	} else {
		find_contexts(object, python, parked);
		find_slices(object, python, parked);
		parked->counts[PL_COUNTED_FRAMES] = printed_count(object, "_PyFrame_DebugMallocStats", FRAMES_MAX);
		parked->counts[PL_COUNTED_METHODS] = printed_count(object, "_PyMethod_DebugMallocStats", FUNCTIONS_MAX);
		parked->counts[PL_COUNTED_FUNCTIONS] = printed_count(object, "_PyCFunction_DebugMallocStats", FUNCTIONS_MAX);
	}
	/* A debug build asserts that its counts are right. */
	if (object_exports(object, "_Py_NegativeRefcount"))
		memset(parked->counts, 0, sizeof(parked->counts));
}

/* A thread may have been stopped between head and count. */
static bool chain_is_right(const struct pl_python *python, uint64_t head, uint64_t count, uint64_t type, uint64_t link,
	int32_t max)
{
	uint64_t first;
	int32_t value, length;

	if (!is_count(python->space, count, max, &value) || pl_space_read_u64(python->space, head, &first) < 0)
		return false;
	length = chain_length(python, first, type, link, max);
	return length >= 0 && length <= value + 1 && length >= value - 1;
}

void parked_objects_check(const struct pl_python *python, struct pl_parked_objects *parked)
{
	static const int32_t max[] = {[PL_COUNTED_FRAMES] = FRAMES_MAX, [PL_COUNTED_METHODS] = FUNCTIONS_MAX,
		[PL_COUNTED_FUNCTIONS] = FUNCTIONS_MAX};
	uint64_t cached;
	int32_t value;

	for (int i = 0; i < PL_COUNTED; i++)
		if (parked->counts[i] && !is_count(python->space, parked->counts[i], max[i], &value))
			parked->counts[i] = 0;
	if (python->minor == 10 && parked->counts[PL_COUNTED_FRAMES] &&
			!chain_is_right(python, parked->counts[PL_COUNTED_FRAMES] - (FRAME_COUNT_310 - FRAME_HEAD_310),
				parked->counts[PL_COUNTED_FRAMES], parked->frame_type, FRAME_BACK, FRAMES_MAX))
		parked->counts[PL_COUNTED_FRAMES] = 0;
	if (parked->context_count && !chain_is_right(python, parked->context_head, parked->context_count,
					     parked->context_type, PL_CONTEXT_LINK, PL_CONTEXTS_PARKED_MAX))
		parked->context_count = parked->context_head = 0;
	if (parked->slice_cache && (pl_space_read_u64(python->space, parked->slice_cache, &cached) < 0 ||
					   (cached && !is_a(python, cached, parked->slice_type))))
		parked->slice_cache = 0;
}

void parked_objects_forget(struct pl_parked_objects *parked)
{
	memset(parked->counts, 0, sizeof(parked->counts));
	parked->context_count = parked->context_head = parked->slice_cache = 0;
}
