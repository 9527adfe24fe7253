/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <sys/wait.h>

#include "../../src/engine/inline_read.h"
#include "recorder_host.h"

static struct host_thread main_thread;
static struct host_interpreter main_interpreter;
static struct host_code *code_a, *code_b;
static struct host_frame outer, inner;

static uint64_t self_pointer(void)
{
	return (uint64_t)__builtin_thread_pointer();
}

static void begin_adjusted(uint32_t frames, uint64_t sample, uint32_t mode, void (*adjust)(struct pl_inline_config *))
{
	host_plant(frames, sample, mode, adjust);
	code_a = host_code_new("/a.py", "a", 10);
	code_b = host_code_new("/b.py", "b", 20);
	outer = host_frame(NULL, code_a, 4);
	inner = host_frame(&outer, code_b, 8);
	main_thread = (struct host_thread){&main_interpreter, self_pointer(), &inner};
	host_current = &main_thread;
}

static void begin(uint32_t frames)
{
	begin_adjusted(frames, 0, PL_INLINE_GIL, NULL);
}

static uint64_t allocate(int domain, uint64_t address, uint64_t size)
{
	host_next = address;
	return host_malloc(domain, size);
}

static const struct pl_inline_site *site_row(uint32_t site)
{
	return (const struct pl_inline_site *)host_config->sites + site;
}

static uint64_t site_frame(uint32_t site, uint32_t index)
{
	return ((const uint64_t *)host_config->frames)[site_row(site)->frames + index];
}

static const char *code_filename(uint32_t code)
{
	static char text[PL_INLINE_FILENAME_MAX + 1];
	const struct pl_inline_code *row = (const struct pl_inline_code *)host_config->codes + code;

	memcpy(text, (const char *)host_config->arena + row->data, row->filename_bytes);
	text[row->filename_bytes] = '\0';
	return text;
}

static void expect_live(uint64_t size, uint64_t count)
{
	struct host_totals sum = host_sum();

	cr_assert_eq(sum.allocated_size - sum.freed_size, size, "%lu bytes live, not %lu",
		sum.allocated_size - sum.freed_size, size);
	cr_assert_eq(sum.allocated_count - sum.freed_count, count, "%lu blocks live, not %lu",
		sum.allocated_count - sum.freed_count, count);
}

Test(recorder, sizes_come_back_as_they_went)
{
	static const uint64_t sizes[] = {0, 1, 16, 512, 2045, 2046, 2047, 2048, 4096, 1 << 20, (1ULL << 32) - 1,
		1ULL << 32, (1ULL << 40) + 12345};
	/* The last granules of a chunk: the words of a large size go over its edge. */
	uint64_t places[] = {0x10000000, 0x14000000 - 16, 0x14000000 - 48};

	begin(1);
	for (size_t p = 0; p < sizeof(places) / sizeof(*places); p++)
		for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
			cr_assert_eq(allocate(PL_INLINE_OBJ, places[p], sizes[i]), places[p]);
			expect_live(sizes[i], 1);
			host_free(PL_INLINE_OBJ, places[p]);
			expect_live(0, 0);
		}
	cr_assert_eq(host_control()->freed_unknown, 0);
	cr_assert_eq(host_control()->lost_events, 0);
	cr_assert_eq(host_site_count(), PL_INLINE_SITE_FIRST + 1);
	host_unplant();
}

/* Random blocks at any multiple of 8 that do not overlap, against a plain array. */
static void fuzz(uint32_t mode, uint64_t align)
{
	enum { PLACES = 512, EVENTS = 200000, ROOM = 96 };
	static uint64_t live[PLACES], address[PLACES];
	uint64_t size_sum = 0, count = 0;

	memset(live, 0, sizeof(live));
	begin_adjusted(3, 0, mode, NULL);
	srandom(1);
	for (int i = 0; i < EVENTS; i++) {
		int place = (int)(random() % PLACES);
		uint64_t start = 0x20000000 + (uint64_t)place * ROOM, size;
		int domain = (int)(random() % 3);

		inner.instruction = (uint64_t)code_b->bytecode + 2 * (uint64_t)(random() % 20);
		outer.instruction = (uint64_t)code_a->bytecode + 2 * (uint64_t)(random() % 4);
		if (live[place] && random() % 3) {
			host_free(domain, address[place]);
			size_sum -= live[place] - 1;
			count--;
			live[place] = 0;
		} else if (live[place]) {
			uint64_t to = start + (uint64_t)random() % (ROOM / align) * align;

			size = (uint64_t)random() % (start + ROOM - to) + 1;
			host_next = random() % 4 ? to : 0;
			if (host_realloc(domain, address[place], size)) {
				size_sum += size - (live[place] - 1);
				address[place] = to;
				live[place] = size + 1;
			}
		} else {
			address[place] = start + (uint64_t)random() % (ROOM / align) * align;
			/* Two blocks of 8 bytes in one granule, now and then. */
			size = random() % 4 ? (uint64_t)random() % (start + ROOM - address[place]) + 1 : 8;
			cr_assert_eq(allocate(domain, address[place], size), address[place]);
			size_sum += size;
			count++;
			live[place] = size + 1;
		}
	}
	expect_live(size_sum, count);
	for (int i = 0; i < PLACES; i++)
		if (live[i])
			host_free(PL_INLINE_OBJ, address[i]);
	expect_live(0, 0);
	for (uint32_t site = 0; site < host_site_count(); site++) {
		struct host_totals totals = host_site(site);

		cr_assert_eq(totals.allocated_size, totals.freed_size);
		cr_assert_eq(totals.allocated_count, totals.freed_count);
	}
	cr_assert_eq(host_control()->freed_unknown, 0);
	cr_assert_eq(host_control()->lost_events, 0);
	host_unplant();
}

