/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/engine/inline_check.h"
#include "../../src/engine/inline_read.h"
#include "../../src/engine/inline_rounding.h"
#include "trace_frames.h"

/*
 * The recorder's tables in memory, as the reader finds them in a tracee: at addresses that are not
 * pointers of ours, readable for exactly as long as they are, and changing while they are read.
 */

enum { SITES = 1000, FRAMES = 4000, CODES = 200, ARENA = 1 << 19 };
enum { CONTROL_AT = 0x10000, TOTALS_AT = 0x1000000, SITES_AT = 0x2000000, FRAMES_AT = 0x3000000, CODES_AT = 0x4000000,
	ARENA_AT = 0x5000000 };
#define REAL_AT UINT64_C(0x707a00000000)
enum { MINOR = 11 };

struct tracee {
	struct pl_inline_totals totals[SITES];
	struct pl_inline_control control;
	struct pl_inline_site sites[SITES];
	uint64_t frames[FRAMES];
	struct pl_inline_code codes[CODES];
	uint8_t arena[ARENA];
	void (*after_read)(struct tracee *tracee, uint64_t address);
	int fail;             /* this is the answer to reads of fail_at and behind */
	uint64_t fail_at;
	int reads;
};

static struct tracee *tracee;
static struct pl_inline_reader reader;

static int read_memory(void *context, uint64_t address, void *buffer, size_t length)
{
	struct tracee *self = context;
	const struct {
		uint64_t address;
		const void *bytes;
		size_t size;
	} tables[] = {
		{CONTROL_AT, &self->control, sizeof(self->control)},
		{TOTALS_AT, self->totals, sizeof(self->totals)},
		{SITES_AT, self->sites, sizeof(self->sites)},
		{FRAMES_AT, self->frames, sizeof(self->frames)},
		{CODES_AT, self->codes, sizeof(self->codes)},
		{ARENA_AT, self->arena, sizeof(self->arena)},
	};

	self->reads++;
	if (self->fail && address >= self->fail_at)
		return self->fail;
	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
		if (address < tables[i].address || address - tables[i].address > tables[i].size)
			continue;
		if (length > tables[i].size - (address - tables[i].address))
			return -EFAULT;
		memcpy(buffer, (const uint8_t *)tables[i].bytes + (address - tables[i].address), length);
		if (self->after_read)
			self->after_read(self, address);
		return 0;
	}
	return -EFAULT;
}

/* Addresses below 1000 are of one library, the others of nothing that is mapped. */
static int find_caller(void *context, uint64_t address, struct pl_native_caller *ret)
{
	(void)context;
	*ret = (struct pl_native_caller){.module = pl_sites_string(reader.sites, address < 1000 ? "/lib/native.so" : "<unknown>"),
		.symbol = address < 1000 ? pl_sites_string(reader.sites, "make") : NULL,
		.offset = address};
	return ret->module ? 0 : -ENOMEM;
}

static struct pl_inline_config good_config(void)
{
	return (struct pl_inline_config){
		.frame_limit = 16,
		.control = CONTROL_AT,
		.totals = TOTALS_AT,
		.sites = SITES_AT,
		.frames = FRAMES_AT,
		.codes = CODES_AT,
		.arena = ARENA_AT,
		.site_limit = SITES,
		.frames_limit = FRAMES,
		.code_limit = CODES,
		.arena_size = ARENA,
	};
}

static void set_up(void)
{
	tracee = aligned_alloc(64, (sizeof(*tracee) + 63) & ~(size_t)63);
	cr_assert_not_null(tracee);
	memset(tracee, 0, sizeof(*tracee));
	reader = (struct pl_inline_reader){
		.read = read_memory,
		.context = tracee,
		.find_caller = find_caller,
		.minor = MINOR,
		.config = good_config(),
		.sites = pl_sites_new(),
	};
	cr_assert_not_null(reader.sites);
	cr_assert_eq(pl_inline_reader_init(&reader), 0);
}

static void tear_down(void)
{
	pl_inline_reader_free(&reader);
	pl_sites_free(reader.sites);
	free(tracee);
}

TestSuite(inline_read, .init = set_up, .fini = tear_down, .timeout = 60);

/* A line table of one entry, for all of the code: the line is first_line itself. */
static const uint8_t whole_code[] = {0x80 | 10 << 3 | 7, 0x00, 0x00};

static uint64_t put_bytes(const void *bytes, size_t size)
{
	uint64_t at = tracee->control.next_arena;

	memcpy(tracee->arena + at, bytes, size);
	tracee->control.next_arena += size;
	return at;
}

/* Returns the number of the code. */
static uint32_t add_code_of_kind(const void *filename, size_t filename_bytes, uint8_t filename_kind, const void *name,
	size_t name_bytes, uint8_t name_kind, int first_line)
{
	uint32_t number = PL_INLINE_CODE_FIRST + (uint32_t)tracee->control.next_code++;
	struct pl_inline_code *code = &tracee->codes[number];

	code->data = put_bytes(filename, filename_bytes);
	(void)put_bytes(name, name_bytes);
	(void)put_bytes(whole_code, sizeof(whole_code));
	code->filename_bytes = (uint32_t)filename_bytes;
	code->name_bytes = (uint32_t)name_bytes;
	code->lines_bytes = sizeof(whole_code);
	code->first_line = first_line;
	code->filename_kind = filename_kind;
	code->name_kind = name_kind;
	code->hash = 1000 + number;
	return number;
}

