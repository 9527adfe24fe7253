/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sched.h>
#include <time.h>

#include "../../src/engine/inline_read.h"
#include "../../src/engine/inline_reuse.h"
#include "pyleak/probe.h"
#include "pyleak/units.h"
#include "recorder_host.h"

/*
 * Rows of the recorder's tables that are used again while threads go on: the recorder in this process, and the tracer
 * looking at its tables through /proc/self/mem, as it does from outside. What must hold afterwards, however they met: each
 * block that lives is of the site that it was allocated at, by name, and each row's totals are those of its blocks.
 */

enum { WORKERS = 3, KEPT = 40, ROUNDS = 150000, SITES = 4096, CODES = 2048 };

#define self_pointer() ((uint64_t)__builtin_thread_pointer())

static struct inline_memory tables;
static struct inline_reuse reuse;
static struct pl_inline_reader reader;
static struct host_interpreter interpreter;
static const char magic[8] = PL_PROBE_MAGIC;
static _Thread_local struct host_thread *tls_current;

static int read_self(void *context, uint64_t address, void *buffer, size_t length)
{
	return inline_memory_read(context, address, buffer, length);
}

static int find_caller(void *context, uint64_t address, struct pl_native_caller *ret)
{
	*ret = (struct pl_native_caller){.module = pl_sites_string(reader.sites, "/lib/native.so"), .offset = address};
	return ret->module ? 0 : -ENOMEM;
}

static void use_tls(struct pl_inline_config *config)
{
	config->thread_current = 0;
	config->thread_tls = (int64_t)((uint64_t)&tls_current - self_pointer());
	config->odd_mask = 1023;
}

/* Few rows, so that each is used many times. */
static void use_few(struct pl_inline_config *config)
{
	use_tls(config);
	config->site_limit = SITES;
	config->code_limit = CODES;
}

static void begin(uint32_t frames, void (*adjust)(struct pl_inline_config *))
{
	host_plant(frames, 0, PL_INLINE_THREADS, adjust);
	inline_memory_init(&tables, getpid(), (uint64_t)magic);
	cr_assert(inline_memory_open(&tables));
	reader = (struct pl_inline_reader){.read = read_self, .context = &tables, .find_caller = find_caller, .minor = 11,
		.config = *host_config, .sites = pl_sites_new()};
	cr_assert_eq(pl_inline_reader_init(&reader), 0);
}

static void end(void)
{
	inline_reuse_free(&reuse);
	pl_inline_reader_free(&reader);
	pl_sites_free(reader.sites);
	inline_memory_close(&tables);
	host_unplant();
}

static void sweep(void)
{
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	inline_reuse_note(&reuse, &reader);
	reuse.next_ns = 0;
	inline_reuse_sweep(&reuse, &tables, &reader, true);
}

/* A code object of its own name, which lies in memory that is used again as CPython does it. */
struct fresh {
	struct host_code code;
	struct host_string strings[2];
	struct host_bytes lines;
};

static void fresh_init(struct fresh *fresh, uint64_t number)
{
	memset(fresh, 0, sizeof(*fresh));
	fresh->code.type = &host_code_type;
	fresh->code.filename = &fresh->strings[0];
	fresh->code.name = &fresh->strings[1];
	fresh->code.lines = &fresh->lines;
	fresh->code.first_line = 1;
	for (int i = 0; i < 2; i++)
		fresh->strings[i].state = 1 << 2 | 1 << 5 | 1 << 6;
	fresh->strings[0].length = (uint64_t)snprintf(fresh->strings[0].data, sizeof(fresh->strings[0].data), "/gen/%llu%s",
		(unsigned long long)number, number % 3 ? "" : "/with/a/longer/name/than/most.py");
	fresh->strings[1].length = (uint64_t)snprintf(fresh->strings[1].data, sizeof(fresh->strings[1].data), "f");
	fresh->lines.size = 3;
	memcpy(fresh->lines.data, "\xd7\0\0", 3);
}