Test(recorder, fuzz_aligned)
{
	fuzz(PL_INLINE_GIL, 16);
}
Test(recorder, fuzz_aligned_to_eight)
{
	fuzz(PL_INLINE_GIL, 8);
}
Test(recorder, fuzz_odd)
{
	fuzz(PL_INLINE_GIL, 1);
}
Test(recorder, fuzz_threads_mode)
{
	fuzz(PL_INLINE_THREADS, 8);
}

Test(recorder, neighbours_in_one_granule)
{
	begin(1);
	(void)allocate(PL_INLINE_OBJ, 0x30000000, 8);
	(void)allocate(PL_INLINE_OBJ, 0x30000008, 7);
	(void)allocate(PL_INLINE_OBJ, 0x30000010, 24);
	(void)allocate(PL_INLINE_OBJ, 0x30000028, 24);
	(void)allocate(PL_INLINE_OBJ, 0x30000040, 24);
	expect_live(87, 5);
	host_free(PL_INLINE_OBJ, 0x30000008);
	expect_live(80, 4);
	host_free(PL_INLINE_OBJ, 0x30000010);
	expect_live(56, 3);
	host_free(PL_INLINE_OBJ, 0x30000008); /* gone already: the entry of its neighbour is not its own */
	expect_live(56, 3);
	host_free(PL_INLINE_OBJ, 0x30000028);
	host_free(PL_INLINE_OBJ, 0x30000000);
	host_free(PL_INLINE_OBJ, 0x30000040);
	expect_live(0, 0);
	cr_assert_eq(host_control()->freed_unknown, 1);
	host_unplant();
}

Test(recorder, a_word_of_a_size_is_no_block)
{
	begin(1);
	(void)allocate(PL_INLINE_OBJ, 0x30000000, 0x7fffffffffffULL);
	for (uint64_t i = 1; i < 7; i++)
		host_free(PL_INLINE_OBJ, 0x30000000 + 16 * i);
	expect_live(0x7fffffffffffULL, 1);
	host_unplant();
}

static void check_nested(uint32_t mode, uint64_t gap)
{
	struct host_totals sum;

	begin_adjusted(2, 0, mode, NULL);
	host_obj_enters_raw = true;
	host_debug_gap = gap;
	(void)allocate(PL_INLINE_OBJ, 0x40000100, 1000);
	expect_live(1000, 1);
	host_next = 0x40000800;
	cr_assert_eq(host_realloc(PL_INLINE_OBJ, 0x40000100, 3000), 0x40000800);
	expect_live(3000, 1);
	host_next = 0;
	cr_assert_eq(host_realloc(PL_INLINE_OBJ, 0x40000800, 9000), 0);
	expect_live(3000, 1);
	host_free(PL_INLINE_OBJ, 0x40000800);
	expect_live(0, 0);
	sum = host_sum();
	cr_assert_eq(sum.allocated_count, 2);
	cr_assert_eq(sum.allocated_size, 4000);
	cr_assert_eq(host_control()->freed_unknown, 0);
	host_unplant();
}

Test(recorder, only_the_outermost_domain_counts)
{
	check_nested(PL_INLINE_GIL, 0);
	check_nested(PL_INLINE_GIL, 16);
	check_nested(PL_INLINE_THREADS, 0);
	check_nested(PL_INLINE_THREADS, 16);
}

Test(recorder, calloc_multiplies)
{
	begin(1);
	host_next = 0x40000000;
	(void)host_calloc(PL_INLINE_MEM, 7, 9);
	expect_live(63, 1);
	host_unplant();
}

Test(recorder, a_failed_call_leaves_no_trace)
{
	begin(1);
	host_next = 0;
	cr_assert_eq(host_malloc(PL_INLINE_OBJ, 10), 0);
	cr_assert_eq(host_realloc(PL_INLINE_RAW, 0, 10), 0);
	expect_live(0, 0);
	host_free(PL_INLINE_OBJ, 0);
	cr_assert_eq(host_control()->freed_unknown, 0);
	host_unplant();
}

Test(recorder, marker_stands_during_the_original_and_only_then)
{
	for (int domain = 0; domain < PL_INLINE_DOMAINS; domain++) {
		begin(1);
		(void)allocate(domain, 0x40000000, 1);
		cr_assert(host_marker_seen);
		host_look_for_marker();
		cr_assert_not(host_marker_seen);
		host_control()->mode = PL_INLINE_OFF;
		(void)allocate(domain, 0x40000000, 1);
		cr_assert_not(host_marker_seen);
		host_unplant();
	}
}

Test(recorder, traces_are_told_apart_by_their_callers)
{
	uint32_t first;

	begin(16);
	(void)allocate(PL_INLINE_OBJ, 0x50000000, 1);
	first = host_site_count();
	(void)allocate(PL_INLINE_OBJ, 0x50000010, 1);
	cr_assert_eq(host_site_count(), first);
	outer.instruction += 2;
	(void)allocate(PL_INLINE_OBJ, 0x50000020, 1);
	cr_assert_eq(host_site_count(), first + 1);
	outer.instruction -= 2;
	(void)allocate(PL_INLINE_OBJ, 0x50000030, 1);
	cr_assert_eq(host_site_count(), first + 1);
	cr_assert_eq(host_site(PL_INLINE_SITE_FIRST).allocated_count, 3);
	cr_assert_eq(site_row(PL_INLINE_SITE_FIRST)->count, 2);
	cr_assert_eq(pl_inline_frame_offset(site_frame(PL_INLINE_SITE_FIRST, 0)), 8);
	cr_assert_eq(pl_inline_frame_offset(site_frame(PL_INLINE_SITE_FIRST, 1)), 4);
	cr_assert_eq(pl_inline_frame_offset(site_frame(PL_INLINE_SITE_FIRST + 1, 1)), 6);
	cr_assert_str_eq(code_filename(pl_inline_frame_code(site_frame(PL_INLINE_SITE_FIRST, 0))), "/b.py");
	cr_assert_str_eq(code_filename(pl_inline_frame_code(site_frame(PL_INLINE_SITE_FIRST, 1))), "/a.py");
	host_unplant();
}