static uint32_t add_code(const char *filename, const char *name, int first_line)
{
	return add_code_of_kind(filename, strlen(filename), 1, name, strlen(name), 1, first_line);
}

/* A site with one frame in each of these codes; returns its number. */
static uint32_t add_site(const uint32_t *codes, uint16_t count)
{
	uint32_t number = PL_INLINE_SITE_FIRST + (uint32_t)tracee->control.next_site++;
	struct pl_inline_site *site = &tracee->sites[number];

	site->frames = (uint32_t)tracee->control.next_frame;
	site->count = count;
	for (uint16_t i = 0; i < count; i++)
		tracee->frames[tracee->control.next_frame++] = (uint64_t)codes[i] << 32 | 4;
	site->hash = 7000 + number;
	return number;
}

static void allocate(uint32_t site, uint64_t count, uint64_t size)
{
	tracee->totals[site].allocated_count += count;
	tracee->totals[site].allocated_size += size;
}

static void release(uint32_t site, uint64_t count, uint64_t size)
{
	tracee->totals[site].freed_count += count;
	tracee->totals[site].freed_size += size;
}

/* The totals of the site with this innermost frame; NULL: there is none. */
static const struct pl_totals *totals_of(const char *filename, int line)
{
	for (uint32_t i = 0; i < pl_sites_count(reader.sites); i++) {
		size_t count;
		const struct pl_frame *frames = trace_frames(reader.sites, i, &count, NULL);

		if (strcmp(frames[0].filename, filename) == 0 && frames[0].line == line)
			return pl_sites_totals(reader.sites, i);
	}
	return NULL;
}

static void expect_totals(const char *filename, int line, struct pl_totals expected)
{
	const struct pl_totals *found = totals_of(filename, line);

	cr_assert_not_null(found, "%s:%d", filename, line);
	cr_assert_eq(found->allocated_count, expected.allocated_count, "%s", filename);
	cr_assert_eq(found->allocated_size, expected.allocated_size, "%s", filename);
	cr_assert_eq(found->freed_count, expected.freed_count, "%s", filename);
	cr_assert_eq(found->freed_size, expected.freed_size, "%s", filename);
}

/* What holds whatever the tables say. */
static void expect_nothing_negative(void)
{
	for (uint32_t i = 0; i < pl_sites_count(reader.sites); i++) {
		const struct pl_totals *totals = pl_sites_totals(reader.sites, i);

		cr_assert_leq(totals->freed_size, totals->allocated_size, "site %u", i);
		cr_assert_leq(totals->freed_count, totals->allocated_count, "site %u", i);
	}
}

Test(inline_read, empty)
{
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	expect_nothing_negative();
}

static struct pl_inline_site whole_site;
static struct pl_inline_code whole_row;
static uint32_t late_site, late_code;

/* What a copy had loaded before it loaded the hash was from before. */
static void come_late(struct tracee *self, uint64_t address)
{
	if (address >= CODES_AT && address < ARENA_AT)
		self->codes[late_code] = whole_row;
	else if (address >= SITES_AT && address < FRAMES_AT)
		self->sites[late_site] = whole_site;
}

Test(inline_read, words_of_a_row_are_loaded_in_any_order)
{
	late_code = add_code("/app/late.py", "late", 10);
	late_site = add_site(&late_code, 1);
	whole_site = tracee->sites[late_site];
	whole_row = tracee->codes[late_code];
	tracee->sites[late_site] = (struct pl_inline_site){.hash = whole_site.hash};
	tracee->codes[late_code] = (struct pl_inline_code){.hash = whole_row.hash};
	tracee->after_read = come_late;
	allocate(late_site, 3, 300);
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	expect_totals("/app/late.py", 10, (struct pl_totals){300, 3, 0, 0});
}

Test(inline_read, sites_and_their_frames)
{
	uint32_t inner = add_code("/app/inner.py", "inner", 10), outer = add_code("/app/outer.py", "outer", 20);
	uint32_t both[] = {inner, outer}, site = add_site(both, 2);
	const struct pl_frame *frames;
	size_t count;
	bool more;

	tracee->sites[site].more = 1;
	allocate(site, 3, 300);
	release(site, 1, 100);
	allocate(PL_INLINE_SITE_UNKNOWN, 5, 50);
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	expect_totals("/app/inner.py", 10, (struct pl_totals){300, 3, 100, 1});
	expect_totals("<unknown>", 0, (struct pl_totals){50, 5, 0, 0});
	frames = trace_frames(reader.sites, reader.local[site], &count, &more);
	cr_assert_eq(count, 2);
	cr_assert(more);
	cr_assert_str_eq(frames[0].function, "inner");
	cr_assert_str_eq(frames[1].filename, "/app/outer.py");
	cr_assert_str_eq(frames[1].function, "outer");
	cr_assert_eq(frames[1].line, 20);

	/* The second pass adds what came since, and the sites that came. */
	allocate(site, 1, 7);
	allocate(add_site(&outer, 1), 1, 64);
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	expect_totals("/app/inner.py", 10, (struct pl_totals){307, 4, 100, 1});
	expect_totals("/app/outer.py", 20, (struct pl_totals){64, 1, 0, 0});
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	expect_totals("/app/inner.py", 10, (struct pl_totals){307, 4, 100, 1});
}

