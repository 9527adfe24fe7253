/* SPDX-License-Identifier: MIT */
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "../../src/python/python_private.h"
#include "spaces.h"

/* Free lists laid out by hand in our own memory, as an interpreter's would be: each is believed only
 * if everything that it leads to is as it must be. */
enum { STATE = 20000, BLOCKS = 64, CHAINS_AT = 11120, COUNT_AT = 3608 /* 3.11 */, KEYS_COUNT_AT = 4520 + 1288 };

static uint8_t state[STATE] __attribute__((aligned(16)));
static uint64_t blocks[BLOCKS][4];
static struct pl_python python;
static struct pl_python_free_lists lists;

static void put(size_t at, uint64_t value)
{
	memcpy(state + at, &value, sizeof(value));
}

static void put_int(size_t at, int32_t value)
{
	memcpy(state + at, &value, sizeof(value));
}

static void set_up(int minor)
{
	memset(state, 0, sizeof(state));
	memset(blocks, 0, sizeof(blocks));
	memset(&python, 0, sizeof(python));
	python.space = space_of(getpid());
	python.minor = minor;
	cr_assert_eq(layout_table(minor, 0, false, &python.layout), 0);
	for (int i = 0; i < PL_PARKING_TYPES; i++)
		python.free_lists.types[i] = 0x1000 + (uint64_t)i;
	python.free_lists.interpreter = (uint64_t)state;
}

/* `count` blocks of a type, linked through the word `link`. */
static uint64_t chain(int first, int count, int link, uint64_t type)
{
	for (int i = first; i < first + count; i++) {
		blocks[i][1] = type;
		blocks[i][link] = i + 1 < first + count ? (uint64_t)blocks[i + 1] : 0;
	}
	return (uint64_t)blocks[first];
}

static void park(int number, int first, int count, uint64_t type)
{
	put(CHAINS_AT + 16 * (size_t)number, chain(first, count, 0, type));
	put(CHAINS_AT + 16 * (size_t)number + 8, (uint64_t)count);
}

static void fill_314(void)
{
	set_up(14);
	park(0, 0, 3, 0x1000 + PL_PARKING_FLOAT);
	park(1, 3, 2, 0x7777);
	park(4, 5, 4, 0x1000 + PL_PARKING_TUPLE);
	park(22, 9, 1, 0x1000 + PL_PARKING_LIST);
	park(25, 10, 5, 0x1000 + PL_PARKING_DICT);
	put(CHAINS_AT - 16, 0x123456789abc); /* whatever comes before */
}

static bool check_314(void)
{
	lists = python.free_lists;
	lists.chains = lists.interpreter;
	lists.chain_count = 39;
	pl_python_free_lists_check(&python, &lists);
	return lists.chain_count && lists.chains == (uint64_t)state + CHAINS_AT;
}

Test(free_lists, chains_are_looked_for)
{
	fill_314();
	cr_expect(check_314());
	cr_expect_eq(lists.chain_count, 39);
}

Test(free_lists, a_chain_may_be_one_off)
{
	fill_314();
	put(CHAINS_AT + 8, 4);
	cr_expect(check_314(), "a thread was stopped in the midst");
	put(CHAINS_AT + 8, 5);
	cr_expect_not(check_314());
}

Test(free_lists, chains_that_cannot_be)
{
	fill_314();
	blocks[2][0] = (uint64_t)blocks[0];
	cr_expect_not(check_314(), "a loop");
	fill_314();
	blocks[1][0] = 24;
	cr_expect_not(check_314(), "unreadable");
	fill_314();
	blocks[1][0] |= 1;
	cr_expect_not(check_314(), "not aligned");
	fill_314();
	blocks[9][1] = 0x1000 + PL_PARKING_DICT;
	cr_expect_not(check_314(), "a dict among the lists");
	fill_314();
	put(CHAINS_AT + 16 * 30 + 8, 3);
	cr_expect_not(check_314(), "a length without a chain");
	fill_314();
	put(CHAINS_AT + 16 * 38 + 8, UINT64_MAX);
	cr_expect(check_314(), "one that the interpreter has closed");
}

Test(free_lists, nothing_parked_proves_nothing)
{
	set_up(14);
	cr_expect_not(check_314());
	park(22, 9, 1, 0x1000 + PL_PARKING_LIST);
	cr_expect_not(check_314(), "one kind could be chance");
	set_up(11);
	lists = python.free_lists;
	lists.float_count = (uint64_t)state + COUNT_AT;
	lists.float_head = (uint64_t)state + COUNT_AT + 8;
	lists.keys_count = (uint64_t)state + KEYS_COUNT_AT;
	lists.keys_list = (uint64_t)state + 4520 + 648;
	pl_python_free_lists_check(&python, &lists);
	cr_expect_eq(lists.float_count, 0);
	cr_expect_eq(lists.keys_count, 0);
}