struct worker {
	pthread_t thread;
	uint64_t base, number; /* addresses of its blocks, names of its code objects */
	uint64_t rounds;
	struct {
		uint64_t address, number;
	} kept[KEPT];
};

static _Atomic unsigned int at_work;

static uint64_t obj(struct worker *worker, uint64_t block, uint64_t size)
{
	host_next = worker->base + block * 64;
	return host_malloc(PL_INLINE_OBJ, size);
}

/* Ever new code objects, each of which allocates some blocks; one block in a while is kept, instead of an old one. */
static void *work(void *argument)
{
	struct worker *worker = argument;
	static _Thread_local struct fresh fresh[4] __attribute__((aligned(16)));
	struct host_frame outer = {0}, frame = {0};
	struct host_thread thread = {&interpreter, self_pointer(), &frame};

	tls_current = &thread;
	for (uint64_t i = 0; i < worker->rounds; i++) {
		struct fresh *code = &fresh[i % 4];
		const uint64_t number = worker->number + i;
		uint64_t blocks[3];

		fresh_init(code, number);
		outer = host_frame(NULL, &code->code, 2);
		frame = host_frame(&outer, &code->code, 4);
		for (unsigned int k = 0; k < 3; k++) {
			frame.instruction = (uint64_t)code->code.bytecode + 4 + 2 * k;
			blocks[k] = obj(worker, 1000 + k, 100 + k);
		}
		if (i % 50 == 0) {
			const size_t at = i / 50 % KEPT;

			if (worker->kept[at].address)
				host_free(PL_INLINE_OBJ, worker->kept[at].address);
			worker->kept[at].address = obj(worker, at, 300);
			worker->kept[at].number = number;
		}
		for (unsigned int k = 0; k < 3; k++)
			host_free(PL_INLINE_OBJ, blocks[k]);
		/* The code object dies, and its memory is used again. */
		host_free(PL_INLINE_OBJ, (uint64_t)code);
		if (i % 64 == 0)
			sched_yield();
	}
	tls_current = NULL;
	at_work--;
	return NULL;
}

/* The entry of the map for a block. */
static uint32_t entry_of(uint64_t address)
{
	const uint64_t chunk = ((const uint64_t *)host_config->directory)[address >> PL_INLINE_CHUNK_SHIFT];

	return chunk ? *(const uint32_t *)(chunk + (address >> 2 & (PL_INLINE_CHUNK_BYTES - 4))) : 0;
}

static void run(struct worker *workers, uint64_t rounds, void *(*function)(void *), int pause_ms)
{
	const struct timespec pause = {0, pause_ms * PL_NSEC_PER_MSEC};

	at_work = WORKERS;
	for (uint64_t i = 0; i < WORKERS; i++) {
		workers[i] = (struct worker){.base = 0x100000000 + i * 0x10000000, .number = i * 100000000, .rounds = rounds};
		cr_assert_eq(pthread_create(&workers[i].thread, NULL, function, &workers[i]), 0);
	}
	while (at_work) {
		sweep();
		(void)nanosleep(&pause, NULL);
	}
	sweep();
	for (int i = 0; i < WORKERS; i++)
		cr_assert_eq(pthread_join(workers[i].thread, NULL), 0);
}

static void run_workers(struct worker *workers, uint64_t rounds)
{
	run(workers, rounds, work, 0);
}

TestSuite(reuse, .timeout = 120);

