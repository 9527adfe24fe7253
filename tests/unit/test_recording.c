/* SPDX-License-Identifier: MIT */
#include "sample.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <zstd.h>

#include "pyleak/recording_file.h"
#include "reader_private.h"
#include "recording_private.h"
#include "trace_frames.h"

/* Recordings: what is written is read, of a file that is cut all that is whole, and of one that lies
 * nothing. */

struct tape {
	char *bytes;
	size_t size;
	size_t ends[64]; /* of the snapshots, in bytes */
	size_t count;
};

static const struct pl_facts facts = {
	.pid = 4711,
	.python = "3.11.2",
	.engine = "inline",
	.frames = 16,
	.sample = 0,
	.started = {.tv_sec = 1795341600, .tv_nsec = 999999999},
	.rss = 104857600,
};

static char *source_of(void *context, const char *filename, int line)
{
	char *text = NULL;

	cr_assert_str_eq(context, "context");
	if (strcmp(filename, "/app/no_source.py") == 0)
		return NULL;
	cr_assert(asprintf(&text, "line %d of %s", line, filename) > 0);
	return text;
}

static void record(struct tape *tape, struct pl_recording_writer *writer, struct pl_snapshot *snapshot)
{
	void *bytes;
	size_t size;

	cr_assert_eq(pl_recording_writer_add(writer, snapshot, 1000 + (int64_t)tape->count, &bytes, &size), 0);
	tape->bytes = realloc(tape->bytes, tape->size + size);
	memcpy(tape->bytes + tape->size, bytes, size);
	tape->size += size;
	tape->ends[tape->count++] = tape->size;
	free(bytes);
}

/* Three snapshots of a few sites, at 0, 1 and 2 s after the start. */
static struct tape make_tape(double variance)
{
	static char context[] = "context";
	struct pl_sites *sites = pl_sites_new();
	struct pl_facts own = facts;
	struct pl_recording_writer *writer;
	struct tape tape = {0};
	uint32_t first = 0, second;

	own.since_ns = 5000;
	writer = pl_recording_writer_new(&own, source_of, context);
	cr_assert_not_null(writer);
	for (int i = 0; i < 3; i++) {
		struct pl_snapshot *snapshot;

		if (i == 1) {
			first = sample_site(sites, PL_SITE_PYTHON, "/app/formatter.py:41:encode|/app/app.py:70:infer");
			(void)sample_site(sites, PL_SITE_PYTHON, "");
			sample_allocate(sites, first, 767454105, 16006705);
			pl_sites_totals(sites, first)->size_variance = variance;
		} else if (i == 2) {
			const struct pl_frame deep = {pl_sites_string(sites, "\xff/d\n"), pl_sites_string(sites, ""), 0};

			sample_free(sites, first, 4105, 5);
			second = sample_site(sites, PL_SITE_NATIVE, "/app/no_source.py:1:f|/app/app.py:70:infer");
			sample_allocate(sites, second, UINT64_MAX, 3);
			cr_assert_eq(pl_sites_intern(sites, PL_SITE_PYTHON, &deep, 1, true), 3);
		}
		snapshot = pl_snapshot_take(sites);
		snapshot->taken_ns = 5000 + i * INT64_C(1000000000);
		snapshot->rss = 100 + (uint64_t)i;
		snapshot->losses.events = (uint64_t)i;
		snapshot->losses.sites = 2 * (uint64_t)i;
		record(&tape, writer, snapshot);
		pl_snapshot_free(snapshot);
	}
	pl_recording_writer_free(writer);
	pl_sites_free(sites);
	return tape;
}

/* What the last count_snapshots() saw in each of them. */
static uint64_t sums[8];

static uint64_t sum_up(const struct pl_recording_reader *reader, const struct pl_snapshot *snapshot)
{
	uint64_t sum = (uint64_t)pl_recording_reader_time(reader) + 3 * snapshot->rss + 5 * snapshot->losses.events;

	for (size_t i = 0; i < snapshot->count; i++)
		sum += (7 * i + 11) * snapshot->totals[i].allocated_size + (13 * i + 17) * snapshot->totals[i].freed_count +
		       (19 * i + 23) * snapshot->totals[i].allocated_count + (29 * i + 31) * snapshot->totals[i].freed_size;
	return sum;
}

/* How many whole snapshots there are in these bytes, and what the reader says in the end. */
static size_t count_snapshots(const void *bytes, size_t size, struct pl_error *err)
{
	struct pl_sites *sites = pl_sites_new();
	FILE *stream = fmemopen((void *)(uintptr_t)bytes, size, "r");
	struct pl_recording_reader *reader;
	size_t count = 0;
	int code;

	cr_assert_not_null(stream);
	*err = (struct pl_error){0};
	code = pl_recording_reader_new(stream, "tape", sites, &reader, err);
	if (code == 0) {
		do {
			struct pl_snapshot *snapshot = pl_recording_reader_snapshot(reader);

			cr_assert_not_null(snapshot);
			sums[count++ % COUNT(sums)] = sum_up(reader, snapshot);
			pl_snapshot_free(snapshot);
			code = pl_recording_reader_next(reader, err);
		} while (code == 1);
		pl_recording_reader_free(reader);
	}
	cr_assert_eq(code, err->code);
	cr_assert(code == 0 || (code == -EBADMSG && err->text[0]), "%d %s", code, err->text);
	(void)fclose(stream);
	pl_sites_free(sites);
	return count;
}