/* Instructions of one line are several of the recorder's sites and one of ours; the fields of all who add to them add up. */
Test(inline_read, sites_of_one_line)
{
	uint32_t code = add_code("/app/a.py", "f", 10), first = add_site(&code, 1), second = add_site(&code, 1);

	tracee->frames[tracee->sites[second].frames] += 2;
	allocate(first, 1, 10);
	allocate(second, 2, 20);
	tracee->totals[second].shared_allocated_count = 4;
	tracee->totals[second].shared_allocated_size = 40;
	tracee->totals[second].shared_freed_count = 1;
	tracee->totals[second].shared_freed_size = 5;
	tracee->totals[second].first_allocated_count = 3;
	tracee->totals[second].first_allocated_size = 30;
	tracee->totals[second].first_freed_count = 2;
	tracee->totals[second].first_freed_size = 6;
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	cr_assert_eq(reader.local[first], reader.local[second]);
	expect_totals("/app/a.py", 10, (struct pl_totals){100, 10, 11, 3});
}

Test(inline_read, not_ready_yet)
{
	uint32_t code = add_code("/app/late.py", "late", 10), other = add_code("/app/early.py", "early", 20);
	uint32_t late = add_site(&code, 1), later_site = add_site(&other, 1), early = add_site(&other, 1);
	uint64_t hash = tracee->sites[later_site].hash;

	tracee->codes[code].hash = 0;
	tracee->sites[later_site].hash = 0;
	allocate(late, 1, 11);
	allocate(early, 2, 22);
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	cr_assert_null(totals_of("/app/late.py", 10), "the code is not complete");
	expect_totals("/app/early.py", 20, (struct pl_totals){22, 2, 0, 0});
	tracee->codes[code].hash = 1;
	tracee->sites[later_site].hash = hash;
	allocate(later_site, 1, 1);
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	expect_totals("/app/late.py", 10, (struct pl_totals){11, 1, 0, 0});
	expect_totals("/app/early.py", 20, (struct pl_totals){23, 3, 0, 0});
	cr_assert_eq(reader.known, PL_INLINE_SITE_FIRST + 3, "no gap is left");
}

Test(inline_read, many_sites)
{
	uint32_t numbers[SITES];
	uint32_t count = 0;

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 60; i++) {
			char name[32];
			uint32_t code;

			(void)snprintf(name, sizeof(name), "/app/%d.py", round * 60 + i);
			code = add_code(name, "f", 1);
			numbers[count] = add_site(&code, 1);
			allocate(numbers[count++], 1, 100);
		}
		cr_assert_eq(pl_inline_reader_pass(&reader), 0);
		cr_assert_eq(reader.known, PL_INLINE_SITE_FIRST + count);
	}
	for (uint32_t i = 0; i < count; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "/app/%u.py", i);
		expect_totals(name, 1, (struct pl_totals){100, 1, 0, 0});
	}
}