Test(recorder, traces_are_cut_at_the_limit)
{
	enum { DEPTH = 300 };
	static struct host_frame frames[DEPTH];

	for (uint32_t limit = 1; limit <= PL_INLINE_FRAMES_MAX; limit = limit * 3 + 1) {
		begin(limit);
		for (int i = 0; i < DEPTH; i++)
			frames[i] = host_frame(i ? &frames[i - 1] : NULL, code_a, (unsigned int)i % 60);
		for (int depth = 1; depth <= DEPTH; depth += 7) {
			uint32_t site = host_site_count();

			main_thread.frame = &frames[depth - 1];
			(void)allocate(PL_INLINE_OBJ, 0x50000000, 1);
			if (host_site_count() == site)
				continue;
			cr_assert_eq(site_row(site)->count, depth < (int)limit ? depth : (int)limit);
			cr_assert_eq(site_row(site)->more, depth > (int)limit, "limit %u depth %d", limit, depth);
		}
		host_unplant();
	}
}

static void instructions_are_indexes(struct pl_inline_config *config)
{
	config->layout.instruction_is_index = 1;
	config->layout.instruction_scale = 1;
}

/* A frame of a random stack: what it is at, and what the trace must say of that. */
struct made_frame {
	struct host_code *code;
	unsigned int offset;
};

static void expect_trace(uint64_t address, const struct made_frame *made, unsigned int depth, unsigned int limit)
{
	uint64_t chunk = ((const uint64_t *)host_config->directory)[address >> PL_INLINE_CHUNK_SHIFT];
	uint32_t entry = *(const uint32_t *)(chunk + (address >> 2 & (PL_INLINE_CHUNK_BYTES - 4)));
	uint32_t site = entry >> PL_INLINE_SITE_SHIFT;

	cr_assert_eq(site_row(site)->count, depth < limit ? depth : limit);
	/* With one frame, one site for whatever is below. */
	cr_assert(limit == 1 || site_row(site)->more == (depth > limit));
	for (unsigned int i = 0; i < site_row(site)->count; i++) {
		const struct made_frame *frame = &made[depth - 1 - i];

		cr_assert_eq(pl_inline_frame_offset(site_frame(site, i)), frame->offset);
		cr_assert_str_eq(code_filename(pl_inline_frame_code(site_frame(site, i))), frame->code->filename->data);
	}
}

/* Stacks grow, shrink and move on at random, at two addresses for each depth, while code objects die and others are
 * made in their place: more callers than the caches hold, most of them again and again. */
static void check_random_stacks(unsigned int limit, uint32_t mode, void (*adjust)(struct pl_inline_config *))
{
	enum { DEPTH = 24, CODES = 3, STEPS = 200000 };
	static struct host_frame frames[DEPTH][2];
	struct made_frame made[DEPTH];
	struct host_code *codes[CODES];
	unsigned int depth = 0, seed = limit + mode;
	bool index = adjust != NULL;

	begin_adjusted(limit, 0, mode, adjust);
	for (int i = 0; i < CODES; i++)
		codes[i] = host_code_new("/0.py", "f", 1);
	for (int step = 0; step < STEPS; step++) {
		struct host_frame *below = depth ? main_thread.frame : NULL;

		if (rand_r(&seed) % 5000 == 0) {
			struct host_code *code = codes[rand_r(&seed) % CODES];

			host_free(PL_INLINE_OBJ, (uint64_t)code);
			code->filename->data[1] = (char)('0' + (code->filename->data[1] + 1 - '0') % 8);
		}
		if (!depth || (depth < DEPTH && rand_r(&seed) % 2)) {
			struct host_frame *frame = &frames[depth][rand_r(&seed) % 8 == 0];

			made[depth] = (struct made_frame){codes[rand_r(&seed) % CODES], 0};
			*frame = host_frame(below, made[depth++].code, 0);
			main_thread.frame = frame;
		} else if (rand_r(&seed) % 2) {
			main_thread.frame = below->previous;
			depth--;
		}
		if (!depth)
			continue;
		made[depth - 1].offset = rand_r(&seed) % 4 * 2;
		main_thread.frame->instruction =
			made[depth - 1].offset + (index ? 0 : (uint64_t)made[depth - 1].code->bytecode);
		(void)allocate(PL_INLINE_OBJ, 0x50000000, 1);
		expect_trace(0x50000000, made, depth, limit);
		host_free(PL_INLINE_OBJ, 0x50000000);
	}
	host_unplant();
}

Test(recorder, traces_are_those_of_the_stack_whatever_is_remembered)
{
	check_random_stacks(1, PL_INLINE_GIL, NULL);
	check_random_stacks(4, PL_INLINE_GIL, NULL);
	check_random_stacks(16, PL_INLINE_GIL, NULL);
	check_random_stacks(6, PL_INLINE_THREADS, NULL);
	check_random_stacks(1, PL_INLINE_GIL, instructions_are_indexes);
	check_random_stacks(5, PL_INLINE_GIL, instructions_are_indexes);
}