Test(reuse, blocks_stay_what_they_are)
{
	static struct worker workers[WORKERS];
	uint64_t live = 0, of_rows = 0;
	char name[100];

	begin(4, use_few);
	run_workers(workers, ROUNDS);
	sweep();
	cr_assert_gt(reuse.sites, SITES, "%llu rows were used again", (unsigned long long)reuse.sites);
	cr_assert_gt(reuse.codes, CODES, "%llu code objects", (unsigned long long)reuse.codes);
	cr_assert_eq(host_control()->lost_events, 0);
	cr_assert_eq(host_control()->slotless, 0);
	for (int i = 0; i < WORKERS; i++)
		for (int k = 0; k < KEPT; k++) {
			const uint64_t number = workers[i].kept[k].number;
			const uint32_t site = entry_of(workers[i].kept[k].address) >> PL_INLINE_SITE_SHIFT;
			const struct pl_frame *frame;

			cr_assert_geq(site, PL_INLINE_SITE_LOST);
			live++;
			if (site == PL_INLINE_SITE_LOST)
				continue;
			of_rows++;
			cr_assert_neq(reader.local[site], UINT32_MAX);
			frame = pl_sites_innermost(reader.sites, reader.local[site]);
			(void)snprintf(name, sizeof(name), "/gen/%llu%s", (unsigned long long)number,
				number % 3 ? "" : "/with/a/longer/name/than/most.py");
			if (strcmp(frame->filename, "<unknown>") != 0)
				cr_assert_str_eq(frame->filename, name);
			cr_assert_geq(reader.totals[site].allocated_count + reader.totals[site].shared_allocated_count, 1);
		}
	cr_assert_eq(live, WORKERS * KEPT);
	cr_assert_geq(of_rows, live * 9 / 10);
	/* Of every row: what its totals say is what the map holds. */
	for (uint64_t site = PL_INLINE_SITE_LOST; site < reader.known; site++) {
		struct host_totals row = host_site((uint32_t)site);
		uint64_t count = 0;

		if (host_is_older((uint32_t)site))
			continue;

		for (int i = 0; i < WORKERS; i++)
			for (uint64_t k = 0; k < 1003; k++)
				count += entry_of(workers[i].base + k * 64) >> PL_INLINE_SITE_SHIFT == site;
		cr_assert_eq(row.allocated_count - row.freed_count, count, "row %llu", (unsigned long long)site);
	}
	/* And nothing that was allocated is missing in what the tracer adds up, whatever row it was in. */
	uint64_t allocated = 0, freed = 0;

	for (uint32_t i = 0; i < pl_sites_count(reader.sites); i++) {
		if (pl_sites_domain(reader.sites, i) == PL_SITE_OLDER)
			continue;
		allocated += pl_sites_totals(reader.sites, i)->allocated_count;
		freed += pl_sites_totals(reader.sites, i)->freed_count;
	}
	cr_assert_eq(allocated - freed, live);
	cr_assert_eq(allocated, WORKERS * (ROUNDS * 3 + ROUNDS / 50));
	end();
}

enum { LINES = 12 };
static struct fresh lines_of[LINES] __attribute__((aligned(16)));

/* Code that stays: sites whose blocks were all freed a while ago come again, by way of a cache. */
static void *return_to_lines(void *argument)
{
	struct worker *worker = argument;
	struct host_frame callers[2], frame;
	struct host_thread thread = {&interpreter, self_pointer(), &frame};
	uint64_t block;

	tls_current = &thread;
	for (uint64_t i = 0; i < worker->rounds; i++) {
		/* One of some ten thousand traces; for a while the same thirty. */
		const uint64_t group = i / 3000 % 300, trace = group * 30 + i % 30, line = trace % LINES;

		callers[0] = host_frame(NULL, &lines_of[trace / LINES % LINES].code, (unsigned int)(trace / 144 % 30) * 2);
		callers[1] = host_frame(&callers[0], &lines_of[trace / 7 % LINES].code, (unsigned int)(trace / 4320 % 30) * 2);
		frame = host_frame(&callers[1], &lines_of[line].code, 4);
		block = obj(worker, 1000, 100);
		if (i % 101 == 0) {
			const size_t at = i / 101 % KEPT;

			if (worker->kept[at].address)
				host_free(PL_INLINE_OBJ, worker->kept[at].address);
			worker->kept[at].address = obj(worker, at, 300);
			worker->kept[at].number = line;
		}
		host_free(PL_INLINE_OBJ, block);
	}
	tls_current = NULL;
	at_work--;
	return NULL;
}