Test(recording, what_is_written_is_read)
{
	struct tape tape = make_tape(0);
	struct pl_sites *sites = pl_sites_new();
	FILE *stream = fmemopen(tape.bytes, tape.size, "r");
	struct pl_recording_reader *reader;
	struct pl_snapshot *snapshot;
	const struct pl_frame *frames;
	size_t count;
	bool more;

	/* Whatever numbers the sites have here. */
	(void)sample_site(sites, PL_SITE_PYTHON, "/other.py:1:f");
	cr_assert_eq(pl_recording_reader_new(stream, "tape", sites, &reader, NULL), 0);
	cr_expect_eq(pl_recording_reader_facts(reader)->pid, 4711);
	cr_expect_str_eq(pl_recording_reader_facts(reader)->python, "3.11.2");
	cr_expect_str_eq(pl_recording_reader_facts(reader)->engine, "inline");
	cr_expect_eq(pl_recording_reader_facts(reader)->frames, 16);
	cr_expect_eq(pl_recording_reader_facts(reader)->rss, 104857600);
	cr_expect_eq(pl_recording_reader_facts(reader)->started.tv_sec, 1795341600);
	cr_expect_eq(pl_recording_reader_facts(reader)->started.tv_nsec, 999999999);
	cr_expect_eq(pl_recording_reader_time(reader), 0);
	cr_assert_eq(pl_recording_reader_next(reader, NULL), 1);
	cr_assert_eq(pl_recording_reader_next(reader, NULL), 1);
	cr_expect_eq(pl_recording_reader_time(reader), 2000000000);
	cr_expect_eq(pl_recording_reader_stop(reader), 1002);
	snapshot = pl_recording_reader_snapshot(reader);
	cr_assert_eq(snapshot->count, 5);
	cr_expect_eq(snapshot->taken_ns, INT64_C(1795341600999999999) + 2000000000);
	cr_expect_eq(snapshot->rss, 102);
	cr_expect_eq(snapshot->losses.events, 2);
	cr_expect_eq(snapshot->losses.sites, 4);
	cr_expect_eq(snapshot->totals[0].allocated_size, 0);
	cr_expect_eq(snapshot->totals[1].allocated_size, 767454105);
	cr_expect_eq(snapshot->totals[1].allocated_count, 16006705);
	cr_expect_eq(snapshot->totals[1].freed_size, 4105);
	cr_expect_eq(snapshot->totals[1].freed_count, 5);
	cr_expect_eq(snapshot->totals[3].allocated_size, UINT64_MAX);
	cr_expect_eq(pl_sites_domain(sites, 1), PL_SITE_PYTHON);
	cr_expect_eq(pl_sites_domain(sites, 3), PL_SITE_NATIVE);
	frames = trace_frames(sites, 1, &count, &more);
	cr_assert_eq(count, 2);
	cr_expect(!more);
	cr_expect_str_eq(frames[0].function, "encode");
	cr_expect_eq(frames[1].line, 70);
	cr_expect_str_eq(
		pl_recording_reader_source(reader, frames[0].filename, 41), "line 41 of /app/formatter.py");
	cr_expect_null(pl_recording_reader_source(reader, frames[0].filename, 42));
	cr_expect_null(pl_recording_reader_source(reader, pl_sites_string(sites, "/app/no_source.py"), 1));
	frames = trace_frames(sites, 4, &count, &more);
	cr_expect(more);
	cr_expect_str_eq(frames[0].filename, "\xff/d\n");
	cr_expect_str_eq(frames[0].function, "");
	/* The site of allocations with no frame is the one that it always is. */
	cr_expect_eq(pl_sites_intern(sites, PL_SITE_PYTHON, NULL, 0, false), 2);
	cr_expect_eq(pl_recording_reader_next(reader, NULL), 0);
	cr_expect_eq(pl_recording_reader_next(reader, NULL), 0);
	pl_snapshot_free(snapshot);
	pl_recording_reader_free(reader);
	(void)fclose(stream);
	pl_sites_free(sites);
	free(tape.bytes);
}

Test(recording, variances_of_samples)
{
	struct tape tape = make_tape(1234.5);
	struct pl_sites *sites = pl_sites_new();
	FILE *stream = fmemopen(tape.bytes, tape.size, "r");
	struct pl_recording_reader *reader;
	struct pl_snapshot *snapshot;

	cr_assert_eq(pl_recording_reader_new(stream, "tape", sites, &reader, NULL), 0);
	cr_assert_eq(pl_recording_reader_next(reader, NULL), 1);
	snapshot = pl_recording_reader_snapshot(reader);
	cr_expect_eq(snapshot->totals[0].size_variance, 1234.5);
	cr_expect_eq(snapshot->totals[0].count_variance, 0);
	pl_snapshot_free(snapshot);
	pl_recording_reader_free(reader);
	(void)fclose(stream);
	pl_sites_free(sites);
	free(tape.bytes);
}