Test(recorder, shims_and_incomplete_frames_are_not_there)
{
	struct host_frame shim, fresh;

	begin(4);
	code_a->first_traceable = 3;
	shim = host_frame(&outer, code_a, 50);
	shim.owner = 3;
	fresh = host_frame(&inner, code_a, 4); /* 4 < 2 * 3: still copying its cells */
	inner.previous = &shim;
	outer.instruction = (uint64_t)code_a->bytecode + 20;
	main_thread.frame = &fresh;
	(void)allocate(PL_INLINE_OBJ, 0x50000000, 1);
	cr_assert_eq(site_row(PL_INLINE_SITE_FIRST)->count, 2);
	cr_assert_eq(pl_inline_frame_offset(site_frame(PL_INLINE_SITE_FIRST, 0)), 8);
	cr_assert_eq(pl_inline_frame_offset(site_frame(PL_INLINE_SITE_FIRST, 1)), 20);
	fresh.owner = 1; /* a generator's frame is a complete one */
	(void)allocate(PL_INLINE_OBJ, 0x50000010, 1);
	cr_assert_eq(site_row(PL_INLINE_SITE_FIRST + 1)->count, 3);
	main_thread.frame = &shim;
	(void)allocate(PL_INLINE_OBJ, 0x50000020, 1);
	cr_assert_eq(site_row(PL_INLINE_SITE_FIRST + 2)->count, 1);
	host_unplant();
}

Test(recorder, no_frame_no_thread)
{
	begin(4);
	main_thread.frame = NULL;
	(void)allocate(PL_INLINE_OBJ, 0x50000000, 5);
	host_current = NULL;
	(void)allocate(PL_INLINE_OBJ, 0x50000010, 6);
	(void)allocate(PL_INLINE_RAW, 0x50000020, 7);
	cr_assert_eq(host_site(PL_INLINE_SITE_UNKNOWN).allocated_size, 18);
	host_unplant();
}

/* A code object dies, and another one is made at its address. */
static void check_code_death(uint32_t mode)
{
	struct host_string *other;
	uint32_t codes, sites;

	begin_adjusted(4, 0, mode, NULL);
	main_thread.frame = &outer;
	(void)allocate(PL_INLINE_OBJ, (uint64_t)code_b, sizeof(*code_b)); /* one after attach … */
	main_thread.frame = &inner;
	(void)allocate(PL_INLINE_OBJ, 0x50000000, 1);
	cr_assert_str_eq(code_filename(pl_inline_frame_code(site_frame(PL_INLINE_SITE_FIRST + 1, 0))), "/b.py");
	codes = (uint32_t)host_control()->next_code;
	sites = host_site_count();
	host_free(PL_INLINE_OBJ, (uint64_t)code_b);
	cr_assert_eq(host_control()->code_generation, 1);

	(void)allocate(PL_INLINE_OBJ, 0x50000010, 1); /* equal content: the same number */
	cr_assert_eq(host_control()->next_code, codes);
	cr_assert_eq(host_site_count(), sites);

	host_free(PL_INLINE_OBJ, (uint64_t)code_b); /* … and one from before: only marked */
	cr_assert_eq(host_control()->code_generation, 2);
	cr_assert(host_is_older(sites));
	sites = host_site_count();
	other = code_b->filename;
	memcpy(other->data, "/c.py", 5);
	(void)allocate(PL_INLINE_OBJ, 0x50000020, 1);
	cr_assert_eq(host_control()->next_code, codes + 1);
	cr_assert_eq(host_site_count(), sites + 1);
	cr_assert_str_eq(code_filename(pl_inline_frame_code(site_frame(sites, 0))), "/c.py");
	cr_assert_str_eq(code_filename(pl_inline_frame_code(site_frame(PL_INLINE_SITE_FIRST + 1, 0))), "/b.py");

	/* A caller's code object too. */
	host_free(PL_INLINE_OBJ, (uint64_t)code_a);
	memcpy(code_a->filename->data, "/d.py", 5);
	(void)allocate(PL_INLINE_OBJ, 0x50000030, 1);
	cr_assert_str_eq(code_filename(pl_inline_frame_code(site_frame(sites + 2, 1))), "/d.py");
	host_unplant();
}

Test(recorder, code_objects_die)
{
	check_code_death(PL_INLINE_GIL);
	check_code_death(PL_INLINE_THREADS);
}

Test(recorder, endless_new_code_of_equal_content_fills_nothing)
{
	begin(4);
	for (int i = 0; i < 300000; i++) {
		inner.instruction = (uint64_t)code_b->bytecode + 2 * (uint64_t)(i % 3);
		(void)allocate(PL_INLINE_OBJ, 0x50000000, 1);
		host_free(PL_INLINE_OBJ, 0x50000000);
		host_free(PL_INLINE_OBJ, (uint64_t)code_b);
	}
	cr_assert_eq(host_control()->next_code, 2);
	cr_assert_eq(host_control()->next_site, 6, "three lines, and what older blocks went beside each");
	cr_assert_eq(host_control()->lost_codes, 0);
	host_unplant();
}

static void small_tables(struct pl_inline_config *config)
{
	config->site_limit = PL_INLINE_SITE_FIRST + 2;
	config->chunk_count = 2;
	config->code_limit = PL_INLINE_CODE_FIRST + 1;
}

static void few_rows(struct pl_inline_config *config)
{
	config->site_limit = PL_INLINE_SITE_FIRST + 13; /* of 16, twelve are given out freely */
}