Test(inline_read, strings_of_every_kind)
{
	static const uint16_t two[] = {'/', 0x417, 0x43e, '.', 'p', 'y'};
	static const uint32_t four[] = {'/', 0x1f40d, '.', 'p', 'y'};
	static const uint16_t surrogate[] = {'a', 0xd83d, 'b'};
	static const uint32_t beyond[] = {'a', 0x110000, UINT32_MAX, 'b'};
	static const struct {
		const void *bytes;
		size_t size;
		uint8_t kind;
		const char *expected;
	} cases[] = {
		{"/a.py", 5, 1, "/a.py"},
		{"/\xe9t\xe9.py", 7, 1, "/\u00e9t\u00e9.py"},
		{two, sizeof(two), 2, "/\u0417\u043e.py"},
		{four, sizeof(four), 4, "/\U0001f40d.py"},
		{surrogate, sizeof(surrogate), 2, "a\ufffdb"},
		{beyond, sizeof(beyond), 4, "a\ufffd\ufffdb"},
		{"a\0b", 3, 1, "a\ufffdb"},
		{"", 0, 1, "<unknown>"},
		{"what", 4, 0, "<unknown>"},
		{two, sizeof(two) - 1, 2, "/\u0417\u043e.p"},
		{four, 3, 4, "<unknown>"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint32_t code = add_code_of_kind(cases[i].bytes, cases[i].size, cases[i].kind, cases[i].bytes,
			cases[i].size, cases[i].kind, 10);
		uint32_t site = add_site(&code, 1);
		const struct pl_frame *frames;
		size_t count;

		cr_assert_eq(pl_inline_reader_pass(&reader), 0);
		frames = trace_frames(reader.sites, reader.local[site], &count, NULL);
		cr_expect_str_eq(frames[0].filename, cases[i].expected);
		cr_expect_str_eq(frames[0].function, cases[i].expected);
		cr_expect_eq(frames[0].line, 10);
	}
}

Test(inline_read, tables_that_are_full)
{
	uint32_t lost = PL_INLINE_CODE_LOST, none = PL_INLINE_CODE_NONE;
	const struct pl_frame *frames;
	uint32_t site = add_site(&lost, 1);
	size_t count;

	allocate(PL_INLINE_SITE_LOST, 1, 1000);
	allocate(site, 2, 20);
	allocate(add_site(&none, 1), 3, 30);
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	cr_assert_null(totals_of("<lost>", 0), "nothing was lost yet");
	tracee->control.lost_sites = 1;
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	expect_totals("<lost>", 0, (struct pl_totals){1000, 1, 0, 0});
	frames = trace_frames(reader.sites, reader.local[site], &count, NULL);
	cr_assert_str_eq(frames[0].filename, "<unknown>");
	/* Both have one frame that nothing is known of. */
	cr_assert_eq(pl_sites_totals(reader.sites, reader.local[site])->allocated_count, 5);
}

/* -- totals that change while they are read --------------------------------------------------------- */

static uint32_t busy_site;

/* Each copy of the row differs from the one before; what is read is right at one instant. */
static void one_event_more(struct tracee *self, uint64_t address)
{
	if (address < TOTALS_AT || address >= TOTALS_AT + sizeof(self->totals))
		return;
	self->totals[busy_site].allocated_count++;
	self->totals[busy_site].allocated_size += 8;
}

Test(inline_read, row_that_never_rests)
{
	uint32_t code = add_code("/app/busy.py", "f", 10);
	const struct pl_totals *totals;

	busy_site = add_site(&code, 1);
	tracee->after_read = one_event_more;
	for (int i = 0; i < 5; i++) {
		cr_assert_eq(pl_inline_reader_pass(&reader), 0);
		totals = totals_of("/app/busy.py", 10);
		cr_assert_gt(totals->allocated_count, (uint64_t)i, "it goes up with each pass");
		cr_assert_eq(totals->allocated_size, 8 * totals->allocated_count);
		cr_assert_lt(tracee->reads, 20 * (i + 1), "the tries are bounded");
		expect_nothing_negative();
	}
}

/* A torn row, with the free of a block seen and its allocation not: as it was the last time. */
static void tear(struct tracee *self, uint64_t address)
{
	if (address < TOTALS_AT || address >= TOTALS_AT + sizeof(self->totals))
		return;
	self->totals[busy_site].freed_count = 10 + (uint64_t)self->reads;
	self->totals[busy_site].freed_size = 1000;
}

Test(inline_read, row_that_makes_no_sense)
{
	uint32_t code = add_code("/app/torn.py", "f", 10);

	busy_site = add_site(&code, 1);
	allocate(busy_site, 3, 30);
	release(busy_site, 1, 10);
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	expect_totals("/app/torn.py", 10, (struct pl_totals){30, 3, 10, 1});
	tracee->after_read = tear;
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	expect_totals("/app/torn.py", 10, (struct pl_totals){30, 3, 10, 1});
	tracee->after_read = NULL;
	tracee->totals[busy_site] = (struct pl_inline_totals){.allocated_count = 4, .allocated_size = 40, .freed_count = 2,
		.freed_size = 20};
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	expect_totals("/app/torn.py", 10, (struct pl_totals){40, 4, 20, 2});
}

/* Two rows of one line, one of them of samples: each counts by its own weight, and each window by what it grew. */
Test(inline_read, a_row_of_samples_beside_one_that_is_exact)
{
	uint32_t code = add_code("/app/both.py", "f", 10), exact = add_site(&code, 1), sampled = add_site(&code, 1);

	allocate(exact, 3, 30);
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	expect_totals("/app/both.py", 10, (struct pl_totals){30, 3, 0, 0});
	tracee->totals[sampled].sampling = 20;
	/* 2^20 bytes are one in 1 - 1/e. */
	tracee->totals[sampled].allocated_count = 2;
	tracee->totals[sampled].allocated_size = UINT64_C(2) << 20;
	tracee->totals[exact].freed_count = 1;
	tracee->totals[exact].freed_size = 10;
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	expect_totals("/app/both.py", 10, (struct pl_totals){30 + 3317646, 3 + 3, 10, 1});
	tracee->totals[sampled].freed_count = 2;
	tracee->totals[sampled].freed_size = UINT64_C(2) << 20;
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	expect_totals("/app/both.py", 10, (struct pl_totals){30 + 3317646, 3 + 3, 10 + 3317646, 1 + 3});
}

Test(inline_read, totals_that_shrink_or_are_beyond_all_measure)
{
	static const struct pl_inline_totals wrong[] = {
		{.allocated_count = 2, .allocated_size = 30},
		{.allocated_count = 3, .allocated_size = 29},
		{.allocated_count = 3, .allocated_size = 30, .freed_count = 4},
		{.allocated_count = 3, .allocated_size = 30, .shared_freed_size = 31},
		{.allocated_count = 3, .allocated_size = 30, .first_freed_count = 1ULL << 56},
		{.allocated_count = UINT64_MAX, .allocated_size = UINT64_MAX},
		{.allocated_count = 3, .allocated_size = 30, .sampling = 12},
		{.allocated_count = 1ULL << 63, .shared_allocated_count = 1ULL << 63, .allocated_size = 100},
		{.allocated_count = 1ULL << 63, .shared_allocated_count = (1ULL << 63) + 100, .allocated_size = 100},
	};
	uint32_t code = add_code("/app/wild.py", "f", 10), site = add_site(&code, 1);

	allocate(site, 3, 30);
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		tracee->totals[site] = wrong[i];
		cr_assert_eq(pl_inline_reader_pass(&reader), 0);
		expect_totals("/app/wild.py", 10, (struct pl_totals){30, 3, 0, 0});
	}
}