/* What not every recording has. */
Test(recording, native_callers_processes_and_accounts)
{
	struct pl_facts own = facts;
	struct pl_sites *sites = pl_sites_new(), *copies = pl_sites_new();
	const struct pl_frame frame = {pl_sites_string(sites, "a.py"), pl_sites_string(sites, "f"), 3};
	const struct pl_native_caller caller = {pl_sites_string(sites, "/lib/numpy.so"), pl_sites_string(sites, "alloc"), 18};
	const struct pl_native_caller nameless = {pl_sites_string(sites, "/lib/other.so"), NULL, 4096};
	const struct pl_native_caller *got;
	struct pl_recording_writer *writer;
	struct pl_recording_reader *reader;
	struct pl_snapshot *snapshot;
	struct tape tape = {0};
	FILE *stream;

	(void)pl_sites_intern(sites, PL_SITE_PYTHON, &frame, 1, false);
	(void)pl_sites_intern_native(sites, &frame, 1, false, &caller);
	pl_sites_set_process(sites, 4712);
	(void)pl_sites_intern_native(sites, &frame, 1, false, &nameless);
	(void)pl_sites_intern_older(sites, 4, &frame, 1, false);
	(void)pl_sites_intern_older(sites, 0, &frame, 1, false);
	own.native = true;
	own.account = (struct pl_account){
		.taken = true, .rss = 900, .alignment = 8, .arenas_overhead = -3, .rounding = 4.5};
	own.account.parts[PL_ACCOUNT_OTHER] = -70;
	own.account.known[PL_ACCOUNT_OTHER] = true;
	own.account.class_free[PL_ACCOUNT_CLASSES - 1] = 512;
	writer = pl_recording_writer_new(&own, NULL, NULL);
	snapshot = pl_snapshot_take(sites);
	snapshot->losses.freed_before_size = 77;
	snapshot->losses.freed_before_count = 7;
	snapshot->losses.freed_unseen_size = 88;
	snapshot->losses.freed_unseen_count = 8;
	record(&tape, writer, snapshot);
	snapshot->account = own.account;
	snapshot->totals[1].apart_size = -70;
	snapshot->totals[1].apart_count = 7;
	snapshot->totals[1].apart_allocated = 700;
	snapshot->account.parts[PL_ACCOUNT_HEAP_FREE] = 12345;
	snapshot->account.apart[PL_ACCOUNT_FILES] = 4096;
	snapshot->account.apart[PL_ACCOUNT_APART_POOLS] = -77;
	record(&tape, writer, snapshot);
	pl_snapshot_free(snapshot);

	stream = fmemopen(tape.bytes, tape.size, "r");
	cr_assert_eq(pl_recording_reader_new(stream, "tape", copies, &reader, NULL), 0);
	cr_expect(pl_recording_reader_facts(reader)->native);
	cr_expect_eq(pl_recording_reader_facts(reader)->account.rss, 900);
	cr_expect_eq(pl_recording_reader_facts(reader)->account.arenas_overhead, -3);
	cr_expect_float_eq(pl_recording_reader_facts(reader)->account.rounding, 4.5, 0);
	cr_expect_eq(pl_recording_reader_facts(reader)->account.parts[PL_ACCOUNT_OTHER], -70);
	cr_expect(pl_recording_reader_facts(reader)->account.known[PL_ACCOUNT_OTHER]);
	cr_expect_not(pl_recording_reader_facts(reader)->account.known[PL_ACCOUNT_FILES]);
	snapshot = pl_recording_reader_snapshot(reader);
	cr_expect_eq(snapshot->losses.freed_before_size, 77);
	cr_expect_eq(snapshot->losses.freed_before_count, 7);
	cr_expect_eq(snapshot->losses.freed_unseen_size, 88);
	cr_expect_eq(snapshot->losses.freed_unseen_count, 8);
	cr_expect_not(snapshot->account.taken);
	pl_snapshot_free(snapshot);
	cr_assert_eq(pl_recording_reader_next(reader, NULL), 1);
	snapshot = pl_recording_reader_snapshot(reader);
	cr_expect(snapshot->account.taken);
	cr_expect_eq(snapshot->account.alignment, 8);
	cr_expect_eq(snapshot->account.parts[PL_ACCOUNT_HEAP_FREE], 12345);
	cr_expect_eq(snapshot->account.apart[PL_ACCOUNT_FILES], 4096);
	cr_expect_eq(snapshot->account.apart[PL_ACCOUNT_APART_POOLS], -77);
	cr_expect_eq(snapshot->account.class_free[PL_ACCOUNT_CLASSES - 1], 512);
	cr_assert_eq(snapshot->count, 5);
	cr_expect_eq(snapshot->totals[0].apart_size, 0);
	cr_expect_eq((int64_t)snapshot->totals[1].apart_size, -70);
	cr_expect_eq(snapshot->totals[1].apart_count, 7);
	cr_expect_eq(snapshot->totals[1].apart_allocated, 700);
	cr_expect_eq(pl_sites_domain(copies, 3), PL_SITE_OLDER);
	cr_expect_eq(pl_sites_older_class(copies, 3), 4);
	cr_expect_eq(pl_sites_older_class(copies, 4), 0);
	cr_expect_null(pl_sites_native_caller(copies, 3));
	cr_expect_null(pl_sites_native_caller(copies, 0));
	got = pl_sites_native_caller(copies, 1);
	cr_expect_str_eq(got->module, "/lib/numpy.so");
	cr_expect_str_eq(got->symbol, "alloc");
	cr_expect_eq(got->offset, 18);
	cr_expect_eq(pl_sites_process(copies, 1), 0);
	got = pl_sites_native_caller(copies, 2);
	cr_expect_null(got->symbol);
	cr_expect_eq(got->offset, 4096);
	cr_expect_eq(pl_sites_process(copies, 2), 4712);
	pl_snapshot_free(snapshot);
	pl_recording_reader_free(reader);
	pl_recording_writer_free(writer);
	(void)fclose(stream);
	pl_sites_free(sites);
	pl_sites_free(copies);
	free(tape.bytes);
}

