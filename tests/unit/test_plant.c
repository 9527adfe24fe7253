/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../src/hook/remove.h"
#include "pyleak/breakpoint_abi.h"
#include "pyleak/hook.h"
#include "pyleak/inline_abi.h"
#include "pyleak/inline_config.h"
#include "pyleak/memory.h"
#include "pyleak/page.h"
#include "pyleak/process.h"
#include "pyleak/units.h"

/*
 * The breakpoint probe in a child that has allocator tables like an interpreter's and four threads
 * that call through them without pause, checking every result. The tracer comes and goes, and dies
 * at each of its steps and at random instants.
 */

#define THREADS 4
/* Four threads that never rest can keep a busy machine from anything else for seconds. */
#define PATIENCE_NSEC (10 * PL_NSEC_PER_SEC)
#define ROUNDS_OF_COMING_AND_GOING 60
#define RANDOM_DEATHS 60

/* Of an emulated machine's, as the integration tests have it: so much slower it is, and goes so many rounds less. */
static int patience(void)
{
	const char *text = getenv("PYLEAK_PATIENCE");
	int value = text ? atoi(text) : 1;

	return value < 1 ? 1 : value;
}

struct table {
	void *ctx;
	void *(*malloc)(void *, size_t);
	void *(*calloc)(void *, size_t, size_t);
	void *(*realloc)(void *, void *, size_t);
	void (*free)(void *, void *);
};

static struct table tables[3]; /* same address in parent and child */
static volatile uint64_t *progress;

static void *plain_malloc(void *ctx, size_t size)
{
	return ctx == &tables ? malloc(size) : NULL;
}

static void *plain_calloc(void *ctx, size_t count, size_t size)
{
	return ctx == &tables ? calloc(count, size) : NULL;
}

static void *plain_realloc(void *ctx, void *pointer, size_t size)
{
	return ctx == &tables ? realloc(pointer, size) : NULL;
}

static void plain_free(void *ctx, void *pointer)
{
	if (ctx != &tables)
		_exit(5);
	free(pointer);
}

static void *hammer(void *argument)
{
	size_t id = (size_t)argument;
	volatile struct table *table = tables;

	for (uint64_t i = 0;; i++) {
		volatile struct table *t = &table[i % 3];
		uint64_t *block = t->malloc(t->ctx, 64);

		if (!block)
			_exit(6);
		block[0] = i;
		block[7] = ~i;
		block = t->realloc(t->ctx, block, 4096);
		if (!block || block[0] != i || block[7] != ~i)
			_exit(7);
		t->free(t->ctx, block);
		block = t->calloc(t->ctx, 4, 8);
		if (!block || block[0] || block[3])
			_exit(8);
		t->free(t->ctx, block);
		progress[id]++;
	}
	return NULL;
}

/* Told an address, it has that in a register from then on. */
static void *hold_an_address(void *argument)
{
	uint64_t address;

	(void)argument;
	while (!(address = progress[THREADS]))
		usleep(1000);
	progress[THREADS + 1] = address;
	for (;;)
		__asm__ volatile("" : : "r"(address));
	return NULL;
}

static pid_t start_child(void)
{
	progress = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < 3; i++)
		tables[i] = (struct table){&tables, plain_malloc, plain_calloc, plain_realloc, plain_free};

	pid_t pid = fork();

	if (pid == 0) {
		pthread_t thread;

		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (size_t i = 0; i < THREADS; i++)
			pthread_create(&thread, NULL, hammer, (void *)i);
		pthread_create(&thread, NULL, hold_an_address, NULL);
		for (;;)
			pause();
	}
	while (!progress[THREADS - 1])
		usleep(1000);
	return pid;
}

static void assert_goes_on(pid_t pid, const char *when)
{
	for (int t = 0; t < THREADS; t++) {
		uint64_t before = progress[t];
		int status;

		for (int i = 0; i < 5000 * patience() && progress[t] < before + 2; i++)
			usleep(500);
		cr_assert_eq(waitpid(pid, &status, WNOHANG), 0, "the child ended with %#x %s", status, when);
		cr_assert_geq(progress[t], before + 2, "thread %d does not go on %s", t, when);
	}
}