/* -- what a tracee gone wild may hold ----------------------------------------------------------------- */

/* The config of a probe that was planted in earnest, as it is found there. */
static struct pl_inline_config real_config(uint64_t *ret_size)
{
	static struct pl_python python;
	const struct pl_inline_options options = {.frames = 16};
	struct pl_inline_config config;

	*ret_size = pl_inline_data_size(&options);
	pl_inline_configure(&options, &python, REAL_AT, &config);
	return config;
}

#define MEMBER(name) offsetof(struct pl_inline_config, name)

Test(inline_read, config_as_a_whole)
{
	static const size_t addresses[] = {MEMBER(control), MEMBER(slots), MEMBER(directory), MEMBER(pool), MEMBER(odd),
		MEMBER(totals), MEMBER(sites), MEMBER(index), MEMBER(frames), MEMBER(codes), MEMBER(code_index),
		MEMBER(code_map), MEMBER(arena), MEMBER(stacks), MEMBER(bounds), MEMBER(skips), MEMBER(reading),
		MEMBER(data_start)};
	static const size_t counts[] = {MEMBER(slot_count), MEMBER(slot_stride), MEMBER(chunk_count), MEMBER(odd_mask),
		MEMBER(site_limit), MEMBER(index_mask), MEMBER(frames_limit), MEMBER(code_limit), MEMBER(code_index_mask),
		MEMBER(code_map_mask), MEMBER(arena_size), MEMBER(data_size), MEMBER(frame_limit)};
	uint64_t size;
	const struct pl_inline_config right = real_config(&size);

	cr_assert_eq(inline_config_check(&right, REAL_AT, size), 0);
	/* What is mapped there is less. */
	cr_assert_eq(inline_config_check(&right, REAL_AT, size - 1), -EBADMSG);
	cr_assert_eq(inline_config_check(&right, REAL_AT, 0), -EBADMSG);
	cr_assert_eq(inline_config_check(&right, REAL_AT + 4096, size), -EBADMSG);
	for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
		const uint64_t wrong[] = {0, REAL_AT - 4096, REAL_AT + size, REAL_AT + size - 1, UINT64_MAX, UINT64_MAX - 4095,
			1ULL << 63, REAL_AT + 1};

		for (size_t j = 0; j < sizeof(wrong) / sizeof(wrong[0]); j++) {
			struct pl_inline_config config = right;

			*(uint64_t *)((char *)&config + addresses[i]) = wrong[j];
			cr_expect_eq(inline_config_check(&config, REAL_AT, size), -EBADMSG, "address %zu, %zu", i, j);
		}
	}
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		static const uint64_t wrong[] = {UINT64_MAX, UINT64_MAX / 2, 1ULL << 63, 1ULL << 60, 1ULL << 40, UINT64_MAX - 1};

		for (size_t j = 0; j < sizeof(wrong) / sizeof(wrong[0]); j++) {
			struct pl_inline_config config = right;

			*(uint64_t *)((char *)&config + counts[i]) = wrong[j];
			cr_expect_eq(inline_config_check(&config, REAL_AT, size), -EBADMSG, "count %zu, %zu", i, j);
		}
	}
}

Test(inline_read, smallest_counts_of_the_config)
{
	uint64_t size;
	struct pl_inline_config config = real_config(&size);

	config.site_limit = PL_INLINE_SITE_FIRST - 1;
	cr_assert_eq(inline_config_check(&config, REAL_AT, size), -EBADMSG);
	config = real_config(&size);
	config.frame_limit = 0;
	cr_assert_eq(inline_config_check(&config, REAL_AT, size), -EBADMSG);
	config = real_config(&size);
	config.planted_monotonic = UINT64_MAX;
	cr_assert_eq(inline_config_check(&config, REAL_AT, size), -EBADMSG);
}

Test(inline_read, cursor_beyond_everything)
{
	static const uint64_t cursors[] = {SITES, SITES - 3, SITES - 2, UINT32_MAX, UINT64_MAX, UINT64_MAX - 1, UINT64_MAX - 2,
		UINT64_MAX - 3, 1ULL << 63};

	for (size_t i = 0; i < sizeof(cursors) / sizeof(cursors[0]); i++) {
		tracee->control.next_site = cursors[i];
		cr_assert_eq(pl_inline_reader_pass(&reader), 0);
		cr_assert_leq(reader.known, SITES);
	}
	expect_nothing_negative();
}

Test(inline_read, first_cursor_beyond_everything)
{
	tracee->control.next_site = UINT64_MAX - 2;
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
}

/* A native row: the address that it was called from, then the frames. */
static uint32_t add_native_site(uint64_t caller, const uint32_t *codes, uint16_t count)
{
	tracee->frames[tracee->control.next_frame++] = caller;

	uint32_t number = add_site(codes, count);

	tracee->sites[number].kind = 1;
	return number;
}