/* One that lies, made of a message that is right but for one thing. */
static int apply_lie(void (*change)(Pyleak__Recording *message))
{
	Pyleak__Recording message;
	Pyleak__Facts own = PYLEAK__FACTS__INIT;
	uint8_t texts[] = "a.py\0f", bytes[4096];
	ProtobufCBinaryData text = {sizeof(texts), texts};
	uint32_t zero[] = {0}, one[] = {1}, module[] = {0};
	int32_t line[] = {3};
	protobuf_c_boolean no[] = {0};
	struct recorded recorded = {.sites = pl_sites_new()};
	size_t size;
	int code;

	pyleak__recording__init(&message);
	own.version = 1;
	message.facts = &own;
	message.texts = &text;
	message.frame_filename = message.site_domain = message.site_frames = message.stack_frames = zero;
	message.frame_function = message.site_depth = message.stack_depth = one;
	message.placed_site = (uint32_t[]){0};
	message.placed_stack = (uint32_t[]){0};
	message.stack_modules = module;
	message.frame_line = line;
	message.site_more = message.stack_more = no;
	message.n_texts = message.n_frame_filename = message.n_frame_function = message.n_frame_line = 1;
	message.n_site_domain = message.n_site_more = message.n_site_depth = message.n_site_frames = 1;
	message.n_stack_more = message.n_stack_depth = message.n_stack_frames = message.n_stack_modules = 1;
	message.n_placed_site = message.n_placed_stack = 1;
	if (change)
		change(&message);
	size = pyleak__recording__pack(&message, bytes);
	code = recorded_apply(&recorded, bytes, size);
	if (code == 0)
		cr_assert_eq(pl_sites_stack(recorded.sites, 0), 0);
	recorded_free(&recorded);
	pl_sites_free(recorded.sites);
	return code;
}

static uint32_t wrong[1];

static void no_frame(Pyleak__Recording *message) { message->stack_frames = wrong; wrong[0] = 1; }
static void no_module(Pyleak__Recording *message) { message->stack_modules = wrong; wrong[0] = 2; }
static void no_site(Pyleak__Recording *message) { message->placed_site = wrong; wrong[0] = 1; }
static void no_stack(Pyleak__Recording *message) { message->placed_stack = wrong; wrong[0] = 1; }
static void too_deep(Pyleak__Recording *message) { message->stack_depth = wrong; wrong[0] = 2; }
static void too_flat(Pyleak__Recording *message) { message->stack_depth = wrong; wrong[0] = 0; }
static void one_column_short(Pyleak__Recording *message) { message->n_placed_stack = 0; }
static void modules_short(Pyleak__Recording *message) { message->n_stack_modules = 0; }
static void no_thread(Pyleak__Recording *message) { message->stack_thread = wrong; wrong[0] = 3; message->n_stack_thread = 1; }
static void no_meanwhile(Pyleak__Recording *message) { message->stack_meanwhile = wrong; wrong[0] = 2; message->n_stack_meanwhile = 1; }
static void nowhere(Pyleak__Recording *message) { message->stack_begins = wrong; wrong[0] = 1; message->n_stack_begins = 1; }
static uint32_t two[] = {0, 0};
static void threads_long(Pyleak__Recording *message) { message->stack_thread = two; message->n_stack_thread = 2; }

Test(recording, native_stacks_that_lie)
{
	void (*const lies[])(Pyleak__Recording *message) = {
		no_frame, no_module, no_site, no_stack, too_deep, too_flat, one_column_short, modules_short,
		no_thread, no_meanwhile, nowhere, threads_long};

	cr_assert_eq(apply_lie(NULL), 0);
	for (size_t i = 0; i < COUNT(lies); i++)
		cr_expect_eq(apply_lie(lies[i]), -EBADMSG, "lie %zu", i);
}

