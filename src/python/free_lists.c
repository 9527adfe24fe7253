/* SPDX-License-Identifier: MIT */
#include "pyleak/arch.h"
#include "pyleak/space.h"
#include "python_private.h"

/*
 * Where freed blocks are parked. Up to 3.9 in static variables, whose names are local and gone from a
 * stripped object; from 3.10 on in the interpreter's state (Include/internal/pycore_interp.h), at the
 * offsets that builds of 3.10.13, 3.11.7, 3.12.1 and 3.13.0 say in their DWARF, and the headers of
 * 3.14.4 and 3.15.2. 3.14 has lists for most types, all alike (Include/internal/pycore_freelist_state.h):
 * the first of a chain that is linked through each block's first word, and its length. Free-threaded
 * builds have them for each thread: there the tracer of references tells of each object.
 */

enum {
	/* Where object_state.freelists is: at 11096 in 3.14.4 and 3.15.2, at 11120 in 3.14.10. */
	CHAINS_FIRST = 10880,
	CHAINS_LAST = 11520,
	CHAIN_MAX = 2000, /* tuples of one size */
	CHAIN_LOOK = 16,  /* so many blocks of a chain are looked at … */
	CHAIN_LOOKS = 4,  /* … so often, if they do not fit together */
	TUPLE_CHAINS = 20,
};

/* 3.14: floats, ints, 20 × tuples, lists, iterators of lists and of tuples, dicts, …; 3.15 has complexes before ints. */
struct chains {
	uint32_t count, tuples, lists, dicts;
};
static const struct chains chains_314 = {39, 2, 22, 25}, chains_315 = {41, 3, 23, 26};

static const struct parking {
	int32_t float_count, float_head;
	int32_t dict_count, dict_list;
	int32_t keys_count, keys_list;
	int32_t errno_map;     /* exc_state.errnomap, behind all of them: a dict, always */
} parkings[] = {
	/* _Py_float_state: count, head. _Py_dict_state: 80 dicts, count, 80 tables, count. */
	[10] = {9776, 9784, 10688 + 640, 10688, 10688 + 1288, 10688 + 648, 13312},
	[11] = {3608, 3616, 4520 + 640, 4520, 4520 + 1288, 4520 + 648, 7128},
	/* Two version counters before, both counts behind both arrays. */
	[12] = {267408, 267416, 270720 + 1296, 270720 + 16, 270720 + 1300, 270720 + 656, 273400},
	/* _Py_object_freelists: the array, then its count. */
	[13] = {10952, 10960, 10952 + 1544, 10952 + 904, 10952 + 2192, 10952 + 1552, 82640},
};

/* What a member of the main interpreter's is at. From 3.12 on its GIL, with two mutexes, is in front of these. */
static uint64_t member(const struct pl_python *python, const struct pl_python_free_lists *lists, int32_t offset)
{
	return lists->interpreter + (uint64_t)offset + (python->minor >= 12 ? 2 * (PL_ARCH_MUTEX_BYTES - 40) : 0);
}

static uint64_t main_interpreter(const struct pl_python *python)
{
	uint64_t interpreter, next;

	if (pl_space_read_u64(python->space, python->interpreters_head, &interpreter) < 0)
		return 0;
	/* New interpreters are put in front. */
	for (int i = 0; i < INTERPRETERS_MAX; i++) {
		if (pl_space_read_u64(python->space, interpreter + (uint64_t)python->layout.interpreter_next, &next) < 0)
			return 0;
		if (!next)
			return interpreter;
		interpreter = next;
	}
	return 0;
}

/*
 * _PyRuntime.ref_tracer: the function, then its data, as the code of PyRefTracer_GetTracer() names them.
 * The word will be emptied again while threads run, so _Py_NewReference() must not read it twice, to
 * compare and to call: a compiler that optimizes keeps it in a register.
 */
static uint64_t find_reference_tracer(const struct object *object, uint64_t runtime)
{
	uint64_t getter, user, words[8], function = 0;
	size_t count = 0;

	if (object_export(object, "PyRefTracer_GetTracer", &getter) < 0 ||
			object_export(object, "_Py_NewReference", &user) < 0 ||
			pl_arch_data_references(getter, object_code_read, object_code_is_data, (void *)object, words,
				sizeof(words) / sizeof(words[0]), &count) < 0)
		return 0;
	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j < count; j++)
			if (words[j] == words[i] + 8)
				function = words[i];
	if (function % 8 || !pl_arch_loads_once(user, object_code_read, (void *)object, function, runtime))
		return 0;
	return function;
}