static bool count_hits(struct pl_tracee *tracee, struct pl_thread *thread, const pl_registers *regs)
{
	uint64_t *hits = tracee->context;

	(void)thread;
	uint64_t ip = pl_registers_ip(regs);

	if (ip < PL_PROBE_BASE || ip >= PL_PROBE_BASE + PL_PROBE_PLACES * (uint64_t)PL_PROBE_STRIDE)
		return false;
	++*hits;
	return true;
}

static void fill_plan(struct pl_probe_plan *plan)
{
	*plan = (struct pl_probe_plan){
		.engine = PL_PROBE_BREAKPOINT,
		.image = pl_breakpoint_image,
		.code_size = PL_BREAKPOINT_CODE_SIZE,
		.data_size = PL_BREAKPOINT_DATA_SIZE,
		.armed_offset = PL_BREAKPOINT_ARMED,
		.armed_value = 1,
		.inside_words = 1,
		.inside_offset = PL_BREAKPOINT_INSIDE,
		.scratch_offset = PL_BREAKPOINT_SCRATCH,
		.trap_handler_offset = pl_breakpoint_trap_handler,
		.restorer_offset = pl_breakpoint_restorer,
		.hook_count = PL_BREAKPOINT_HOOKS,
	};
	for (uint32_t i = 0; i < PL_BREAKPOINT_HOOKS; i++) {
		uint64_t word = (uint64_t)&tables[i / 4] + 8 + 8 * (i % 4);

		plan->order[i] = i;
		plan->hooks[i].address = word;
		plan->hooks[i].original = *(uint64_t *)word;
		plan->hooks[i].entry_offset = pl_breakpoint_entries[i].entry;
	}
}

/* Attach, serve for a moment, remove. The number of breakpoints served, or -errno. */
static int64_t come_and_go(pid_t pid, int64_t serve_ns, struct pl_error *err)
{
	struct pl_probe_plan plan;
	struct pl_probe probe;
	struct pl_maps maps = {0};
	struct pl_gadgets gadgets;
	struct pl_tracee *tracee = NULL;
	uint64_t hits = 0;
	int code = pl_maps_read(pid, &maps);

	fill_plan(&plan);
	if (code == 0)
		code = pl_gadgets_find(pid, &maps, &gadgets, err);
	if (code == 0)
		code = pl_tracee_seize(pid, PATIENCE_NSEC, &tracee, err);
	if (code == 0)
		code = pl_probe_plant(tracee, &maps, &gadgets, &plan, &probe, err);
	if (code == 0) {
		tracee->on_breakpoint = count_hits;
		tracee->context = &hits;
		code = pl_tracee_follow_threads(tracee);
		pl_tracee_resume(tracee);

		int64_t end = pl_now_ns() + serve_ns;

		while (code == 0 && pl_now_ns() < end)
			code = pl_tracee_wait(tracee);
		if (code == 0)
			code = pl_tracee_stop(tracee, PATIENCE_NSEC, err);
		if (code == 0)
			code = pl_probe_remove(tracee, &probe, 2 * PL_NSEC_PER_SEC, err);
	}
	pl_tracee_detach(tracee);
	pl_maps_free(&maps);
	return code < 0 ? code : (int64_t)hits;
}

static void assert_no_trace(pid_t pid, const struct table *before)
{
	struct table now[3];

	cr_assert(!pl_probe_present(pid));
	cr_assert_eq(pl_memory_read(pid, (uint64_t)tables, now, sizeof(now)), 0);
	cr_assert_eq(memcmp(now, before, sizeof(now)), 0, "a word was not put back");
}

/* In a process of its own: this one must not have counted a step when it forks the next tracer. */
static void clean_up_once(pid_t pid)
{
	pid_t cleaner = fork();
	int status;

	if (cleaner == 0) {
		struct pl_error err = {0};
		bool found;
		int code = pl_probe_detach(pid, 5 * PL_NSEC_PER_SEC, &found, NULL, &err);

		if (code < 0)
			fprintf(stderr, "%s\n", err.text);
		_exit(code < 0);
	}
	(void)waitpid(cleaner, &status, 0);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "cleaning up: status %#x", status);
}