/* A site's stack may change from snapshot to snapshot, and is written when it does. */
Test(recording, native_stacks)
{
	struct pl_sites *sites = pl_sites_new(), *copies = pl_sites_new();
	const char *module = pl_sites_string(sites, "/lib/x.so");
	const struct pl_native_caller caller = {.module = module};
	const struct pl_frame frame = {pl_sites_string(sites, "a.py"), pl_sites_string(sites, "f"), 3};
	const struct pl_native_line lines[] = {
		{{pl_sites_string(sites, "x.c"), pl_sites_string(sites, "inner"), 10}, module},
		{{module, pl_sites_string(sites, "outer"), 0}, module},
	};
	const struct pl_native_thread thread = {pl_sites_string(sites, "worker"), lines[1],
		{pl_sites_string(sites, "/app/busy.py"), pl_sites_string(sites, "busy"), 8}};
	const struct pl_native_thread *copied;
	struct pl_recording_writer *writer = pl_recording_writer_new(&facts, NULL, NULL);
	struct pl_recording_reader *reader;
	struct pl_traceback traceback;
	struct pl_snapshot *snapshot;
	struct tape tape = {0};
	FILE *stream;

	(void)pl_sites_intern(sites, PL_SITE_PYTHON, &frame, 1, false);
	(void)pl_sites_intern_native(sites, &frame, 1, false, &caller);
	snapshot = pl_snapshot_take(sites);
	pl_sites_set_stack(sites, 1, pl_sites_intern_stack(sites, lines, 2, true));
	record(&tape, writer, snapshot);
	pl_sites_set_stack(sites, 0, pl_sites_intern_thread_stack(sites, lines, 2, true, &thread));
	pl_sites_set_stack(sites, 1, pl_sites_intern_stack(sites, lines + 1, 1, false));
	record(&tape, writer, snapshot);
	record(&tape, writer, snapshot);
	pl_snapshot_free(snapshot);
	cr_assert_lt(tape.ends[2] - tape.ends[1], tape.ends[1] - tape.ends[0]);

	stream = fmemopen(tape.bytes, tape.size, "r");
	cr_assert_eq(pl_recording_reader_new(stream, "tape", copies, &reader, NULL), 0);
	cr_assert_eq(pl_sites_stack(copies, 0), UINT32_MAX);
	pl_sites_traceback(copies, 1, &traceback);
	cr_assert(traceback.count == 3 && traceback.native == 2 && traceback.gap);
	cr_assert_str_eq(traceback.frames[0].filename, "x.c");
	cr_assert_str_eq(traceback.frames[0].function, "inner");
	cr_assert_eq(traceback.frames[0].line, 10);
	cr_assert_eq(traceback.frames[1].filename, traceback.modules[1]);
	cr_assert_str_eq(traceback.modules[0], "/lib/x.so");
	cr_assert_eq(pl_recording_reader_next(reader, NULL), 1);
	pl_sites_traceback(copies, 0, &traceback);
	cr_assert(traceback.count == 3 && traceback.native == 2 && traceback.gap);
	copied = pl_sites_stack_thread(copies, pl_sites_stack(copies, 0));
	cr_assert_not_null(copied);
	cr_assert_str_eq(copied->name, "worker");
	cr_assert_str_eq(copied->begins.module, "/lib/x.so");
	cr_assert_str_eq(copied->begins.frame.function, "outer");
	cr_assert_str_eq(copied->meanwhile.filename, "/app/busy.py");
	cr_assert_eq(copied->meanwhile.line, 8);
	cr_assert_null(pl_sites_stack_thread(copies, pl_sites_stack(copies, 1)));
	pl_sites_traceback(copies, 1, &traceback);
	cr_assert(traceback.count == 2 && traceback.native == 1 && !traceback.gap);
	cr_assert_str_eq(traceback.frames[0].function, "outer");
	cr_assert_eq(pl_recording_reader_next(reader, NULL), 1);
	cr_assert_eq(pl_recording_reader_next(reader, NULL), 0);
	pl_recording_reader_free(reader);
	pl_recording_writer_free(writer);
	(void)fclose(stream);
	pl_sites_free(sites);
	pl_sites_free(copies);
	free(tape.bytes);
}

Test(recording, of_a_cut_file_every_whole_snapshot)
{
	struct tape tape = make_tape(0);

	for (size_t size = 1; size <= tape.size; size++) {
		struct pl_error err;
		size_t whole = 0, got = count_snapshots(tape.bytes, size, &err);
		bool between;

		while (whole < tape.count && tape.ends[whole] <= size)
			whole++;
		between = whole && tape.ends[whole - 1] == size;
		cr_expect_eq(got, whole, "%zu bytes: %zu of %zu", size, got, whole);
		cr_expect_eq(err.code, between ? 0 : -EBADMSG, "%zu bytes: %s", size, err.text);
		if (!between && whole)
			cr_expect(strstr(err.text, "tape: cut after "), "%zu bytes: %s", size, err.text);
	}
	free(tape.bytes);
}

Test(recording, of_a_damaged_file_nothing_that_is_wrong)
{
	struct tape tape = make_tape(0);
	uint64_t right[COUNT(sums)];
	struct pl_error err;

	cr_assert_eq(count_snapshots(tape.bytes, tape.size, &err), tape.count);
	memcpy(right, sums, sizeof(right));
	for (size_t i = 0; i < tape.size; i++) {
		for (int bit = 0; bit < 8; bit++) {
			size_t before = 0, got;

			while (before < tape.count && tape.ends[before] <= i)
				before++;
			tape.bytes[i] ^= (char)(1 << bit);
			got = count_snapshots(tape.bytes, tape.size, &err);
			tape.bytes[i] ^= (char)(1 << bit);
			/* One bit of a frame's head means nothing; another says that there is a checksum, which
			 * is the next frame, and damaged, if it does not. */
			cr_expect(got == before || (got == before + 1 && err.code) || (got == tape.count && !err.code),
				"byte %zu: %zu of %zu, %s", i, got, before, err.text);
			cr_expect_arr_eq(sums, right, got * sizeof(right[0]), "byte %zu", i);
		}
	}
	free(tape.bytes);
}