Test(reuse, what_comes_again_is_found_in_no_cache)
{
	static struct worker workers[WORKERS];
	const uint64_t deadline = (uint64_t)pl_now_ns() + 20 * PL_NSEC_PER_SEC;

	begin(4, use_few);
	for (uint64_t i = 0; i < LINES; i++)
		fresh_init(&lines_of[i], i);
	for (int turn = 0; turn < 3 || (reuse.sites < SITES && (uint64_t)pl_now_ns() < deadline); turn++) {
		run(workers, 300 * 3000, return_to_lines, 10);
		for (int i = 0; i < WORKERS; i++)
			for (int k = 0; k < KEPT; k++) {
				const uint32_t site = entry_of(workers[i].kept[k].address) >> PL_INLINE_SITE_SHIFT;

				cr_assert_geq(site, PL_INLINE_SITE_LOST);
				if (site == PL_INLINE_SITE_LOST)
					continue;
				cr_assert_neq(reader.local[site], UINT32_MAX);
				cr_assert_str_eq(pl_sites_innermost(reader.sites, reader.local[site])->filename,
					lines_of[workers[i].kept[k].number].strings[0].data);
				host_free(PL_INLINE_OBJ, workers[i].kept[k].address);
			}
	}
	cr_assert_gt(reuse.sites, SITES / 2);
	end();
}

/* A leak that begins after a storm of code has its line. */
Test(reuse, a_line_after_a_storm)
{
	static struct worker workers[WORKERS];
	struct host_frame frame;
	struct host_thread thread = {&interpreter, self_pointer(), &frame};
	struct host_code *code;
	uint32_t site;

	begin(4, use_few);
	run_workers(workers, 30000);
	for (int i = 0; i < 3; i++)
		sweep();
	code = host_code_new("/srv/leak.py", "leak", 7);
	frame = host_frame(NULL, code, 4);
	tls_current = &thread;
	host_next = 0x200000000;
	(void)host_malloc(PL_INLINE_OBJ, 123);
	sweep();
	site = entry_of(0x200000000) >> PL_INLINE_SITE_SHIFT;
	cr_assert_geq(site, PL_INLINE_SITE_FIRST);
	cr_assert_str_eq(pl_sites_innermost(reader.sites, reader.local[site])->filename, "/srv/leak.py");
	tls_current = NULL;
	end();
}

/* Whoever stands in a hook keeps what it may know of; the sweep waits no longer than it says. */
Test(reuse, nobody_is_pushed)
{
	static struct worker workers[WORKERS];
	struct pl_inline_slot *slot;
	int64_t started;

	begin(4, use_few);
	run_workers(workers, 2000);
	for (int i = 0; i < 3; i++)
		sweep();
	for (int i = 0; i < WORKERS; i++) {
		workers[i].rounds = 0;
	}
	run_workers(workers, 3000);
	/* A thread that was cancelled, or sleeps, in the midst. */
	slot = (struct pl_inline_slot *)(host_config->slots + host_config->slot_stride * 5);
	slot->busy = 1;
	reuse.sites = 0;
	for (uint64_t room = 0; room < PL_INLINE_SITE_ROOMS; room++)
		host_control()->spare_sites[room] = 0;
	cr_assert_eq(pl_inline_reader_pass(&reader), 0);
	for (int i = 0; i < 2; i++) {
		started = pl_now_ns();
		sweep();
		cr_assert_lt(pl_now_ns() - started, 2 * INLINE_GRACE_NSEC);
	}
	cr_assert_eq(reuse.sites, 0);
	slot->busy = 0;
	sweep();
	cr_assert_gt(reuse.sites, 0);
	end();
}

enum { TRACES = 600 };

/* A block of each of so many traces, which differ by the instruction. */
static void allocate_traces(struct host_frame *frame, struct host_code *code, uint64_t base)
{
	*frame = host_frame(NULL, code, 4);
	for (uint64_t i = 0; i < TRACES; i++) {
		frame->instruction = (uint64_t)code->bytecode + 4 + 2 * i;
		host_next = base + i * 64;
		cr_assert_eq(host_malloc(PL_INLINE_OBJ, 100), base + i * 64);
	}
}