/* Key tables of 8 entries, without a user (the last one's count may not have been taken off). */
static bool is_parked_table(const struct pl_python *python, uint64_t table)
{
	uint64_t words[2];

	if (table & 7 || pl_space_read(python->space, table, words, sizeof(words)) < 0 || words[0] > 1)
		return false;
	/* dk_size, 8 bytes; from 3.11 on dk_log2_size, a byte. */
	return python->minor < 11 ? words[1] == 8 : (words[1] & 0xff) == 3;
}

static bool are_parked_tables(const struct pl_python *python, uint64_t list, int32_t count)
{
	uint64_t entries[PL_KEYS_PARKED_MAX];

	if (pl_space_read(python->space, list, entries, (size_t)count * sizeof(entries[0])) < 0)
		return false;
	for (int32_t i = 0; i < count; i++)
		if (!is_parked_table(python, entries[i]))
			return false;
	return true;
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

	for (int i = 0; i < PL_PARKING_TYPES; i++)
		if (object_export(object, names[i], &lists->types[i]) < 0)
			lists->types[i] = 0;
	if (python->minor > 13 || python->free_threaded) {
		lists->reference_tracer = find_reference_tracer(object, python->runtime);
		if (!python->free_threaded && python->minor <= 15)
			lists->interpreter = main_interpreter(python);
		if (lists->interpreter) {
			lists->chains = lists->interpreter + CHAINS_FIRST;
			lists->chain_count = (python->minor == 14 ? &chains_314 : &chains_315)->count;
		}
		return;
	}
	if (python->minor < 10) {
		if (object_local(object, "numfreekeys", &lists->keys_count) < 0 ||
				object_local(object, "keys_free_list", &lists->keys_list) < 0) {
			if (!parked_keys_find(object, &lists->keys_count, &lists->keys_list, are_parked_tables, python))
				lists->keys_count = lists->keys_list = 0;
		}
		parked_objects_find(object, python, &lists->objects);
		return;
	}
	lists->interpreter = main_interpreter(python);
	if (!lists->interpreter)
		return;
	parked_objects_find(object, python, &lists->objects);

	const struct parking *parking = &parkings[python->minor];

	lists->float_count = member(python, lists, parking->float_count);
	lists->float_head = member(python, lists, parking->float_head);
	lists->keys_count = member(python, lists, parking->keys_count);
	lists->keys_list = member(python, lists, parking->keys_list);
}

enum verdict { WRONG = -1, EMPTY, PROVEN };

static enum verdict read_count(const struct pl_python *python, uint64_t address, int max, int *ret)
{
	int32_t count;

	if (pl_space_read(python->space, address, &count, sizeof(count)) < 0 || count < 0 || count > max)
		return WRONG;
	*ret = count;
	return count ? PROVEN : EMPTY;
}

static enum verdict check_floats(const struct pl_python *python, const struct pl_python_free_lists *lists)
{
	uint64_t at;
	int count, length = 0;
	enum verdict verdict = read_count(python, lists->float_count, PL_FLOATS_PARKED_MAX, &count);

	if (verdict == WRONG || pl_space_read_u64(python->space, lists->float_head, &at) < 0)
		return WRONG;
	while (at && length <= count + 1) {
		if (at & 7 || pl_space_read_u64(python->space, at + (uint64_t)python->layout.object_type, &at) < 0)
			return WRONG;
		length++;
	}
	/* A thread may have been stopped between the two. */
	return at || length > count + 1 || length < count - 1 ? WRONG : verdict;
}

static enum verdict check_array(const struct pl_python *python, uint64_t count_address, uint64_t list, bool keys)
{
	uint64_t entries[PL_KEYS_PARKED_MAX], type;
	int count;
	enum verdict verdict = read_count(python, count_address, PL_KEYS_PARKED_MAX, &count);

	if (verdict != PROVEN)
		return verdict;
	if (pl_space_read(python->space, list, entries, (size_t)count * sizeof(entries[0])) < 0)
		return WRONG;
	for (int i = 0; i < count; i++)
		if (keys ? !is_parked_table(python, entries[i]) :
				pl_space_read_u64(python->space, entries[i] + (uint64_t)python->layout.object_type, &type) < 0 ||
				type != python->free_lists.types[PL_PARKING_DICT])
			return WRONG;
	return PROVEN;
}

/* Where a full collection has just emptied all lists, what stands behind them says where they are. */
static enum verdict check_behind(const struct pl_python *python, uint64_t address)
{
	uint64_t object, type;

	if (pl_space_read_u64(python->space, address, &object) < 0 || !object || object & 7 ||
			pl_space_read_u64(python->space, object + (uint64_t)python->layout.object_type, &type) < 0)
		return EMPTY;
	return type == python->free_lists.types[PL_PARKING_DICT] ? PROVEN : EMPTY;
}

static enum verdict look_at_chain(const struct pl_python *python, uint64_t address)
{
	uint64_t words[2], length = 0;