/* Ever new callers of one line: the first ones have their tracebacks, all others share a row of the line alone. */
Test(recorder, tracebacks_are_cut_before_any_line_is_lost)
{
	const struct pl_inline_site *last;

	begin_adjusted(4, 0, PL_INLINE_GIL, few_rows);
	for (unsigned int i = 0; i < 500; i++) {
		outer.instruction = (uint64_t)code_a->bytecode + 2 * i;
		(void)allocate(PL_INLINE_OBJ, 0x50000000 + 16 * i, 10);
	}
	cr_assert_eq(host_control()->lost_sites, 0);
	cr_assert_eq(host_control()->next_site, 13);
	last = site_row(PL_INLINE_SITE_FIRST + 12);
	cr_assert_eq(last->count, 1);
	cr_assert_eq(last->more, 1);
	cr_assert_eq(site_frame(PL_INLINE_SITE_FIRST + 12, 0), site_frame(PL_INLINE_SITE_FIRST, 0));
	cr_assert_eq(host_site(PL_INLINE_SITE_FIRST + 12).allocated_count, 488);
	for (uint32_t site = 0; site < 12; site++) {
		cr_assert_eq(site_row(PL_INLINE_SITE_FIRST + site)->count, 2);
		cr_assert_eq(host_site(PL_INLINE_SITE_FIRST + site).allocated_count, 1);
	}
	/* What has a row keeps it. */
	outer.instruction = (uint64_t)code_a->bytecode;
	(void)allocate(PL_INLINE_OBJ, 0x50000000 + 16 * 500, 10);
	cr_assert_eq(host_site(PL_INLINE_SITE_FIRST).allocated_count, 2);
	expect_live(5010, 501);
	host_unplant();
}

Test(recorder, full_tables_say_so)
{
	begin_adjusted(1, 0, PL_INLINE_GIL, small_tables);
	for (unsigned int i = 0; i < 6; i++) {
		inner.instruction = (uint64_t)code_b->bytecode + 2 * i;
		(void)allocate(PL_INLINE_OBJ, 0x50000000 + 16 * i, 10);
	}
	cr_assert_eq(host_control()->lost_sites, 4);
	cr_assert_eq(host_site(PL_INLINE_SITE_LOST).allocated_count, 4);
	expect_live(60, 6);
	/* One chunk went to the code object, one to the blocks: there is none for this. */
	(void)allocate(PL_INLINE_OBJ, 0x90000000, 10);
	cr_assert_eq(host_control()->lost_events, 1);
	expect_live(60, 6);
	host_free(PL_INLINE_OBJ, 0x90000000);
	cr_assert_eq(host_control()->freed_unknown, 1);
	/* A number for one more code object: there is none. */
	main_thread.frame = &outer;
	(void)allocate(PL_INLINE_OBJ, 0x50000100, 10);
	cr_assert_eq(host_control()->lost_codes, 1);
	expect_live(70, 7);
	host_unplant();
}

static uint64_t pool_bytes;

static void with_pools(struct pl_inline_config *config)
{
	config->pool_bytes = pool_bytes;
}

/* A block of a pool as pymalloc makes them, which nobody saw come. */
static uint64_t pool_block(unsigned char *memory, uint32_t size, uint32_t number)
{
	const uint32_t header[12] = {3, 0, 0, 0, 0, 0, 0, 0, 7, size / 16 - 1, 0, (uint32_t)pool_bytes - size};

	memcpy(memory, header, sizeof(header));
	return (uint64_t)memory + 48 + (uint64_t)size * number;
}

static struct host_totals older(uint32_t size_class, uint32_t line_site)
{
	struct host_totals none = {0};

	for (uint32_t site = PL_INLINE_SITE_FIRST; site < host_site_count(); site++)
		if (host_is_older(site) && site_row(site)->kind == PL_INLINE_KIND_OLDER + size_class &&
			(!line_site || (site_row(site)->frames == site_row(line_site)->frames &&
					       site_row(site)->count == site_row(line_site)->count)))
			return host_site(site);
	return none;
}

/* Frees of what was there before: beside the line that allocated at last, by size where the pool says it. */
static void check_older(uint64_t bytes)
{
	unsigned char *memory = aligned_alloc(16384, 32768);

	pool_bytes = bytes;
	memset(memory, 0, 32768);
	begin_adjusted(2, 0, PL_INLINE_GIL, with_pools);
	host_free(PL_INLINE_OBJ, pool_block(memory, 48, 1));
	cr_assert_eq(older(6, 0).allocated_count, 1);
	(void)allocate(PL_INLINE_OBJ, 0x50000000, 10);
	host_free(PL_INLINE_OBJ, pool_block(memory, 48, 2));
	host_free(PL_INLINE_OBJ, pool_block(memory, 48, 3));
	host_free(PL_INLINE_OBJ, pool_block(memory, 512, 3));
	cr_assert_eq(older(6, PL_INLINE_SITE_FIRST + 1).allocated_count, 2);
	cr_assert_eq(older(6, PL_INLINE_SITE_FIRST + 1).allocated_size, 96);
	cr_assert_eq(older(64, PL_INLINE_SITE_FIRST + 1).allocated_size, 512);
	/* Not the start of a block; no pool at all; beyond its first page. */
	cr_assert_eq(older(0, 0).allocated_count, 0);
	host_free(PL_INLINE_OBJ, pool_block(memory, 48, 1) + 16);
	memset(memory, 0, 48);
	host_free(PL_INLINE_OBJ, (uint64_t)memory + 96);
	host_free(PL_INLINE_OBJ, pool_block(memory, 64, 100));
	cr_assert_eq(older(0, 0).allocated_count, 3);
	cr_assert_eq(older(8, 0).allocated_count, 0);
	cr_assert_eq(host_control()->freed_unknown, 7);
	expect_live(10, 1);
	host_free(PL_INLINE_OBJ, 0x50000000);
	cr_assert_eq(host_control()->freed_unknown, 7, "of the recording itself");
	expect_live(0, 0);
	host_unplant();
	free(memory);
}