static bool check_311(void)
{
	lists = python.free_lists;
	lists.float_count = (uint64_t)state + COUNT_AT;
	lists.float_head = (uint64_t)state + COUNT_AT + 8;
	lists.keys_count = (uint64_t)state + KEYS_COUNT_AT;
	lists.keys_list = (uint64_t)state + 4520 + 648;
	pl_python_free_lists_check(&python, &lists);
	return lists.float_count && lists.keys_count;
}

static void fill_311(void)
{
	set_up(11);
	put_int(COUNT_AT, 6);
	put(COUNT_AT + 8, chain(0, 6, 1, 0)); /* floats are linked through their type */
	put_int(KEYS_COUNT_AT, 1);
	blocks[10][0] = 1;
	blocks[10][1] = 0x303; /* dk_log2_size 3 */
	put(4520 + 648, (uint64_t)blocks[10]);
}

Test(free_lists, counts_in_the_interpreter)
{
	fill_311();
	cr_expect(check_311());
	put_int(COUNT_AT, 101);
	cr_expect_not(check_311(), "more than are allowed");
	fill_311();
	put_int(COUNT_AT, -1);
	cr_expect_not(check_311());
	fill_311();
	blocks[5][1] = (uint64_t)blocks[0];
	cr_expect_not(check_311(), "a loop");
	fill_311();
	blocks[10][1] = 0x304;
	cr_expect_not(check_311(), "a table of 16 keys is not parked");
	fill_311();
	put_int(KEYS_COUNT_AT, 80);
	cr_expect_not(check_311(), "79 of them are NULL");
}

Test(free_lists, what_stands_behind_the_lists_proves_them)
{
	set_up(11);
	blocks[20][1] = 0x1000 + PL_PARKING_DICT;
	put(7128, (uint64_t)blocks[20]);
	cr_expect(check_311(), "a full collection has just emptied them");
	blocks[20][1] = 0x1000 + PL_PARKING_LIST;
	cr_expect_not(check_311(), "no dict");
	put(7128, 0x18);
	cr_expect_not(check_311(), "unreadable");
}

enum { CONTEXT_TYPE = 0x2000, SLICE_TYPE, FRAME_TYPE };
static uint64_t words[8];
static uint64_t contexts[4][6];

static struct pl_parked_objects *objects_of_38(void)
{
	static struct pl_parked_objects objects;

	set_up(8);
	memset(words, 0, sizeof(words));
	memset(contexts, 0, sizeof(contexts));
	for (int i = 0; i < 3; i++) {
		contexts[i][1] = CONTEXT_TYPE;
		contexts[i][PL_CONTEXT_LINK / 8] = i < 2 ? (uint64_t)contexts[i + 1] : 0;
	}
	blocks[0][1] = SLICE_TYPE;
	words[0] = (uint64_t)contexts[0];
	words[1] = 3;
	words[2] = (uint64_t)blocks[0];
	words[3] = 200;
	words[4] = 256;
	objects = (struct pl_parked_objects){.frame_type = FRAME_TYPE, .context_type = CONTEXT_TYPE, .slice_type = SLICE_TYPE,
		.counts = {(uint64_t)&words[3], (uint64_t)&words[4], (uint64_t)&words[5]},
		.context_head = (uint64_t)&words[0], .context_count = (uint64_t)&words[1], .slice_cache = (uint64_t)&words[2]};
	return &objects;
}

Test(free_lists, other_objects)
{
	struct pl_parked_objects *objects = objects_of_38();

	parked_objects_check(&python, objects);
	cr_expect(objects->context_count && objects->slice_cache);
	for (int i = 0; i < PL_COUNTED; i++)
		cr_expect(objects->counts[i]);
	words[1] = 4;
	parked_objects_check(&python, objects);
	cr_expect(objects->context_count, "a thread was stopped in the midst");
	words[1] = words[2] = 0;
	contexts[0][PL_CONTEXT_LINK / 8] = words[0] = 0;
	parked_objects_check(&python, objects);
	cr_expect(objects->context_count && objects->slice_cache, "empty");
}

Test(free_lists, other_objects_that_cannot_be)
{
	struct pl_parked_objects *objects = objects_of_38();

	words[1] = 256;
	words[3] = 201;
	words[4] = 257;
	words[5] = UINT32_MAX;
	blocks[0][1] = CONTEXT_TYPE;
	parked_objects_check(&python, objects);
	cr_expect_not(objects->context_count || objects->context_head, "more than are allowed");
	cr_expect_not(objects->slice_cache, "not a slice");
	for (int i = 0; i < PL_COUNTED; i++)
		cr_expect_not(objects->counts[i]);

	objects = objects_of_38();
	contexts[2][PL_CONTEXT_LINK / 8] = (uint64_t)contexts[0];
	parked_objects_check(&python, objects);
	cr_expect_not(objects->context_count, "a loop");
	objects = objects_of_38();
	contexts[1][1] = SLICE_TYPE;
	parked_objects_check(&python, objects);
	cr_expect_not(objects->context_count, "not a context");
	objects = objects_of_38();
	words[0] = 0x18;
	words[2] = 0x20;
	parked_objects_check(&python, objects);
	cr_expect_not(objects->context_count || objects->slice_cache, "unreadable");
}