	if (pl_space_read(python->space, address, words, sizeof(words)) < 0)
		return WRONG;
	if (words[1] > CHAIN_MAX) /* -1: closed by the interpreter */
		return words[1] == UINT64_MAX && !words[0] ? EMPTY : WRONG;
	uint64_t at = words[0];

	for (; at && length <= words[1] + 1 && length < CHAIN_LOOK; length++)
		if (at & 7 || pl_space_read_u64(python->space, at, &at) < 0)
			return WRONG;
	if (at && length == CHAIN_LOOK && words[1] >= CHAIN_LOOK)
		return PROVEN;
	/* A thread may be between its changes of the two. */
	return length > words[1] + 1 || length + 1 < words[1] ? WRONG : words[1] ? PROVEN : EMPTY;
}

/* The process takes blocks from the chain, and uses them, while it is walked. */
static enum verdict check_chain(const struct pl_python *python, uint64_t address)
{
	enum verdict verdict = WRONG;

	for (int looks = 0; looks < CHAIN_LOOKS && verdict == WRONG; looks++)
		verdict = look_at_chain(python, address);
	return verdict;
}

/* The types of which a chain's blocks were; they keep all but their first word. */
static enum verdict check_type(const struct pl_python *python, uint64_t address, uint64_t type)
{
	uint64_t block, found;

	if (pl_space_read_u64(python->space, address, &block) < 0)
		return WRONG;
	if (!block)
		return EMPTY;
	if (pl_space_read_u64(python->space, block + (uint64_t)python->layout.object_type, &found) < 0)
		return WRONG;
	return found == type ? PROVEN : WRONG;
}

/* An array of nothing but chains with the lengths that they say, with floats, tuples, lists and dicts
 * where they must be, is not found by chance. */
static bool chains_are_at(const struct pl_python *python, const struct chains *chains, uint64_t address)
{
	const uint64_t *types = python->free_lists.types;
	bool floats = false, tuples = false, others = false;

	for (uint32_t i = 0; i < chains->count; i++) {
		uint64_t chain = address + 16 * (uint64_t)i;
		enum verdict verdict = check_chain(python, chain);

		if (verdict == PROVEN && i == 0)
			floats = (verdict = check_type(python, chain, types[PL_PARKING_FLOAT])) == PROVEN;
		else if (verdict == PROVEN && i - chains->tuples < TUPLE_CHAINS)
			tuples |= (verdict = check_type(python, chain, types[PL_PARKING_TUPLE])) == PROVEN;
		else if (verdict == PROVEN && i == chains->lists)
			others |= (verdict = check_type(python, chain, types[PL_PARKING_LIST])) == PROVEN;
		else if (verdict == PROVEN && i == chains->dicts)
			others |= (verdict = check_type(python, chain, types[PL_PARKING_DICT])) == PROVEN;
		if (verdict == WRONG)
			return false;
	}
	return floats + tuples + others >= 2;
}

static void find_chains(const struct pl_python *python, struct pl_python_free_lists *lists)
{
	const struct chains *chains = python->minor == 14 ? &chains_314 : &chains_315;

	for (uint64_t at = CHAINS_FIRST; lists->chain_count && at <= CHAINS_LAST; at += 8)
		if (chains_are_at(python, chains, lists->interpreter + at)) {
			lists->chains = lists->interpreter + at;
			return;
		}
	lists->chain_count = 0;
}

void pl_python_free_lists_check(const struct pl_python *python, struct pl_python_free_lists *lists)
{
	int count;

	if (python->minor >= 14 || python->free_threaded) {
		find_chains(python, lists);
		return;
	}
	parked_objects_check(python, &lists->objects);
	if (!lists->interpreter) {
		if (lists->keys_count && read_count(python, lists->keys_count, PL_KEYS_PARKED_MAX, &count) == WRONG)
			lists->keys_count = lists->keys_list = 0;
		return;
	}

	const struct parking *parking = &parkings[python->minor];
	uint64_t dicts = member(python, lists, parking->dict_count);
	enum verdict verdicts[] = {
		check_floats(python, lists),
		check_array(python, dicts, member(python, lists, parking->dict_list), false),
		check_array(python, lists->keys_count, lists->keys_list, true),
		check_behind(python, member(python, lists, parking->errno_map)),
	};
	bool proven = false, wrong = false;

	for (size_t i = 0; i < sizeof(verdicts) / sizeof(verdicts[0]); i++) {
		proven |= verdicts[i] == PROVEN;
		wrong |= verdicts[i] == WRONG;
	}
	/* Zeros prove nothing. */
	if (proven && !wrong)
		return;
	lists->float_count = lists->float_head = lists->keys_count = lists->keys_list = 0;
	parked_objects_forget(&lists->objects);
}