Test(recording, is_none)
{
	static const struct {
		const char *bytes;
		size_t size;
		const char *wanted;
	} table[] = {
		{"x", 1, "not a recording of pyleak"},
		{"total: size=0 B, count=0 and so on, a report", 40, "not a recording of pyleak"},
		{"\x50\x2a\x4d\x18\x13\0\0\0pyleak recording 1", 26, "not a recording of pyleak"},
		{"\x50\x2a\x4d\x18\x13\0\0\0pyleak recording 1\n", 27, "cut before the first snapshot is whole"},
		{"\x50\x2a\x4d\x18\x13\0\0\0pyleak recording 2\n", 27, "not a recording of pyleak"},
		{"\x50\x2a\x4d\x18\x13\0\0\0pyleak recording 1\nhello", 32, "damaged before the first snapshot is whole"},
		{"\x28\xb5\x2f\xfd\x04\x50\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 28, "not a recording of pyleak"},
	};

	for (size_t i = 0; i < COUNT(table); i++) {
		struct pl_error err;

		cr_expect_eq(count_snapshots(table[i].bytes, table[i].size, &err), 0);
		cr_expect_eq(err.code, -EBADMSG);
		cr_expect(strstr(err.text, table[i].wanted), "%zu: %s", i, err.text);
	}
}

/* -- files that lie: right in every checksum --------------------------------------------------- */

struct liar {
	Pyleak__Recording message;
	Pyleak__Facts facts;
	Pyleak__Snapshot snapshot, *snapshots[2];
	ProtobufCBinaryData texts;
	Pyleak__Account account;
	int64_t apart[PL_ACCOUNT_APARTS];
	int64_t parts[PL_ACCOUNT_PARTS];
	uint64_t class_free[PL_ACCOUNT_CLASSES + 1], offset[2];
	uint32_t process[2], module[2], symbol[2];
	uint32_t filename[2], function[2], source[2], domain[2], depth[2], site_frames[4], step[2];
	int32_t line[2];
	protobuf_c_boolean more[2];
	int64_t totals[4][2];
	double variances[2][2];
};

/* Two frames, two sites, one snapshot: a good one. */
static void make_good(struct liar *liar)
{
	static char python[] = "3.11.2", engine[] = "inline", writer[] = "test";
	static uint8_t texts[] = "a.py\0f\0x = []";

	*liar = (struct liar){
		.texts = {.len = sizeof(texts), .data = texts},
		.function = {1, 1},
		.source = {3, 0},
		.line = {1, 2},
		.depth = {1, 2},
		.site_frames = {0, 1, 0},
		.step = {0, 1},
		.totals = {{10, 20}, {1, 2}, {5, 0}, {1, 0}},
		.variances = {{1, 2}, {3, 4}},
	};
	pyleak__recording__init(&liar->message);
	pyleak__facts__init(&liar->facts);
	pyleak__snapshot__init(&liar->snapshot);
	pyleak__account__init(&liar->account);
	liar->account.parts = liar->parts;
	liar->account.n_parts = PL_ACCOUNT_PARTS;
	liar->account.class_free = liar->class_free;
	liar->account.n_class_free = PL_ACCOUNT_CLASSES;
	liar->account.alignment = 16;
	liar->facts.account = liar->snapshot.account = &liar->account;
	liar->domain[1] = 1;
	liar->module[1] = liar->symbol[1] = 3;
	liar->message.site_process = liar->process;
	liar->message.site_module = liar->module;
	liar->message.site_symbol = liar->symbol;
	liar->message.site_offset = liar->offset;
	liar->message.n_site_process = liar->message.n_site_module = liar->message.n_site_symbol =
		liar->message.n_site_offset = 2;
	liar->facts.version = 1;
	liar->facts.python = python;
	liar->facts.engine = engine;
	liar->facts.writer = writer;
	liar->facts.started_ns = 1;
	liar->message.facts = &liar->facts;
	liar->message.texts = &liar->texts;
	liar->message.n_texts = 1;
	liar->message.frame_filename = liar->filename;
	liar->message.frame_function = liar->function;
	liar->message.frame_source = liar->source;
	liar->message.frame_line = liar->line;
	liar->message.n_frame_filename = liar->message.n_frame_function = liar->message.n_frame_source =
		liar->message.n_frame_line = 2;
	liar->message.site_domain = liar->domain;
	liar->message.site_more = liar->more;
	liar->message.site_depth = liar->depth;
	liar->message.site_frames = liar->site_frames;
	liar->message.n_site_domain = liar->message.n_site_more = liar->message.n_site_depth = 2;
	liar->message.n_site_frames = 3;
	liar->snapshots[0] = liar->snapshots[1] = &liar->snapshot;
	liar->message.snapshots = liar->snapshots;
	liar->message.n_snapshots = 1;
	liar->snapshot.time_ns = 7;
	liar->snapshot.site_step = liar->step;
	liar->snapshot.allocated_size = liar->totals[0];
	liar->snapshot.allocated_count = liar->totals[1];
	liar->snapshot.freed_size = liar->totals[2];
	liar->snapshot.freed_count = liar->totals[3];
	liar->snapshot.size_variance = liar->variances[0];
	liar->snapshot.count_variance = liar->variances[1];
	liar->snapshot.n_site_step = liar->snapshot.n_allocated_size = liar->snapshot.n_allocated_count =
		liar->snapshot.n_freed_size = liar->snapshot.n_freed_count = liar->snapshot.n_size_variance =
			liar->snapshot.n_count_variance = 2;
}

static void append(struct tape *tape, const void *bytes, size_t size)
{
	tape->bytes = realloc(tape->bytes, tape->size + size);
	memcpy(tape->bytes + tape->size, bytes, size);
	tape->size += size;
}

static void append_piece(struct tape *tape, const void *bytes, size_t size)
{
	size_t bound = ZSTD_compressBound(size);
	void *packed = malloc(bound);

	append(tape, packed, ZSTD_compress(packed, bound, bytes, size, 1));
	free(packed);
}

static void append_message(struct tape *tape, const Pyleak__Recording *message)
{
	size_t size = pyleak__recording__get_packed_size(message);
	uint8_t *bytes = malloc(size);

	(void)pyleak__recording__pack(message, bytes);
	append_piece(tape, bytes, size);
	free(bytes);
}

static struct tape begin_tape(void)
{
	struct tape tape = {0};

	append(&tape, "\x50\x2a\x4d\x18\x13\0\0\0" RECORDING_TITLE, 27);
	return tape;
}

static size_t tell(struct liar *liar, struct pl_error *err)
{
	struct tape tape = begin_tape();
	size_t count;

	append_message(&tape, &liar->message);
	count = count_snapshots(tape.bytes, tape.size, err);
	free(tape.bytes);
	return count;
}

#define LIE(what)                                                                     \
	do {                                                                          \
		struct liar liar;                                                     \
		struct pl_error err;                                                  \
		make_good(&liar);                                                     \
		what;                                                                 \
		cr_expect_eq(tell(&liar, &err), 0, "%s is believed", #what);          \
		cr_expect_eq(err.code, -EBADMSG, "%s: %s", #what, err.text);          \
	} while (0)

Test(recording, lies_are_not_believed)
{
	struct liar good;
	struct pl_error none;

	make_good(&good);
	cr_assert_eq(tell(&good, &none), 1, "%s", none.text);
	LIE(liar.message.facts = NULL);
	LIE(liar.facts.version = 0);
	LIE(liar.facts.version = 2);
	LIE(liar.facts.pid = -1);
	LIE(liar.facts.frames = UINT32_MAX);
	LIE(liar.facts.started_ns = -1);
	LIE(liar.facts.started_ns = INT64_MAX);
	LIE(liar.facts.rss = UINT64_MAX);
	LIE(liar.facts.python = (char[]){"3.11\033[2J"});
	LIE(liar.facts.engine = (char[]){"a word that is too long for one"});
	LIE(liar.texts.len--);
	LIE(liar.filename[1] = 3);
	LIE(liar.function[0] = UINT32_MAX);
	LIE(liar.source[1] = 4);
	LIE(liar.line[0] = -1);
	LIE(liar.message.n_frame_function = 1);
	LIE(liar.message.n_frame_line = 1);
	LIE(liar.message.n_frame_source = 1);
	LIE(liar.domain[0] = 4);
	LIE(liar.message.n_site_more = 1);
	LIE(liar.message.n_site_depth = 1);
	LIE(liar.depth[0] = 0);
	LIE(liar.depth[0] = UINT32_MAX);
	LIE(liar.depth[1] = 3);
	LIE(liar.message.n_site_frames = 4);
	LIE(liar.site_frames[1] = 2);
	LIE(liar.process[0] = UINT32_MAX);
	LIE(liar.message.n_site_process = 1);
	LIE(liar.module[1] = 4);
	LIE(liar.symbol[1] = UINT32_MAX);
	LIE(liar.message.n_site_module = 1);
	LIE(liar.message.n_site_symbol = 0);
	LIE(liar.message.n_site_offset = 1);
	LIE(liar.account.n_parts--);
	LIE(liar.account.n_class_free++);
	LIE(liar.account.rss = UINT64_MAX);
	LIE(liar.account.alignment = 0);
	LIE(liar.account.arenas_overhead = INT64_MIN);
	LIE(liar.account.rounding = 1e300);
	LIE(liar.parts[3] = INT64_MAX);
	LIE((liar.account.apart = liar.parts, liar.account.n_apart = PL_ACCOUNT_PARTS));
	LIE((liar.account.apart = liar.apart, liar.account.n_apart = PL_ACCOUNT_APARTS, liar.apart[1] = INT64_MIN));
	LIE(liar.class_free[0] = UINT64_MAX);
	LIE(liar.message.n_snapshots = 2);
	LIE(liar.snapshot.time_ns = UINT64_MAX);
	LIE(liar.snapshot.stop_ns = UINT64_MAX);
	LIE(liar.snapshot.rss = UINT64_MAX);
	LIE(liar.step[0] = 2);
	LIE(liar.step[1] = 0);
	LIE(liar.step[1] = UINT32_MAX);
	LIE(liar.snapshot.n_allocated_size = 1);
	LIE(liar.snapshot.n_allocated_count = 1);
	LIE(liar.snapshot.n_freed_size = 1);
	LIE(liar.snapshot.n_freed_count = 1);
	LIE(liar.snapshot.n_size_variance = 1);
	LIE(liar.snapshot.n_count_variance = 0);
	LIE(liar.variances[0][0] = -1);
	LIE(liar.variances[0][1] = NAN);
	LIE(liar.variances[1][1] = HUGE_VAL);
}

Test(recording, a_later_version_says_so)
{
	struct liar liar;
	struct pl_error err;

	make_good(&liar);
	liar.facts.version = 2;
	cr_expect_eq(tell(&liar, &err), 0);
	cr_expect(strstr(err.text, "later pyleak"), "%s", err.text);
}

/* Sums that no process can have: the reader adds them up without harm. */
Test(recording, totals_may_be_anything)
{
	struct liar liar;
	struct pl_error err;
	struct tape tape = begin_tape();

	make_good(&liar);
	liar.site_frames[1] = 0; /* one site twice */
	liar.depth[1] = 1;
	liar.message.n_site_frames = 2;
	liar.totals[0][0] = liar.totals[0][1] = INT64_MAX;
	liar.totals[2][0] = INT64_MIN;
	append_message(&tape, &liar.message);
	liar.message.facts = NULL;
	append_message(&tape, &liar.message);
	cr_expect_eq(count_snapshots(tape.bytes, tape.size, &err), 2, "%s", err.text);
	liar.snapshot.time_ns = 6; /* back in time */
	append_message(&tape, &liar.message);
	cr_expect_eq(count_snapshots(tape.bytes, tape.size, &err), 2);
	cr_expect_str_eq(err.text, "tape: damaged after 2 whole snapshots");
	free(tape.bytes);
}

/* A few kilobytes of file that become more than anyone has: empty messages by the million. */
Test(recording, bombs)
{
	static const char *const fillers[] = {
		"\x5a\x00",		    /* a snapshot */
		"\x12\x00",		    /* texts */
		"\x0a\x00",		    /* facts */
		"\x38\x00",		    /* a site's domain, unpacked */
		"\x62\x00",		    /* an unknown field */
	};
	size_t size = RECORDING_PIECE_MAX;
	char *bytes = malloc(size + 2);

	for (size_t i = 0; i < COUNT(fillers); i++) {
		struct tape tape = begin_tape();
		struct pl_error err;

		for (size_t at = 0; at < size; at += 2)
			memcpy(bytes + at, fillers[i], 2);
		append_piece(&tape, bytes, size);
		cr_expect_eq(count_snapshots(tape.bytes, tape.size, &err), 0, "filler %zu", i);
		free(tape.bytes);
	}
	/* And one that is too large by two bytes. */
	struct tape tape = begin_tape();
	struct pl_error err;

	append_piece(&tape, bytes, size + 2);
	cr_expect_eq(count_snapshots(tape.bytes, tape.size, &err), 0);
	free(tape.bytes);
	free(bytes);
}

/* More new sites than go into one piece. */
Test(recording, many_sites)
{
	enum { SITES = 40000, DEPTH = 128 };
	struct pl_sites *sites = pl_sites_new(), *copies = pl_sites_new();
	struct pl_recording_writer *writer = pl_recording_writer_new(&facts, NULL, NULL);
	const char *filename = pl_sites_string(sites, "many.py"), *function = pl_sites_string(sites, "f");
	struct pl_frame frames[DEPTH];
	struct pl_recording_reader *reader;
	struct pl_snapshot *snapshot, *copy;
	struct tape tape = {0};
	FILE *stream;

	for (int i = 0; i < SITES; i++) {
		for (int depth = 0; depth < DEPTH; depth++)
			frames[depth] = (struct pl_frame){filename, function, depth ? depth : i};
		sample_allocate(sites, pl_sites_intern(sites, PL_SITE_PYTHON, frames, DEPTH, false), (uint64_t)i, 1);
	}
	cr_assert_gt(SITES * DEPTH, RECORDING_PIECE_FRAMES);
	snapshot = pl_snapshot_take(sites);
	record(&tape, writer, snapshot);
	record(&tape, writer, snapshot);
	cr_expect_lt(tape.ends[1] - tape.ends[0], 100, "nothing has changed");
	stream = fmemopen(tape.bytes, tape.size, "r");
	cr_assert_eq(pl_recording_reader_new(stream, "tape", copies, &reader, NULL), 0);
	copy = pl_recording_reader_snapshot(reader);
	cr_assert_eq(copy->count, SITES);
	cr_expect_eq(memcmp(copy->totals, snapshot->totals, SITES * sizeof(*copy->totals)), 0);
	cr_expect_eq(pl_recording_reader_next(reader, NULL), 1);
	cr_expect_eq(pl_recording_reader_next(reader, NULL), 0);
	pl_snapshot_free(snapshot);
	pl_snapshot_free(copy);
	pl_recording_reader_free(reader);
	pl_recording_writer_free(writer);
	(void)fclose(stream);
	pl_sites_free(sites);
	pl_sites_free(copies);
	free(tape.bytes);
}

static int begins_at_three(void *context, const char *filename, const char *function, int line)
{
	return strcmp(function, "<module>") == 0 ? 0 : 3;
}

static char *number_of(void *context, const char *filename, int line)
{
	char *text;

	return asprintf(&text, "line %d", line) < 0 ? NULL : text;
}

/* Where functions begin is in the recording, with what stands there; of one that does not say, it is not known. */
Test(recording, definitions)
{
	for (int known = 0; known <= 1; known++) {
		struct pl_sites *sites = pl_sites_new(), *read = pl_sites_new();
		struct pl_recording_writer *writer = pl_recording_writer_new(&facts, number_of, NULL);
		struct pl_recording_reader *reader;
		struct pl_snapshot *snapshot;
		struct pl_error err = {0};
		const char *file, *function;
		FILE *stream = tmpfile();
		size_t size;
		void *bytes;

		if (known)
			pl_recording_writer_set_definitions(writer, begins_at_three);
		sample_allocate(sites, sample_site(sites, PL_SITE_PYTHON, "/a.py:7:f|/a.py:9:f|/a.py:20:<module>"), 1, 1);
		snapshot = pl_snapshot_take(sites);
		cr_assert_eq(pl_recording_writer_add(writer, snapshot, 0, &bytes, &size), 0);
		cr_assert_eq(fwrite(bytes, 1, size, stream), size);
		rewind(stream);
		cr_assert_eq(pl_recording_reader_new(stream, "it", read, &reader, &err), 0, "%s", err.text);
		file = pl_sites_string(read, "/a.py");
		function = pl_sites_string(read, "f");
		cr_expect_eq(pl_recording_reader_definition(reader, file, function, 7), known ? 3 : 0);
		cr_expect_eq(pl_recording_reader_definition(reader, file, function, 9), known ? 3 : 0);
		cr_expect_eq(pl_recording_reader_definition(reader, file, function, 8), 0);
		cr_expect_eq(pl_recording_reader_definition(reader, file, pl_sites_string(read, "<module>"), 20), 0);
		if (known)
			cr_expect_str_eq(pl_recording_reader_source(reader, file, 3), "line 3");
		else
			cr_expect_null(pl_recording_reader_source(reader, file, 3));
		pl_recording_reader_free(reader);
		pl_recording_writer_free(writer);
		pl_snapshot_free(snapshot);
		pl_sites_free(sites);
		pl_sites_free(read);
		free(bytes);
		(void)fclose(stream);
	}
}