Test(inline_read, native_sites)
{
	uint32_t code = add_code("/app/native.py", "f", 10), number, count = 0;
	uint32_t python = add_site(&code, 1), one = add_native_site(10, &code, 1), other = add_native_site(20, &code, 1);
	uint32_t alone = add_native_site(30, NULL, 0), gone = add_native_site(5000, NULL, 0);

	allocate(python, 1, 1);
	allocate(one, 2, 20);
	allocate(other, 3, 300);
	allocate(alone, 4, 4000);
	allocate(gone, 5, 50000);
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	for (number = 0; number < pl_sites_count(reader.sites); number++) {
		const struct pl_totals *totals = pl_sites_totals(reader.sites, number);
		const struct pl_native_caller *caller = pl_sites_native_caller(reader.sites, number);
		size_t frames;
		const struct pl_frame *frame = trace_frames(reader.sites, number, &frames, NULL);

		if (!totals->allocated_count)
			continue;
		count++;
		cr_assert_eq(pl_sites_domain(reader.sites, number) == PL_SITE_NATIVE, totals->allocated_count > 1);
		cr_assert_eq(caller != NULL, totals->allocated_count > 1);
		cr_assert_eq(frames, 1);
		if (totals->allocated_count <= 3) {
			cr_assert_str_eq(frame->filename, "/app/native.py");
			cr_assert_eq(frame->line, 10);
		}
		if (totals->allocated_count == 2)
			cr_assert(strcmp(caller->symbol, "make") == 0 && caller->offset == 10 && totals->allocated_size == 20);
		if (totals->allocated_count == 3)
			cr_assert(caller->offset == 20 && totals->allocated_size == 300);
		if (totals->allocated_count == 4)
			cr_assert(strcmp(frame->filename, "/lib/native.so") == 0 && strcmp(frame->function, "make") == 0 &&
				  frame->line == 0 && totals->allocated_size == 4000);
		if (totals->allocated_count == 5)
			cr_assert(!caller->symbol && strcmp(frame->function, "<unknown>") == 0);
	}
	cr_assert_eq(count, 5);
}

Test(inline_read, wild_site_rows)
{
	static const struct pl_inline_site wild[] = {
		{.hash = 1, .frames = 0, .count = UINT16_MAX},
		{.hash = 1, .frames = 0, .count = PL_INLINE_FRAMES_MAX + 1},
		{.hash = 1, .frames = FRAMES, .count = 1},
		{.hash = 1, .frames = FRAMES - 1, .count = 2},
		{.hash = 1, .frames = UINT32_MAX, .count = 1},
		{.hash = 1, .frames = UINT32_MAX, .count = PL_INLINE_FRAMES_MAX, .more = 255, .kind = 255},
		{.hash = 1, .frames = 0, .count = 1, .kind = 1},
		{.hash = 1, .frames = FRAMES, .count = 1, .kind = 1},
		{.hash = 1, .frames = 1, .count = 1, .kind = PL_INLINE_KIND_OLDER + PL_INLINE_OLDER_CLASSES},
	};
	uint32_t code = add_code("/app/good.py", "f", 10), site = add_site(&code, 1);

	allocate(site, 1, 10);
	for (size_t i = 0; i < sizeof(wild) / sizeof(wild[0]); i++)
		tracee->sites[PL_INLINE_SITE_FIRST + tracee->control.next_site++] = wild[i];
	code = add_code("/app/behind.py", "f", 10);
	site = add_site(&code, 1);
	allocate(site, 1, 10);
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	expect_totals("/app/good.py", 10, (struct pl_totals){10, 1, 0, 0});
	expect_totals("/app/behind.py", 10, (struct pl_totals){10, 1, 0, 0});
}

Test(inline_read, wild_code_rows)
{
	static const struct pl_inline_code wild[] = {
		{.hash = 1, .filename_bytes = PL_INLINE_FILENAME_MAX + 1, .filename_kind = 1, .name_kind = 1},
		{.hash = 1, .name_bytes = PL_INLINE_NAME_MAX + 1, .filename_kind = 1, .name_kind = 1},
		{.hash = 1, .lines_bytes = PL_INLINE_LINES_MAX + 1, .filename_kind = 1, .name_kind = 1},
		{.hash = 1, .filename_bytes = UINT32_MAX, .name_bytes = UINT32_MAX, .lines_bytes = UINT32_MAX},
		{.hash = 1, .filename_bytes = 1, .filename_kind = 5},
		{.hash = 1, .name_bytes = 1, .name_kind = 255},
		{.hash = 1, .data = ARENA, .filename_bytes = 1, .filename_kind = 1},
		{.hash = 1, .data = ARENA - 1, .filename_bytes = 1, .name_bytes = 1, .filename_kind = 1, .name_kind = 1},
		{.hash = 1, .data = UINT64_MAX, .filename_bytes = 1, .filename_kind = 1},
		{.hash = 1, .data = UINT64_MAX, .filename_bytes = PL_INLINE_FILENAME_MAX, .filename_kind = 4},
	};

	for (size_t i = 0; i < sizeof(wild) / sizeof(wild[0]); i++) {
		uint32_t number = PL_INLINE_CODE_FIRST + (uint32_t)tracee->control.next_code++;
		uint32_t site;

		tracee->codes[number] = wild[i];
		site = add_site(&number, 1);
		allocate(site, 1, 10);
		cr_assert_eq(pl_inline_reader_pass(&reader), 0);
		cr_assert_eq(reader.local[site], UINT32_MAX, "row %zu", i);
	}
}