/* A thread that carries the dead tracer's call makes it when it is given a processor: a mapping may yet appear. */
static void clean_up(pid_t pid, const struct table *before)
{
	clean_up_once(pid);
	for (int i = 0; i < 10 && pl_probe_present(pid); i++) {
		usleep(20000);
		clean_up_once(pid);
	}
	assert_no_trace(pid, before);
}

static void end_child(pid_t pid)
{
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
}

Test(plant, comes_and_goes_without_a_trace, .timeout = 120)
{
	pid_t pid = start_child();
	struct table before[3];

	memcpy(before, tables, sizeof(before));
	for (int i = 0; i < ROUNDS_OF_COMING_AND_GOING / patience(); i++) {
		struct pl_error err = {0};
		int64_t hits = come_and_go(pid, i % 2 ? 0 : 10 * patience() * PL_NSEC_PER_MSEC, &err);

		cr_assert_geq(hits, 0, "round %d: %s", i, err.text);
		cr_assert(i % 2 || hits > 0, "no breakpoint was served");
		assert_no_trace(pid, before);
		assert_goes_on(pid, "after a removal");
	}
	end_child(pid);
}

static const uint64_t places[] = {PL_PROBE_BASE, PL_PROBE_TABLES_BASE};

static bool is_place(uint64_t address)
{
	return address == places[0] || address == places[1];
}

