/* SPDX-License-Identifier: MIT */
#include "pyleak/memory.h"
#include "python_private.h"

/*
 * Where freed blocks are parked. Up to 3.9 in static variables, whose names are local and gone from a
 * stripped object; from 3.10 on in the interpreter's state (Include/internal/pycore_interp.h), at the
 * offsets that builds of 3.10.13, 3.11.7, 3.12.1 and 3.13.0 say in their DWARF. 3.14 links all of its
 * lists and needs none of this.
 */

enum { INTERPRETERS_MAX = 1024 };
#define NONE PL_NO_FIELD

static const struct parking {
	int32_t float_count, float_head;
	int32_t dict_count, dict_list;
	int32_t keys_count, keys_list;
	int32_t keys_log_size; /* dk_log2_size, a byte; before 3.11 dk_size, 8 bytes */
} parkings[] = {
	/* _Py_float_state: count, head. _Py_dict_state: 80 dicts, count, 80 tables, count. */
	[10] = {9776, 9784, 10688 + 640, 10688, 10688 + 1288, 10688 + 648, NONE},
	[11] = {3608, 3616, 4520 + 640, 4520, 4520 + 1288, 4520 + 648, 8},
	/* Two version counters before, both counts behind both arrays. */
	[12] = {267408, 267416, 270720 + 1296, 270720 + 16, 270720 + 1300, 270720 + 656, 8},
	/* _Py_object_freelists: the array, then its count. */
	[13] = {10952, 10960, 10952 + 1544, 10952 + 904, 10952 + 2192, 10952 + 1552, 8},
};

static uint64_t main_interpreter(const struct pl_python *python)
{
	uint64_t interpreter, next;

	if (pl_memory_read_u64(python->pid, python->interpreters_head, &interpreter) < 0)
		return 0;
	/* New interpreters are put in front. */
	for (int i = 0; i < INTERPRETERS_MAX; i++) {
		if (pl_memory_read_u64(python->pid, interpreter + (uint64_t)python->layout.interpreter_next, &next) < 0)
			return 0;
		if (!next)
			return interpreter;
		interpreter = next;
	}
	return 0;
}

void free_lists_find(const struct object *object, struct pl_python *python)
{
	static const char *const names[] = {
		[PL_PARKING_LIST] = "PyList_Type",
		[PL_PARKING_DICT] = "PyDict_Type",
		[PL_PARKING_TUPLE] = "PyTuple_Type",
		[PL_PARKING_FLOAT] = "PyFloat_Type",
	};
	struct pl_python_free_lists *lists = &python->free_lists;

	if (python->minor > 13 || python->free_threaded)
		return;
	for (int i = 0; i < PL_PARKING_TYPES; i++)
		if (object_export(object, names[i], &lists->types[i]) < 0)
			lists->types[i] = 0;
	if (python->minor < 10) {
		if (object_local(object, "numfreekeys", &lists->keys_count) < 0 ||
				object_local(object, "keys_free_list", &lists->keys_list) < 0)
			lists->keys_count = lists->keys_list = 0;
		return;
	}
	lists->interpreter = main_interpreter(python);
	if (!lists->interpreter)
		return;

	const struct parking *parking = &parkings[python->minor];

	lists->float_count = lists->interpreter + (uint64_t)parking->float_count;
	lists->float_head = lists->interpreter + (uint64_t)parking->float_head;
	lists->keys_count = lists->interpreter + (uint64_t)parking->keys_count;
	lists->keys_list = lists->interpreter + (uint64_t)parking->keys_list;
}

enum verdict { WRONG = -1, EMPTY, PROVEN };

static enum verdict read_count(const struct pl_python *python, uint64_t address, int max, int *ret)
{
	int32_t count;

	if (pl_memory_read(python->pid, address, &count, sizeof(count)) < 0 || count < 0 || count > max)
		return WRONG;
	*ret = count;
	return count ? PROVEN : EMPTY;
}

static enum verdict check_floats(const struct pl_python *python, const struct pl_python_free_lists *lists)
{
	uint64_t at;
	int count, length = 0;
	enum verdict verdict = read_count(python, lists->float_count, PL_FLOATS_PARKED_MAX, &count);

	if (verdict == WRONG || pl_memory_read_u64(python->pid, lists->float_head, &at) < 0)
		return WRONG;
	while (at && length <= count + 1) {
		if (at & 7 || pl_memory_read_u64(python->pid, at + (uint64_t)python->layout.object_type, &at) < 0)
			return WRONG;
		length++;
	}
	/* A thread may have been stopped between the two. */
	return at || length > count + 1 || length < count - 1 ? WRONG : verdict;
}

/* Key tables of 8 entries, without a user (the last one's count may not have been taken off). */
static bool is_parked_table(const struct pl_python *python, const struct parking *parking, uint64_t table)
{
	uint64_t words[2];

	if (table & 7 || pl_memory_read(python->pid, table, words, sizeof(words)) < 0 || words[0] > 1)
		return false;
	return parking->keys_log_size == NONE ? words[1] == 8 : (words[1] & 0xff) == 3;
}

static enum verdict check_array(const struct pl_python *python, uint64_t count_address, uint64_t list, bool keys)
{
	uint64_t entries[PL_KEYS_PARKED_MAX], type;
	int count;
	enum verdict verdict = read_count(python, count_address, PL_KEYS_PARKED_MAX, &count);

	if (verdict != PROVEN)
		return verdict;
	if (pl_memory_read(python->pid, list, entries, (size_t)count * sizeof(entries[0])) < 0)
		return WRONG;
	for (int i = 0; i < count; i++)
		if (keys ? !is_parked_table(python, &parkings[python->minor], entries[i]) :
				pl_memory_read_u64(python->pid, entries[i] + (uint64_t)python->layout.object_type, &type) < 0 ||
				type != python->free_lists.types[PL_PARKING_DICT])
			return WRONG;
	return PROVEN;
}

void pl_python_free_lists_check(const struct pl_python *python, struct pl_python_free_lists *lists)
{
	int count;

	if (!lists->interpreter) {
		if (lists->keys_count && read_count(python, lists->keys_count, PL_KEYS_PARKED_MAX, &count) == WRONG)
			lists->keys_count = lists->keys_list = 0;
		return;
	}

	const struct parking *parking = &parkings[python->minor];
	uint64_t dicts = lists->interpreter + (uint64_t)parking->dict_count;
	enum verdict verdicts[] = {
		check_floats(python, lists),
		check_array(python, dicts, lists->interpreter + (uint64_t)parking->dict_list, false),
		check_array(python, lists->keys_count, lists->keys_list, true),
	};
	bool proven = false, wrong = false;

	for (size_t i = 0; i < sizeof(verdicts) / sizeof(verdicts[0]); i++) {
		proven |= verdicts[i] == PROVEN;
		wrong |= verdicts[i] == WRONG;
	}
	/* Zeros prove nothing: there is something parked in nearly every process. */
	if (proven && !wrong)
		return;
	lists->float_count = lists->float_head = lists->keys_count = lists->keys_list = 0;
}