/* What is at its limit is still read: names of the greatest length in the widest characters, wild lines. */
Test(inline_read, greatest_code_rows)
{
	static const struct pl_inline_code great[] = {
		{.hash = 1, .filename_bytes = PL_INLINE_FILENAME_MAX, .name_bytes = PL_INLINE_NAME_MAX,
			.lines_bytes = PL_INLINE_LINES_MAX, .filename_kind = 1, .name_kind = 1, .first_line = INT32_MAX},
		{.hash = 1, .filename_bytes = PL_INLINE_FILENAME_MAX, .name_bytes = PL_INLINE_NAME_MAX, .filename_kind = 4,
			.name_kind = 3, .first_line = INT32_MIN},
		{.hash = 1, .data = ARENA, .filename_kind = 1, .name_kind = 1},
	};

	for (size_t i = 0; i < ARENA; i++)
		tracee->arena[i] = (uint8_t)(i * 37 >> 3);
	for (size_t i = 0; i < sizeof(great) / sizeof(great[0]); i++) {
		uint32_t number = PL_INLINE_CODE_FIRST + (uint32_t)tracee->control.next_code++;
		uint32_t site = 0;

		tracee->codes[number] = great[i];
		for (int offset = -2; offset < 3; offset++) {
			site = add_site(&number, 1);
			tracee->frames[tracee->control.next_frame - 1] = (uint64_t)number << 32 | (uint32_t)(INT32_MAX + (unsigned)offset);
		}
		cr_assert_eq(pl_inline_reader_pass(&reader), 0);
		cr_assert_neq(reader.local[site], UINT32_MAX, "row %zu", i);
	}
}

/* Rows that all point to the same bytes would make us keep far more than the tracee has. */
Test(inline_read, rows_that_share_what_they_point_to)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < 50; i++) {
		uint32_t number = PL_INLINE_CODE_FIRST + (uint32_t)tracee->control.next_code++;

		tracee->codes[number] = (struct pl_inline_code){.hash = 1, .filename_bytes = 10, .filename_kind = 1,
			.name_kind = 1, .lines_bytes = 1 << 17};
		(void)add_site(&number, 1);
	}
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	for (uint32_t i = 0; i < CODES; i++)
		kept += reader.codes[i] != NULL;
	cr_assert_eq(kept, 3);

	for (uint32_t i = 0; i < 100; i++)
		tracee->sites[PL_INLINE_SITE_FIRST + tracee->control.next_site++] =
			(struct pl_inline_site){.hash = 1, .frames = 3000, .count = 100};
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	cr_assert_leq(reader.frames_read, FRAMES);
}

Test(inline_read, frames_of_any_value)
{
	uint64_t x = 88172645463325252ull;

	(void)add_code("/app/a.py", "f", 10);
	for (size_t i = 0; i < FRAMES; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		tracee->frames[i] = i % 3 ? x : x & 0x2ffffffffull;
	}
	for (uint32_t i = 0; i < 90; i++)
		tracee->sites[PL_INLINE_SITE_FIRST + tracee->control.next_site++] =
			(struct pl_inline_site){.hash = x, .frames = i * 40, .count = 40};
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	cr_assert_eq(reader.known, PL_INLINE_SITE_FIRST + 90);
}

/* Everything random, in rows that claim to be complete: no crash, and nothing below zero. */
Test(inline_read, noise)
{
	srand(7);
	for (int round = 0; round < 30; round++) {
		uint8_t *bytes = (uint8_t *)tracee;
		size_t size = offsetof(struct tracee, after_read);

		for (size_t i = 0; i < size; i++)
			bytes[i] = (uint8_t)(rand() >> 7);
		for (size_t i = 0; i < SITES; i++) {
			tracee->sites[i].count %= 200;
			tracee->sites[i].frames %= FRAMES + 50;
		}
		for (size_t i = 0; i < FRAMES; i++)
			tracee->frames[i] &= 0xffffffffffull;
		for (size_t i = 0; i < CODES; i++) {
			tracee->codes[i].data %= ARENA;
			tracee->codes[i].filename_bytes %= 300;
			tracee->codes[i].name_bytes %= 300;
			tracee->codes[i].lines_bytes %= 3000;
			tracee->codes[i].filename_kind %= 6;
			tracee->codes[i].name_kind %= 6;
		}
		for (size_t i = 0; i < SITES; i++) {
			uint64_t *fields = (uint64_t *)&tracee->totals[i];

			for (int field = 0; field < 8; field++)
				fields[field] >>= (rand() & 63);
		}
		reader.config.sample = round % 2 ? 1ULL << (rand() & 63) : 0;
		(void)pl_inline_reader_pass(&reader);
		if (round % 2 == 0)
			expect_nothing_negative();
		tear_down();
		set_up();
	}
}