/* Between the look at the mappings and the stop the process maps where the probe was to be, or its tables. */
Test(plant, leaves_alone_what_was_mapped_in_its_place, .timeout = 60)
{
	for (int taken = 0; taken < 2; taken++) {
		struct pl_error err = {0};
		struct pl_probe_plan plan;
		struct pl_probe probe;
		struct pl_maps maps = {0};
		struct pl_gadgets gadgets;
		struct pl_tracee *tracee = NULL;
		uint64_t *theirs = mmap((void *)places[taken], 4096, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		uint64_t word = 0;
		pid_t pid;

		cr_assert_eq((uint64_t)theirs, places[taken]);
		*theirs = 4711;
		pid = start_child();
		(void)munmap(theirs, 4096);
		cr_assert_eq(pl_maps_read(pid, &maps), 0);
		for (size_t i = 0; i < maps.count; i++)
			if (is_place(maps.items[i].start)) /* not to be seen yet */
				maps.items[i].start = maps.items[i].end = maps.items[i].start - 4096;
		fill_plan(&plan);
		plan.tables_size = 65536;
		cr_assert_eq(pl_gadgets_find(pid, &maps, &gadgets, &err), 0, "%s", err.text);
		cr_assert_eq(pl_tracee_seize(pid, PATIENCE_NSEC, &tracee, &err), 0, "%s", err.text);
		cr_assert_eq(pl_probe_plant(tracee, &maps, &gadgets, &plan, &probe, &err), -EEXIST, "%s", err.text);
		pl_tracee_detach(tracee);
		cr_assert_eq(pl_memory_read_u64(pid, places[taken], &word), 0, "it was unmapped");
		cr_assert_eq(word, 4711);
		cr_assert_neq(pl_memory_read_u64(pid, places[!taken], &word), 0, "our own was not");
		assert_goes_on(pid, "after a failure");
		end_child(pid);
		pl_maps_free(&maps);
	}
}

/* What a thread does that carried the last call of a dead tracer: it is done between the look at the probe and the stop. */
Test(plant, removes_what_is_gone, .timeout = 60)
{
	pid_t pid = start_child();
	struct pl_error err = {0};
	struct pl_probe_plan plan;
	struct pl_probe probe, stale;
	struct pl_maps maps = {0};
	struct pl_gadgets gadgets;
	struct pl_tracee *tracee = NULL;
	struct table before[3];
	bool found;

	memcpy(before, tables, sizeof(before));
	fill_plan(&plan);
	cr_assert_eq(pl_maps_read(pid, &maps), 0);
	cr_assert_eq(pl_gadgets_find(pid, &maps, &gadgets, &err), 0, "%s", err.text);
	cr_assert_eq(pl_tracee_seize(pid, PATIENCE_NSEC, &tracee, &err), 0, "%s", err.text);
	cr_assert_eq(pl_probe_plant(tracee, &maps, &gadgets, &plan, &probe, &err), 0, "%s", err.text);
	pl_tracee_detach(tracee);
	cr_assert_eq(pl_probe_find(pid, &stale), 0);
	cr_assert_eq(pl_probe_detach(pid, PATIENCE_NSEC, &found, NULL, &err), 0, "%s", err.text);
	assert_no_trace(pid, before);

	cr_assert_eq(pl_tracee_seize(pid, PATIENCE_NSEC, &tracee, &err), 0, "%s", err.text);
	cr_assert_eq(pl_probe_remove(tracee, &stale, PATIENCE_NSEC, &err), 0, "%s", err.text);
	pl_tracee_detach(tracee);
	assert_no_trace(pid, before);
	assert_goes_on(pid, "after both");
	end_child(pid);
	pl_probe_free(&stale);
	pl_maps_free(&maps);
}

/* Under a kernel whose programs have 39 bits of addresses, or 42: the stack ends near them. */
Test(plant, places_where_addresses_end_early)
{
	static const char text[] = "00400000-00500000 r-xp 00000000 08:01 7 /usr/bin/python3\n"
				   "5555555000-5555556000 rw-p 00000000 00:00 0 [heap]\n"
				   "7fffffd000-7fffffe000 rw-p 00000000 00:00 0 [stack]\n"
				   "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n";
	const uint64_t tables_size = UINT64_C(17) << 30; /* the recorder's, by src/engine/inline_config.c */
	struct pl_maps maps = {0};
	uint64_t base;

	cr_assert_eq(pl_maps_parse(text, sizeof(text) - 1, &maps), 0);
	cr_assert_eq(pl_maps_end(&maps), 0x7fffffe000);
	base = pl_probe_place(&maps, 0x200000, tables_size);
	cr_assert_eq(base, PL_PROBE_LOW_BASE);
	for (unsigned int i = 0; i < PL_PROBE_LOW_PLACES; i++, base += PL_PROBE_STRIDE) {
		cr_expect_lt(base + PL_PROBE_STRIDE, PL_LANDING_LOW_BASE);
		cr_expect_leq(pl_probe_tables_place(base) + tables_size,
			i + 1 < PL_PROBE_LOW_PLACES ? pl_probe_tables_place(base + PL_PROBE_STRIDE) : 0x5555555000);
	}
	cr_expect_leq(PL_LANDING_LOW_BASE + PL_LANDING_PLACES * PL_LANDING_STRIDE, PL_PROBE_LOW_TABLES_BASE);
	/* What is at the first place already is somebody's. */
	maps.items[1].start = PL_PROBE_LOW_BASE;
	maps.items[1].end = PL_PROBE_LOW_BASE + 4096;
	cr_expect_eq(pl_probe_place(&maps, 0x200000, 0), PL_PROBE_LOW_BASE + PL_PROBE_STRIDE);
	pl_maps_free(&maps);
}

/* One with a routine for errands and with tables, that is planted while the process runs. It hooks one word, through which
 * nobody calls. */
static void fill_running_plan(struct pl_probe_plan *plan, uint8_t *image, uint64_t *word)
{
	const struct pl_inline_image *header = (const void *)(image + PL_INLINE_IMAGE_OFFSET);
	const uint64_t tables_size = 1 << 20, kept = PL_INLINE_KEPT_SIZE;

	memcpy(image, pl_inline_bytes, pl_inline_bytes_size);
	*plan = (struct pl_probe_plan){
		.engine = PL_PROBE_INLINE,
		.image = image,
		.code_size = pl_page_max_end(pl_inline_bytes_size),
		.tables_size = tables_size,
		.tables_kept = kept,
		.armed_value = 1,
		.mark = PL_INLINE_MARKER,
		.errand_entry_offset = header->errand,
		.errand_end_offset = header->errand_end,
		.errand_offset = tables_size - kept + PL_INLINE_ERRAND_OFFSET,
		.inside_words = 2,
		.inside_offset = tables_size - kept,
		.hooks = {{.address = (uint64_t)word, .original = *word, .entry_offset = header->entry[0]}},
		.hook_count = 1,
	};
}

static void unmap_in(pid_t pid, uint64_t address, uint64_t size)
{
	struct pl_error err = {0};
	struct pl_maps maps = {0};
	struct pl_gadgets gadgets;
	struct pl_tracee *tracee = NULL;
	struct pl_remote *remote = NULL;
	int64_t result = -1;

	cr_assert_eq(pl_maps_read(pid, &maps), 0);
	cr_assert_eq(pl_gadgets_find(pid, &maps, &gadgets, &err), 0, "%s", err.text);
	cr_assert_eq(pl_remote_hold(pid, &maps, &gadgets, NULL, &tracee, &remote, &err), 0, "%s", err.text);
	cr_assert_eq(pl_remote_call(remote, SYS_munmap, (const uint64_t[6]){address, size, 0, 0, 0, 0}, &result), 0);
	cr_assert_eq(result, 0);
	cr_assert_eq(pl_remote_end(remote), 0);
	pl_tracee_detach(tracee);
	pl_maps_free(&maps);
}

/* The same of a process that runs: of its two last calls the first is made. */
Test(plant, lets_go_of_what_is_half_gone, .timeout = 60)
{
	static uint64_t word = 4711;
	static uint8_t image[1 << 21];
	pid_t pid = start_child();
	struct pl_error err = {0};
	struct pl_probe_plan plan;
	struct pl_probe probe, stale;
	struct carrier carrier;
	uint64_t now;

	cr_assert_leq(pl_inline_bytes_size, sizeof(image));
	fill_running_plan(&plan, image, &word);
	cr_assert_eq(pl_probe_plant_running(pid, &plan, &probe, NULL, &err), 0, "%s", err.text);
	cr_assert_eq(pl_memory_read_u64(pid, (uint64_t)&word, &now), 0);
	cr_assert_eq(now, probe.hooks[0].entry);
	cr_assert_eq(pl_probe_find(pid, &stale), 0);
	cr_assert_eq(pl_probe_write(pid, (uint64_t)&word, &word, sizeof(word)), 0);
	unmap_in(pid, stale.tables, stale.tables_mapped_size);

	cr_assert_eq(carrier_init(&carrier, pid, &err), 0, "%s", err.text);
	cr_assert_eq(pl_probe_let_go(&carrier, &stale, PATIENCE_NSEC, &err), 0, "%s", err.text);
	cr_assert(!pl_probe_present(pid));
	cr_assert_eq(pl_probe_let_go(&carrier, &stale, PATIENCE_NSEC, &err), 0, "%s", err.text);
	carrier_free(&carrier);
	assert_goes_on(pid, "after all");
	end_child(pid);
	pl_probe_free(&probe);
	pl_probe_free(&stale);
}

/* Of the recorder's own addresses a thread has one in a register for as long as it likes; of an entry it may be about to call. */
Test(plant, lets_go_of_who_has_an_address_left, .timeout = 60)
{
	static uint64_t word = 4711;
	static uint8_t image[1 << 21];

	for (int is_entry = 0; is_entry < 2; is_entry++) {
		pid_t pid = start_child();
		struct pl_error err = {0};
		struct pl_probe_plan plan;
		struct pl_probe probe;
		struct carrier carrier;
		uint64_t address;

		fill_running_plan(&plan, image, &word);
		cr_assert_eq(pl_probe_plant_running(pid, &plan, &probe, NULL, &err), 0, "%s", err.text);
		address = is_entry ? probe.hooks[0].entry : probe.base + PL_INLINE_CONFIG_OFFSET;
		progress[THREADS] = address;
		while (progress[THREADS + 1] != address)
			usleep(1000);
		cr_assert_eq(carrier_init(&carrier, pid, &err), 0, "%s", err.text);
		cr_expect_eq(pl_probe_let_go(&carrier, &probe, is_entry ? PL_NSEC_PER_SEC / 5 : PATIENCE_NSEC, &err),
			is_entry ? -EAGAIN : 0, "%s", err.text);
		cr_expect_eq(pl_probe_present(pid), is_entry != 0);
		carrier_free(&carrier);
		assert_goes_on(pid, "after it was asked for");
		end_child(pid);
		pl_probe_free(&probe);
	}
}

static bool is_in_routine(pid_t pid, pid_t tid, const struct pl_probe *probe)
{
	char path[64], text[256] = "";
	unsigned long long ip = 0;
	FILE *file;

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", (int)pid, (int)tid);
	file = fopen(path, "r");
	if (!file)
		return false;
	/* Of a thread that is in no system call: -1, its stack, its place. */
	if (!fgets(text, sizeof(text), file) || sscanf(text, "-1 %*s %llx", &ip) != 1)
		ip = 0;
	(void)fclose(file);
	return ip >= probe->header.errand_entry && ip < probe->header.errand_end;
}

static bool somebody_is_in_routine(pid_t pid, const struct pl_probe *probe)
{
	pid_t *tids = NULL;
	size_t count = 0;
	bool found = false;

	cr_assert_eq(pl_process_threads(pid, &tids, &count), 0);
	for (size_t i = 0; i < count && !found; i++)
		found = is_in_routine(pid, tids[i], probe);
	free(tids);
	return found;
}

/* A word of the tables that nobody else uses. In a process of its own, as in clean_up_once(), which dies at a step or (0) does
 * not. */
static void change_a_word(const struct pl_probe *probe, uint32_t number, uint32_t step, int *ret_status)
{
	pid_t tracer = fork();

	if (tracer == 0) {
		struct pl_probe_change change = {.address = probe->tables + 65536 + 8 * (uint64_t)number, .desired = 1};
		char text[16];
		int64_t stop_ns;
		int code;

		(void)snprintf(text, sizeof(text), "%u", step);
		setenv("PYLEAK_FAULT", text, 1);
		code = pl_probe_change(probe, &change, 1, &stop_ns);
		_exit(code == 0 && change.done ? 0 : code == -EAGAIN ? EAGAIN : EIO);
	}
	cr_assert_eq(waitpid(tracer, ret_status, 0), tracer);
}

static void plant_in(pid_t pid)
{
	static uint64_t word = 4711;
	static uint8_t image[1 << 21];
	pid_t tracer = fork();
	int status;

	if (tracer == 0) {
		struct pl_error err = {0};
		struct pl_probe_plan plan;
		struct pl_probe probe;

		fill_running_plan(&plan, image, &word);
		_exit(pl_probe_plant_running(pid, &plan, &probe, NULL, &err) == 0 ? 0 : 1);
	}
	(void)waitpid(tracer, &status, 0);
	cr_assert_eq(status, 0);
}

/* In a process that is stopped (^Z) a thread that a dead pyleak has sent on an errand stands where that has put it, and goes
 * on it when the process does. Until then the next pyleak must not tell it another one. */
Test(plant, leaves_an_errand_to_who_was_sent, .timeout = 120)
{
	pid_t pid = start_child();
	struct pl_probe probe;
	int standing = 0, status = 0, other;

	plant_in(pid);
	cr_assert_eq(pl_probe_find(pid, &probe), 0);
	for (uint32_t step = 1; step < 200; step++) {
		struct pl_probe_errand told, then;

		(void)kill(pid, SIGSTOP);
		(void)waitpid(pid, NULL, WUNTRACED);
		change_a_word(&probe, 2 * step, step, &status);
		cr_assert_eq(pl_memory_read(pid, probe.header.errand, &told, sizeof(told)), 0);
		/* Who is there and idle has said that it is done. */
		if (told.state != PL_PROBE_ERRAND_IDLE && somebody_is_in_routine(pid, &probe)) {
			standing++;
			change_a_word(&probe, 2 * step + 1, 0, &other);
			cr_assert(WIFEXITED(other) && WEXITSTATUS(other) == EAGAIN, "step %u: another was sent: %#x", step, other);
			cr_assert_eq(pl_memory_read(pid, probe.header.errand, &then, sizeof(then)), 0);
			cr_assert_eq(memcmp(&told, &then, sizeof(told)), 0, "step %u: what it was told was changed", step);
		}
		(void)kill(pid, SIGCONT);
		assert_goes_on(pid, "after an errand");
		change_a_word(&probe, 2 * step + 1, 0, &other);
		cr_assert(WIFEXITED(other) && WEXITSTATUS(other) == 0, "step %u: %#x", step, other);
		if (WIFEXITED(status))
			break;
		cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "no round came through: status %#x", status);
	cr_assert_gt(standing, 1, "nobody was found in the routine");
	end_child(pid);
	pl_probe_free(&probe);
}

/* A thread is given a processor after all else of a dead tracer was removed, and makes the call that maps the tables. */
Test(plant, finds_tables_that_come_late, .timeout = 60)
{
	void *late = mmap((void *)PL_PROBE_TABLES_BASE, 1 << 20, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE, -1, 0);
	struct pl_error err = {0};
	uint64_t word;
	bool found = false;
	pid_t pid;

	cr_assert_eq((uint64_t)late, PL_PROBE_TABLES_BASE);
	pid = start_child();
	(void)munmap(late, 1 << 20);
	cr_assert_eq(pl_memory_read_u64(pid, PL_PROBE_TABLES_BASE, &word), 0);
	cr_assert_eq(pl_probe_detach(pid, PATIENCE_NSEC, &found, NULL, &err), 0, "%s", err.text);
	cr_assert(found);
	cr_assert_neq(pl_memory_read_u64(pid, PL_PROBE_TABLES_BASE, &word), 0, "they are still there");
	assert_goes_on(pid, "after a removal");
	end_child(pid);
}

/* The step to die at is counted from the tracer's first; the serving loop makes many, and the steps
 * of the removal come behind it, so one series dies early and one has no loop to speak of. */
Test(plant, outlives_its_tracer_at_each_step, .timeout = 300)
{
	pid_t pid = start_child();
	struct table before[3];
	int step, status = 0;

	memcpy(before, tables, sizeof(before));
	for (step = 1; step < 2000; step += patience()) {
		pid_t tracer = fork();

		if (tracer == 0) {
			char text[16];

			snprintf(text, sizeof(text), "%d", step);
			setenv("PYLEAK_FAULT", text, 1);
			_exit(come_and_go(pid, 0, NULL) >= 0 ? 0 : 1);
		}
		(void)waitpid(tracer, &status, 0);

		char when[32];

		snprintf(when, sizeof(when), "after step %d", step);
		assert_goes_on(pid, when);
		if (WIFEXITED(status))
			break;
		cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		clean_up(pid, before);
		assert_goes_on(pid, when);
	}
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "no round came through: status %#x", status);
	cr_assert_gt(step, 60, "only %d steps", step);
	end_child(pid);
}

Test(plant, outlives_its_tracer_at_random_instants, .timeout = 300)
{
	pid_t pid = start_child();
	struct table before[3];

	memcpy(before, tables, sizeof(before));
	srand(1);
	for (int i = 0; i < RANDOM_DEATHS / patience(); i++) {
		pid_t tracer = fork();

		if (tracer == 0) {
			for (;;)
				(void)come_and_go(pid, PL_NSEC_PER_MSEC, NULL);
		}
		usleep((unsigned int)(rand() % 30000 * patience()));
		(void)kill(tracer, SIGKILL);
		(void)waitpid(tracer, NULL, 0);
		assert_goes_on(pid, "after a random death");
		clean_up(pid, before);
	}
	end_child(pid);
}