Test(recorder, frees_of_older_blocks)
{
	check_older(4096);
	check_older(16384);
}

/* The map of arenas as pymalloc has it, for one arena: all of the MiB that `memory` begins in. */
struct arena_map {
	struct {
		int32_t high, low;
	} leaf[1 << 14];
	uint64_t node[1 << 15], root[1 << 15];
};
static struct arena_map *arena_map;
static uint32_t node_bits, leaf_bits;

static void with_map(struct pl_inline_config *config)
{
	config->pool_bytes = 16384;
	config->arena_map = (uint64_t)arena_map->root;
	config->arena_node_bits = node_bits;
	config->arena_leaf_bits = leaf_bits;
	config->flags[PL_INLINE_OBJ * PL_INLINE_FUNCTIONS + PL_INLINE_FREE] = PL_INLINE_NATIVE_GLIBC;
}

static void enter_arena(uint64_t address)
{
	const uint64_t leaf = address >> 20, node = leaf >> leaf_bits;

	arena_map->root[node >> node_bits] = (uint64_t)arena_map->node;
	arena_map->node[node & ((1u << node_bits) - 1)] = (uint64_t)arena_map->leaf;
	arena_map->leaf[leaf & ((1u << leaf_bits) - 1)].high = -1;
}

/* Wherever in its pool a block lies, and where it is none of a pool's. */
static void check_map(uint32_t nodes, uint32_t leaves)
{
	static uint64_t chunk[4] __attribute__((aligned(16))) = {0, 1600 | 1};
	unsigned char *memory = aligned_alloc(1 << 20, 1 << 20);

	node_bits = nodes;
	leaf_bits = leaves;
	pool_bytes = 16384;
	arena_map = calloc(1, sizeof(*arena_map));
	memset(memory, 0, 1 << 20);
	enter_arena((uint64_t)memory);
	begin_adjusted(2, 0, PL_INLINE_GIL, with_map);
	host_free(PL_INLINE_OBJ, pool_block(memory, 48, 1));
	host_free(PL_INLINE_OBJ, pool_block(memory, 48, 300));
	host_free(PL_INLINE_OBJ, pool_block(memory + 16384 * 63, 512, 31));
	host_free(PL_INLINE_OBJ, (uint64_t)&chunk[2]);
	cr_assert_eq(older(6, 0).allocated_count, 2);
	cr_assert_eq(older(64, 0).allocated_size, 512);
	cr_assert_eq(older(pl_inline_older_class(1592), 0).allocated_size, 1592);
	cr_assert_eq(older(0, 0).allocated_count, 0);
	/* Of an allocator that nothing is known of. */
	host_free(PL_INLINE_MEM, (uint64_t)&chunk[2]);
	cr_assert_eq(older(0, 0).allocated_count, 1);
	/* What is no chunk's size. */
	chunk[1] = 7;
	host_free(PL_INLINE_OBJ, (uint64_t)&chunk[2]);
	cr_assert_eq(older(0, 0).allocated_count, 2);
	chunk[1] = 1600 | 1;
	/* An interpreter that has a map of its own may be the one that frees. */
	host_control()->mode = PL_INLINE_THREADS;
	host_free(PL_INLINE_OBJ, (uint64_t)&chunk[2]);
	cr_assert_eq(older(pl_inline_older_class(1592), 0).allocated_size, 1592);
	host_unplant();
	free(memory);
	free(arena_map);
}

Test(recorder, frees_of_older_blocks_by_the_map_of_arenas)
{
	check_map(15, 14);
	check_map(10, 8);
}

/* realloc() takes one away, and what it gives is the line's. */
Test(recorder, older_blocks_that_are_moved)
{
	unsigned char *memory = aligned_alloc(16384, 32768);

	memset(memory, 0, 32768);
	pool_bytes = 16384;
	for (int i = 0; i < 3; i++) {
		begin_adjusted(2, i == 2 ? 1 << 20 : 0, i == 0 ? PL_INLINE_GIL : i == 1 ? PL_INLINE_THREADS : PL_INLINE_SAMPLE, with_pools);
		host_next = 0x50000000;
		cr_assert_eq(host_realloc(PL_INLINE_OBJ, pool_block(memory, 48, 1), 100), 0x50000000);
		cr_assert_eq(host_control()->freed_unknown, i < 2);
		if (i < 2) {
			expect_live(100, 1);
			cr_assert_eq(older(6, PL_INLINE_SITE_FIRST).allocated_size, 48);
		}
		/* One that stays where it was. */
		host_next = 0;
		cr_assert_eq(host_realloc(PL_INLINE_OBJ, pool_block(memory, 48, 2), 100), 0);
		cr_assert_eq(host_control()->freed_unknown, i < 2);
		host_unplant();
	}
	free(memory);
}

Test(recorder, classes_of_sizes)
{
	cr_assert_eq(pl_inline_older_class(0), 0);
	cr_assert_eq(pl_inline_older_class(1), 1);
	cr_assert_eq(pl_inline_older_class(512), 64);
	cr_assert_eq(pl_inline_older_class(513), 65);
	cr_assert_eq(pl_inline_older_class(1023), 65);
	cr_assert_eq(pl_inline_older_class(1024), 66);
	cr_assert_lt(pl_inline_older_class(UINT64_MAX), PL_INLINE_OLDER_CLASSES);
}