static uint64_t live_count(const struct pl_sites *sites)
{
	uint64_t live = 0;

	for (uint32_t i = 0; i < pl_sites_count(sites); i++)
		if (pl_sites_domain(sites, i) == PL_SITE_PYTHON)
			live += pl_sites_totals((struct pl_sites *)sites, i)->allocated_count -
				pl_sites_totals((struct pl_sites *)sites, i)->freed_count;
	return live;
}

/* What a second tracer saw alive was freed, and its rows given away by the first one, between two of its looks. */
Test(reuse, another_tracer_sees_that_it_was_freed)
{
	struct pl_inline_reader second;
	struct host_frame frame;
	struct host_thread thread = {&interpreter, self_pointer(), &frame};

	begin(4, use_few);
	second = (struct pl_inline_reader){.read = read_self, .context = &tables, .find_caller = find_caller, .minor = 11,
		.config = *host_config, .sites = pl_sites_new()};
	cr_assert_eq(pl_inline_reader_init(&second), 0);
	tls_current = &thread;
	allocate_traces(&frame, host_code_new("/srv/burst.py", "burst", 1), 0x100000000);
	cr_assert_eq(pl_inline_reader_pass(&second), 0);
	cr_assert_eq(live_count(second.sites), TRACES);
	for (uint64_t i = 0; i < TRACES; i++)
		host_free(PL_INLINE_OBJ, 0x100000000 + i * 64);
	sweep();
	sweep();
	cr_assert_gt(reuse.sites, TRACES / 2);
	cr_assert_eq(pl_inline_reader_pass(&second), 0);
	cr_assert_eq(live_count(second.sites), 0);
	/* And what has the rows then is seen, too. */
	allocate_traces(&frame, host_code_new("/srv/other.py", "other", 1), 0x200000000);
	cr_assert_eq(pl_inline_reader_pass(&second), 0);
	cr_assert_eq(live_count(second.sites), TRACES);
	tls_current = NULL;
	pl_inline_reader_free(&second);
	pl_sites_free(second.sites);
	end();
}

/* A row of blocks that are older, made since the tracer's pass, has the frames of another row, which stays. */
Test(reuse, frames_that_came_to_be_shared_stay)
{
	struct host_frame frame;
	struct host_thread thread = {&interpreter, self_pointer(), &frame};
	uint32_t last;

	begin(4, use_few);
	tls_current = &thread;
	allocate_traces(&frame, host_code_new("/srv/burst.py", "burst", 1), 0x100000000);
	last = entry_of(0x100000000 + (TRACES - 1) * 64) >> PL_INLINE_SITE_SHIFT;
	for (uint64_t i = 0; i < TRACES; i++)
		host_free(PL_INLINE_OBJ, 0x100000000 + i * 64);
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(pl_inline_reader_pass(&reader), 0);
		inline_reuse_note(&reuse, &reader);
	}
	/* Freed by a thread that allocated at `last` before, and goes on elsewhere. */
	host_free(PL_INLINE_OBJ, 0x180000000);
	frame = host_frame(NULL, host_code_new("/srv/elsewhere.py", "f", 1), 4);
	host_next = 0x200000000;
	(void)host_malloc(PL_INLINE_OBJ, 100);
	inline_reuse_sweep(&reuse, &tables, &reader, true);
	cr_assert_gt(reuse.sites, TRACES / 2);
	cr_assert(((const struct pl_inline_site *)host_config->sites)[last].hash, "row %u has frames of another one", last);
	tls_current = NULL;
	end();
}

/* Rows in the lists of the recorder; each once. */
static uint64_t count_spare(void)
{
	static bool seen[SITES];
	uint64_t count = 0;

	memset(seen, 0, sizeof(seen));
	for (int room = 0; room < PL_INLINE_SITE_ROOMS; room++) {
		uint32_t number = pl_inline_spare_number(host_control()->spare_sites[room]);

		for (; number; number = ((const struct pl_inline_totals *)host_config->totals)[number].next, count++) {
			cr_assert_lt(number, SITES);
			cr_assert_not(seen[number]);
			seen[number] = true;
		}
	}
	return count;
}