/* -- reading fails ------------------------------------------------------------------------------------ */

Test(inline_read, process_that_ends_meanwhile)
{
	static const uint64_t from[] = {CONTROL_AT, SITES_AT, FRAMES_AT, CODES_AT, ARENA_AT};
	uint32_t code = add_code("/app/a.py", "f", 10), site = add_site(&code, 1);

	allocate(site, 1, 10);
	tracee->fail = -ESRCH;
	for (size_t i = 0; i < sizeof(from) / sizeof(from[0]); i++) {
		tracee->fail_at = from[i];
		cr_assert_eq(pl_inline_reader_pass(&reader), -ESRCH, "from %#llx on", (unsigned long long)from[i]);
		cr_assert_null(totals_of("/app/a.py", 10));
	}
	tracee->fail = 0;
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	expect_totals("/app/a.py", 10, (struct pl_totals){10, 1, 0, 0});
	allocate(site, 1, 10);
	tracee->fail = -ESRCH;
	tracee->fail_at = 0;
	cr_assert_eq(pl_inline_reader_pass(&reader), -ESRCH);
	expect_totals("/app/a.py", 10, (struct pl_totals){10, 1, 0, 0});
}

/* Two processes feed the same sites. What was live in the one goes with it, once, and the other's stays. */
Test(inline_read, process_that_ends_while_another_goes_on)
{
	uint32_t code = add_code("/app/a.py", "f", 10), first = add_site(&code, 1), second = add_site(&code, 1);

	pl_inline_reader_retire(&reader); /* before its first pass: nothing */
	tracee->frames[tracee->sites[second].frames] += 2;
	allocate(first, 5, 50);
	allocate(second, 3, 30);
	release(first, 1, 10);
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	cr_assert_eq(reader.local[first], reader.local[second]);
	*pl_sites_totals(reader.sites, reader.local[first]) = (struct pl_totals){180, 18, 10, 1}; /* 100 in 10 are the other's */
	pl_inline_reader_retire(&reader);
	expect_totals("/app/a.py", 10, (struct pl_totals){180, 18, 80, 8});
	pl_inline_reader_retire(&reader);
	expect_totals("/app/a.py", 10, (struct pl_totals){180, 18, 80, 8});
}

/* Of estimates from samples their uncertainty goes too. */
Test(inline_read, sampled_process_that_ends)
{
	uint32_t code = add_code("/app/a.py", "f", 10), site = add_site(&code, 1);
	const struct pl_totals *totals;

	reader.config.sample = 1000;
	allocate(site, 5, 500);
	release(site, 2, 200);
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	totals = totals_of("/app/a.py", 10);
	cr_assert_gt(totals->size_variance, 0);
	pl_inline_reader_retire(&reader);
	cr_assert_eq(totals->freed_size, totals->allocated_size);
	cr_assert_eq(totals->freed_count, totals->allocated_count);
	cr_assert_float_eq(totals->size_variance, 0, 1e-6);
	cr_assert_float_eq(totals->count_variance, 0, 1e-6);
}

Test(inline_read, tables_where_nothing_is_mapped)
{
	uint64_t *const members[] = {&reader.config.control, &reader.config.sites, &reader.config.frames, &reader.config.codes,
		&reader.config.arena, &reader.config.totals};
	uint32_t code = add_code("/app/a.py", "f", 10);

	allocate(add_site(&code, 1), 1, 10);
	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
		uint64_t right = *members[i];

		*members[i] = UINT64_MAX - 7;
		cr_assert_eq(pl_inline_reader_pass(&reader), -EFAULT, "table %zu", i);
		*members[i] = right;
	}
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	expect_totals("/app/a.py", 10, (struct pl_totals){10, 1, 0, 0});
}

Test(rounding, a_page_of_the_shadow_map)
{
	uint32_t entries[1024] = {0};
	struct inline_rounding sums = {0};
	const uint32_t site = 3u << PL_INLINE_SITE_SHIFT;

	cr_assert_lt(inline_rounding_mean(&sums, 16), 0);
	entries[0] = site | 28;
	entries[2] = site | 48 | PL_INLINE_ENTRY_ODD;
	/* 3000 bytes do not fit in one. */
	entries[10] = site | PL_INLINE_SIZE_SPILLED;
	entries[11] = 3000 & PL_INLINE_SIZE_SPILLED;
	entries[12] = 3000 >> PL_INLINE_SIZE_BITS;
	/* What is cut off by the page's end is not counted. */
	entries[1022] = site | PL_INLINE_SIZE_SPILLED;
	inline_rounding_count(entries, NULL, 0, &sums);
	cr_assert_eq(sums.blocks, 3);
	cr_assert_eq(sums.bytes[1], 4 + 0 + 8);
	cr_assert_eq(sums.bytes[0], 4 + 0 + 8);
	cr_assert_float_eq(inline_rounding_mean(&sums, 16), 4, 0.001);
	/* Small ones of malloc's have its header too: 28 in 48, 48 in 64. */
	sums = (struct inline_rounding){0};
	inline_rounding_count(entries, (const bool[]){false, false, false, true}, 4, &sums);
	cr_assert_eq(sums.bytes[1], 20 + 16 + 8);
}