Test(recorder, off_only_passes_through)
{
	begin(1);
	host_control()->mode = PL_INLINE_OFF;
	host_original_calls = 0;
	(void)allocate(PL_INLINE_OBJ, 0x50000000, 10);
	host_free(PL_INLINE_OBJ, 0x50000000);
	(void)allocate(PL_INLINE_RAW, 0x50000000, 10);
	cr_assert_eq(host_original_calls, 3);
	expect_live(0, 0);
	cr_assert_eq(host_control()->freed_unknown, 0);
	host_unplant();
}

Test(recorder, a_forked_child_records_nothing)
{
	int status;
	pid_t child;

	begin(4);
	(void)allocate(PL_INLINE_OBJ, 0x50000000, 10);
	child = fork();
	if (child == 0) {
		host_original_calls = 0;
		host_free(PL_INLINE_OBJ, 0x50000000);
		(void)allocate(PL_INLINE_OBJ, 0x50000010, 10);
		_exit(host_original_calls == 2 && host_control()->next_site == 0 &&
					!host_site(PL_INLINE_SITE_FIRST).freed_count
				? 0
				: 1);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert_eq(status, 0);
	expect_live(10, 1);
	host_unplant();
}

/* Threads without a GIL, all at the same few sites. The running state is thread-local, as in 3.13t. */
static __thread struct host_thread *tls_current;

static void use_tls(struct pl_inline_config *config)
{
	config->thread_current = 0;
	config->thread_tls = (int64_t)((uint64_t)&tls_current - self_pointer());
	config->free_threaded = 1;
}

/* Where glibc has a thread's vector, from the thread pointer on: after it comes struct pthread, or (aarch64) before it. */
#ifdef __x86_64__
enum { VECTOR_AT = 8 };
#else
enum { VECTOR_AT = 0 };
#endif

/* The same word by way of the thread's vector: this program is module 1. */
static uint64_t missing_modules, newer;

static void use_block(struct pl_inline_config *config)
{
	const uint64_t *vector = *(const uint64_t **)(self_pointer() + VECTOR_AT);

	use_tls(config);
	config->thread_module = 1 + missing_modules;
	config->thread_stride = 16;
	config->thread_room = -16;
	config->thread_generation = vector[0] + newer;
	config->thread_tls = (int64_t)((uint64_t)&tls_current - vector[2]);
}

static uint16_t frames_of_last(void)
{
	return ((const struct pl_inline_site *)host_config->sites + host_site_count() - 1)->count;
}

Test(recorder, state_in_a_block)
{
	struct host_thread thread = {&main_interpreter, self_pointer(), &outer};

	begin_adjusted(1, 0, PL_INLINE_THREADS, use_block);
	tls_current = &thread;
	(void)allocate(PL_INLINE_OBJ, 0x10000000, 10);
	cr_assert_eq(frames_of_last(), 1);
	host_unplant();
}

/* The vector is too short: this thread has no block yet. */
Test(recorder, no_block_yet)
{
	struct host_thread thread = {&main_interpreter, self_pointer(), &outer};

	missing_modules = 1 << 20;
	begin_adjusted(1, 0, PL_INLINE_THREADS, use_block);
	tls_current = &thread;
	(void)allocate(PL_INLINE_OBJ, 0x10000000, 10);
	cr_assert_eq(frames_of_last(), 0);
	host_unplant();
}

/* It is from before the library was loaded: the block would be another's. Who is attached has one of its own. */
Test(recorder, old_vector)
{
	struct host_thread thread = {&main_interpreter, self_pointer(), &outer};

	newer = 1;
	begin_adjusted(1, 0, PL_INLINE_THREADS, use_block);
	tls_current = &thread;
	(void)allocate(PL_INLINE_RAW, 0x10000000, 10);
	cr_assert_eq(frames_of_last(), 0);
	(void)allocate(PL_INLINE_OBJ, 0x10001000, 20);
	cr_assert_eq(frames_of_last(), 1);
	host_unplant();
}

enum { WORKERS = 4, ROUNDS = 200000 };

static void *work(void *argument)
{
	uint64_t base = 0x100000000 + (uint64_t)argument * 0x1000000;
	struct host_frame frame = host_frame(&outer, code_b, 0);
	struct host_thread thread = {&main_interpreter, self_pointer(), &frame};

	tls_current = &thread;
	for (unsigned int i = 0; i < ROUNDS; i++) {
		frame.instruction = (uint64_t)code_b->bytecode + 2 * (i % 4);
		(void)allocate((int)(i % 3), base + 16 * (i % 1000), 16);
		host_free((int)(i % 2), base + 16 * (i % 1000));
	}
	(void)allocate(PL_INLINE_OBJ, base, 16);
	return NULL;
}

Test(recorder, threads_without_a_lock_lose_nothing)
{
	pthread_t threads[WORKERS];
	struct host_totals sum;

	begin_adjusted(4, 0, PL_INLINE_THREADS, use_tls);
	for (uint64_t i = 0; i < WORKERS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, work, (void *)i), 0);
	for (int i = 0; i < WORKERS; i++)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	sum = host_sum();
	cr_assert_eq(sum.allocated_count, WORKERS * (ROUNDS + 1));
	cr_assert_eq(sum.freed_count, WORKERS * ROUNDS);
	expect_live(16 * WORKERS, WORKERS);
	cr_assert_eq(host_control()->lost_events, 0);
	cr_assert_eq(host_control()->freed_unknown, 0);
	/* Threads that met a new trace at the same moment may have left rows that nothing points to. */
	cr_assert_leq(host_control()->next_site, 4 * WORKERS);
	host_unplant();
}