/* Killed after it had freed rows, and before the recorder was told: the next sweep gives them. */
Test(reuse, rows_that_a_killed_tracer_had_freed)
{
	struct host_frame frame;
	struct host_thread thread = {&interpreter, self_pointer(), &frame};
	uint32_t in_hand;

	begin(4, use_few);
	tls_current = &thread;
	for (uint64_t burst = 0; burst < 2; burst++) {
		allocate_traces(&frame, host_code_new(burst ? "/srv/next.py" : "/srv/burst.py", "burst", 1), 0x100000000);
		for (uint64_t i = 0; i < TRACES; i++)
			host_free(PL_INLINE_OBJ, 0x100000000 + i * 64);
		sweep();
		sweep();
		if (burst)
			break;
		cr_assert_gt(count_spare(), TRACES / 2);
		/* One of them has just been taken by the recorder, which fills it while the next sweep waits for it. */
		in_hand = pl_inline_spare_number(host_control()->spare_sites[1]);
		memset(host_control()->spare_sites, 0, sizeof(host_control()->spare_sites));
		((struct pl_inline_site *)host_config->sites)[in_hand].hash = 12345;
	}
	cr_assert_geq(count_spare(), 2 * (uint64_t)TRACES - 3);
	cr_assert_eq(((const struct pl_inline_site *)host_config->sites)[in_hand].hash, 12345);
	tls_current = NULL;
	end();
}

/* Where glibc has struct pthread, from the thread pointer on: it begins there, or (aarch64) ends. */
#ifdef __x86_64__
enum { DESCRIPTOR_AT = 0 };
#else
enum { DESCRIPTOR_AT = -2048 };
#endif

static void use_tid(struct pl_inline_config *config)
{
	const pid_t tid = gettid();

	use_few(config);
	for (int32_t at = DESCRIPTOR_AT; at < DESCRIPTOR_AT + 2048 && !config->thread_tid; at += 4)
		if (*(const pid_t *)(self_pointer() + (uint64_t)(int64_t)at) == tid)
			config->thread_tid = at;
	cr_assert_neq(config->thread_tid, 0);
}

static struct host_frame dying_frame;

static void *die_in_a_hook(void *argument)
{
	struct host_thread thread = {&interpreter, self_pointer(), &dying_frame};
	struct pl_inline_slot *slot;

	(void)argument;
	tls_current = &thread;
	host_next = 0x300000000;
	(void)host_malloc(PL_INLINE_OBJ, 100);
	for (uint64_t i = 1; i <= host_config->slot_count; i++) {
		slot = (struct pl_inline_slot *)(host_config->slots + host_config->slot_stride * i);
		if (slot->owner == self_pointer())
			slot->outer = (uint64_t)__builtin_frame_address(0);
	}
	return NULL;
}

Test(reuse, nobody_waits_for_a_dead_thread)
{
	struct host_frame frame;
	struct host_thread thread = {&interpreter, self_pointer(), &frame};
	struct host_code *code;
	pthread_t dying;
	bool left = false;

	begin(4, use_tid);
	code = host_code_new("/srv/burst.py", "burst", 1);
	tls_current = &thread;
	dying_frame = host_frame(NULL, code, 4);
	cr_assert_eq(pthread_create(&dying, NULL, die_in_a_hook, NULL), 0);
	cr_assert_eq(pthread_join(dying, NULL), 0);
	for (uint64_t i = 1; i <= host_config->slot_count; i++)
		left |= ((struct pl_inline_slot *)(host_config->slots + host_config->slot_stride * i))->outer != 0;
	cr_assert(left);
	allocate_traces(&frame, code, 0x100000000);
	for (uint64_t i = 0; i < TRACES; i++)
		host_free(PL_INLINE_OBJ, 0x100000000 + i * 64);
	sweep();
	sweep();
	cr_assert_gt(reuse.sites, TRACES / 2);
	tls_current = NULL;
	end();
}