/* The raw domain without the GIL, beside a thread that has it. */
static void *work_raw(void *argument)
{
	uint64_t base = 0x200000000;

	for (unsigned int i = 0; i < ROUNDS; i++) {
		(void)allocate(PL_INLINE_RAW, base + 16 * (i % 1000), 16);
		host_free(PL_INLINE_RAW, base + 16 * (i % 1000));
	}
	return NULL;
}

Test(recorder, raw_allocations_need_no_gil)
{
	pthread_t thread;
	struct host_totals unknown;

	begin(4);
	cr_assert_eq(pthread_create(&thread, NULL, work_raw, NULL), 0);
	for (unsigned int i = 0; i < ROUNDS; i++) {
		(void)allocate(PL_INLINE_OBJ, 0x50000000, 16);
		host_free(PL_INLINE_OBJ, 0x50000000);
	}
	cr_assert_eq(pthread_join(thread, NULL), 0);
	unknown = host_site(PL_INLINE_SITE_UNKNOWN);
	cr_assert_eq(unknown.allocated_count, ROUNDS, "%lu", unknown.allocated_count);
	cr_assert_eq(unknown.freed_count, ROUNDS);
	cr_assert_eq(host_site(PL_INLINE_SITE_FIRST).allocated_count, ROUNDS);
	/* With the GIL the raw domain has frames. */
	(void)allocate(PL_INLINE_RAW, 0x60000000, 99);
	cr_assert_eq(host_site(PL_INLINE_SITE_FIRST).allocated_size, 16 * ROUNDS + 99);
	host_unplant();
}

static void with_gil(struct pl_inline_config *config)
{
	config->gil = 77;
	config->layout.interpreter_gil = offsetof(struct host_interpreter, gil);
}

Test(recorder, an_interpreter_with_its_own_gil_ends_the_mode_of_one)
{
	struct host_interpreter sharing = {77}, alone = {78};

	main_interpreter.gil = 77;
	begin_adjusted(2, 0, PL_INLINE_GIL, with_gil);
	(void)allocate(PL_INLINE_OBJ, 0x50000000, 1);
	main_thread.interpreter = &sharing;
	(void)allocate(PL_INLINE_OBJ, 0x50000010, 1);
	cr_assert_eq(host_control()->mode, PL_INLINE_GIL);
	main_thread.interpreter = &alone;
	(void)allocate(PL_INLINE_OBJ, 0x50000020, 1);
	cr_assert_eq(host_control()->mode, PL_INLINE_THREADS);
	host_free(PL_INLINE_OBJ, 0x50000000);
	host_free(PL_INLINE_OBJ, 0x50000020);
	expect_live(1, 1);
	host_unplant();
}

/* Sums of the estimates over all rows, against what was allocated. */
static void check_sample(uint32_t mode, void (*adjust)(struct pl_inline_config *))
{
	enum { RATE = 4096, EVENTS = 400000 };
	static const uint64_t sizes[] = {16, 30, 48, 400, 1500, 5000, 70000};
	double size_true = 0, size_spread = 0, count_true = 0, count_spread = 0; /* variances that theory says */
	double size = 0, size_variance = 0, count = 0, count_variance = 0;
	uint64_t samples = 0;

	begin_adjusted(2, RATE, mode, adjust);
	tls_current = &main_thread;
	for (unsigned int i = 0; i < EVENTS; i++) {
		uint64_t bytes = sizes[(i * 7 + i / 7) % 7] + i % 5;
		double b = (double)bytes, p = -expm1(-b / RATE);

		(void)allocate(PL_INLINE_OBJ, 0x50000000 + (uint64_t)i * 128, bytes);
		/* Every other one dies again. */
		if (i % 2) {
			host_free(PL_INLINE_OBJ, 0x50000000 + (uint64_t)i * 128);
			continue;
		}
		count_true++;
		count_spread += (1 - p) / p;
		size_true += b;
		size_spread += b * b * (1 - p) / p;
	}
	for (uint32_t site = 0; site < host_site_count(); site++) {
		struct pl_inline_estimate estimate;

		pl_inline_estimate((const struct pl_inline_totals *)host_config->totals + site, RATE, &estimate);
		count += (double)(estimate.totals.allocated_count - estimate.totals.freed_count);
		count_variance += estimate.live_count_variance;
		size += (double)(estimate.totals.allocated_size - estimate.totals.freed_size);
		size_variance += estimate.live_size_variance;
		samples += host_site(site).allocated_count;
	}
	cr_assert_lt(samples, EVENTS * 5 / 10); /* two sevenths are so large that nearly all are taken */
	cr_assert_lt(fabs(count - count_true), 5 * sqrt(count_spread), "%f blocks ± %f", count, sqrt(count_spread));
	cr_assert_lt(fabs(size - size_true), 5 * sqrt(size_spread), "%f bytes ± %f, not %f", size, sqrt(size_spread),
		size_true);
	cr_assert(count_variance > count_spread / 2 && count_variance < count_spread * 2);
	cr_assert(size_variance > size_spread / 2 && size_variance < size_spread * 2);
	host_unplant();
}

Test(recorder, samples_are_unbiased)
{
	check_sample(PL_INLINE_SAMPLE, NULL);
	check_sample(PL_INLINE_THREADS, use_tls);
}
