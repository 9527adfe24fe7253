/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

#include "recorder_host.h"

/* The hooks of the C library's allocators: whose a block is, what becomes of it, and that nothing of them
 * stays on a stack when they pass on (host_enter() ends the test if it does). */

static struct host_thread main_thread;
static struct host_interpreter main_interpreter;
static struct host_frame outer, inner;
static int native_result; /* of functions that return a code */

static uint64_t self_pointer(void)
{
	return (uint64_t)__builtin_thread_pointer();
}

static void *entry_of(enum pl_inline_native kind)
{
	return host_entry(0, (int)pl_inline_native_first(kind));
}

#define NATIVE(kind) ((uint64_t(*)(uint64_t, uint64_t, uint64_t))entry_of(PL_INLINE_NATIVE_##kind))
#define NATIVE_LONG(kind) \
	((uint64_t(*)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t))entry_of(PL_INLINE_NATIVE_##kind))

static uint64_t original(uint64_t a, uint64_t b, uint64_t c)
{
	host_enter();
	return host_next;
}

static uint64_t original_place(uint64_t place, uint64_t alignment, uint64_t size)
{
	host_enter();
	*(uint64_t *)place = host_next;
	return (uint64_t)native_result;
}

static uint64_t original_code(uint64_t a, uint64_t b, uint64_t c)
{
	host_enter();
	return (uint64_t)native_result;
}

static uint64_t original_long(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f)
{
	host_enter();
	cr_assert(a == 0 || e == (uint64_t)-1 || f == 0);
	return host_next;
}

static uint64_t pool_status;

static uint64_t original_pool_allocate(uint64_t status, uint64_t self, uint64_t size, uint64_t alignment, uint64_t out,
	uint64_t more)
{
	host_enter();
	*(uint64_t *)status = pool_status;
	*(uint64_t *)out = host_next;
	return status;
}

static uint64_t original_pool_reallocate(uint64_t status, uint64_t self, uint64_t old_size, uint64_t new_size,
	uint64_t alignment, uint64_t block)
{
	host_enter();
	cr_assert_eq(alignment, 64);
	*(uint64_t *)status = pool_status;
	if (!pool_status)
		*(uint64_t *)block = host_next;
	return status;
}

enum { THROWING = PL_INLINE_FIRST_ALLOC + 15 };
static uint64_t quiet_result;

static uint64_t original_quiet(uint64_t a, uint64_t b, uint64_t c)
{
	host_enter();
	return quiet_result;
}

/* Python's allocator, which calls malloc; its free, which calls free. */
static uint64_t calling_malloc(void *context, uint64_t size, uint64_t b)
{
	host_enter();
	return NATIVE(ALLOC)(size + 16, 0, 0);
}

static void calling_free(void *context, uint64_t block)
{
	(void)NATIVE(FREE)(block, 0, 0);
}

static uint64_t leader_stack_end;
static struct host_interpreter *interpreters = &main_interpreter;
static uint64_t leader_offset; /* 0: this thread is the first one */
static bool knows_finalizing, tid_from_self;
static uint64_t finalizing;
static __thread uint32_t kernel_tid;
static uint32_t state_tid;

static void adjust(struct pl_inline_config *config)
{
	config->leader = self_pointer() + leader_offset;
	config->leader_thread = (uint64_t)&main_thread;
	config->interpreters_head = (uint64_t)&interpreters;
	if (knows_finalizing)
		config->finalizing = (uint64_t)&finalizing;
	config->main_interpreter = (uint64_t)&main_interpreter;
	if (tid_from_self) {
		config->thread_tid = (int32_t)((uint64_t)&kernel_tid - self_pointer());
		config->thread_native_id = (int32_t)((uint64_t)&state_tid - (uint64_t)&main_thread);
	}
	config->native = 1;
	config->leader_stack_end = leader_stack_end;
	config->flags[PL_INLINE_FIRST_MMAP + 1] = PL_INLINE_NATIVE_PYTHON;
	config->quiet[15] = (uint64_t)original_quiet;
	config->flags[THROWING] = PL_INLINE_NATIVE_THROWS;
	for (uint32_t kind = 0; kind < PL_INLINE_NATIVE_KINDS; kind++)
		for (uint32_t i = 0; i < pl_inline_native_count((enum pl_inline_native)kind); i++)
			config->original[pl_inline_native_first((enum pl_inline_native)kind) + i] =
				kind == PL_INLINE_NATIVE_POSIX_MEMALIGN ? (uint64_t)original_place :
				kind == PL_INLINE_NATIVE_MUNMAP		? (uint64_t)original_code :
				kind == PL_INLINE_NATIVE_POOL_ALLOCATE ? (uint64_t)original_pool_allocate :
				kind == PL_INLINE_NATIVE_POOL_REALLOCATE ? (uint64_t)original_pool_reallocate :
				kind == PL_INLINE_NATIVE_MMAP || kind == PL_INLINE_NATIVE_MREMAP ? (uint64_t)original_long :
												   (uint64_t)original;
	for (int domain = PL_INLINE_RAW; domain < PL_INLINE_DOMAINS; domain++) {
		config->original[domain * PL_INLINE_FUNCTIONS + PL_INLINE_MALLOC] = (uint64_t)calling_malloc;
		config->original[domain * PL_INLINE_FUNCTIONS + PL_INLINE_FREE] = (uint64_t)calling_free;
	}
}

static void begin(uint32_t mode)
{
	struct host_code *code_a, *code_b;

	host_plant(16, 0, mode, adjust);
	code_a = host_code_new("/a.py", "a", 10);
	code_b = host_code_new("/b.py", "b", 20);
	outer = host_frame(NULL, code_a, 4);
	inner = host_frame(&outer, code_b, 8);
	main_thread = (struct host_thread){&main_interpreter, self_pointer(), &inner};
	host_current = &main_thread;
	native_result = 0;
	/* An allocation under the GIL tells the thread's own slot who it is. */
	if (mode == PL_INLINE_GIL) {
		host_next = 0x70000000;
		(void)host_malloc(PL_INLINE_OBJ, 1);
		host_free(PL_INLINE_OBJ, 0x70000000);
	}
}

static void expect_live(uint64_t size, uint64_t count)
{
	struct host_totals sum = host_sum();

	cr_assert_eq(sum.allocated_size - sum.freed_size, size, "%lu bytes live, not %lu",
		sum.allocated_size - sum.freed_size, size);
	cr_assert_eq(sum.allocated_count - sum.freed_count, count, "%lu blocks live, not %lu",
		sum.allocated_count - sum.freed_count, count);
}

static const struct pl_inline_site *last_row(void)
{
	return (const struct pl_inline_site *)host_config->sites + host_site_count() - 1;
}

/* The same all over a function that allocates no more of the stack: so also when a call of its has returned. */
#if defined(__x86_64__)
#define MOVE_STACK_POINTER "mov %%rsp, %0"
#else
#define MOVE_STACK_POINTER "mov %0, sp"
#endif
#define STACK_POINTER                                                                           \
	({                                                                                      \
		uint64_t sp_;                                                                   \
                                                                                                \
		__asm__ volatile(MOVE_STACK_POINTER : "=r"(sp_));                               \
		sp_;                                                                            \
	})
static __thread uint64_t stack_pointer_of_take;

static __attribute__((noinline, noclone)) uint64_t take(uint64_t address, uint64_t size)
{
	volatile uint64_t block; /* the call is no jump */

	host_next = address;
	block = NATIVE(ALLOC)(size, 0, 0);
	stack_pointer_of_take = STACK_POINTER;
	return block;
}

Test(recorder_native, the_python_line_and_the_caller)
{
	begin(PL_INLINE_GIL);
	cr_assert_eq(take(0x10000000, 5000), 0x10000000);
	expect_live(5000, 1);
	cr_assert_eq(last_row()->kind, 1);
	cr_assert_eq(last_row()->count, 2);

	const uint64_t *frames = (const uint64_t *)host_config->frames + last_row()->frames;

	cr_assert_eq(frames[-1] - (uint64_t)take < 1000, true, "called from %#lx, not from %p", frames[-1], (void *)take);
	cr_assert_eq(pl_inline_frame_offset(frames[0]), 8);
	cr_assert_eq(pl_inline_frame_offset(frames[1]), 4);
	(void)NATIVE(FREE)(0x10000000, 0, 0);
	expect_live(0, 0);
	cr_assert_eq(host_control()->freed_native, 0);
	host_unplant();
}

static void map_own(uint64_t address, uint64_t hint, uint64_t size, int flags)
{
	host_next = address;
	cr_assert_eq(((uint64_t(*)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t))host_entry(
			     0, PL_INLINE_FIRST_MMAP + 1))(hint, size, PROT_READ | PROT_WRITE, (uint64_t)flags, (uint64_t)-1, 0),
		address);
}

/* Chunks of data stacks and what is shared, and not its arenas. */
Test(recorder_native, what_the_interpreter_maps)
{
	begin(PL_INLINE_GIL);
	map_own(0x10000000, 0, 1 << 20, MAP_PRIVATE | MAP_ANONYMOUS);
	map_own(0x10200000, 0, 48 << 10, MAP_PRIVATE | MAP_ANONYMOUS);
	map_own(0x10300000, 0x10300000, 64 << 10, MAP_PRIVATE | MAP_ANONYMOUS);
	expect_live(0, 0);
	map_own(0x10400000, 0, 16 << 10, MAP_PRIVATE | MAP_ANONYMOUS);
	expect_live(16 << 10, 1);
	map_own(0x10500000, 0, 64 << 10, MAP_PRIVATE | MAP_ANONYMOUS);
	map_own(0x10600000, 0, 5000, MAP_SHARED | MAP_ANONYMOUS);
	expect_live((80 << 10) + 5000, 3);
	host_unplant();
}

static uint64_t greenlet[32] __attribute__((aligned(16)));

/* Its data stack is of the line that made it, though another one has begun it. The stack ends at the caller's frame. */
static __attribute__((noinline)) void begin_greenlet(uint64_t running, bool native)
{
	volatile uint64_t on_the_stack[4] = {0, (uint64_t)greenlet, 0, 0};
	const struct pl_inline_site *made;
	uint32_t site;

	host_next = (uint64_t)greenlet;
	if (native)
		(void)NATIVE(ALLOC)(sizeof(greenlet), 0, 0);
	else
		(void)host_malloc(PL_INLINE_OBJ, sizeof(greenlet));
	site = *(const uint32_t *)(((const uint64_t *)host_config->directory)[(uint64_t)greenlet >> PL_INLINE_CHUNK_SHIFT] +
				   ((uint64_t)greenlet >> 2 & (PL_INLINE_CHUNK_BYTES - 4))) >>
	       PL_INLINE_SITE_SHIFT;
	made = (const struct pl_inline_site *)host_config->sites + site;
	cr_assert_eq(made->count, 2);
	const struct pl_inline_totals *totals = (const struct pl_inline_totals *)host_config->totals + site;
	uint64_t before = totals->allocated_size;

	greenlet[7] = running;
	greenlet[8] = (uint64_t)&on_the_stack[3];
	main_thread.frame = NULL;
	map_own(0x10400000, 0, 16 << 10, MAP_PRIVATE | MAP_ANONYMOUS);

	cr_assert_eq(totals->allocated_size - before, running == 1 && !native ? 16 << 10 : 0);
	on_the_stack[0] = 1;
	host_unplant();
}

Test(recorder_native, a_greenlet_that_begins)
{
	leader_stack_end = (uint64_t)__builtin_frame_address(0);
	begin(PL_INLINE_GIL);
	begin_greenlet(1, false);
}

Test(recorder_native, a_greenlet_that_does_not_run)
{
	leader_stack_end = (uint64_t)__builtin_frame_address(0);
	begin(PL_INLINE_GIL);
	begin_greenlet(0x7ffff000, false);
}

/* What the C library gave could be gone. */
Test(recorder_native, no_greenlet)
{
	leader_stack_end = (uint64_t)__builtin_frame_address(0);
	begin(PL_INLINE_GIL);
	begin_greenlet(1, true);
}

static uint64_t pool_take(uint64_t address, uint64_t size)
{
	uint64_t status = 1, block = 0;

	host_next = address;
	cr_assert_eq(NATIVE_LONG(POOL_ALLOCATE)((uint64_t)&status, 1, size, 64, (uint64_t)&block, 0), (uint64_t)&status);
	cr_assert_eq(status, pool_status);
	return block;
}

static uint64_t pool_resize(uint64_t block, uint64_t old_size, uint64_t new_size, uint64_t address)
{
	uint64_t status = 1;

	host_next = address;
	cr_assert_eq(NATIVE_LONG(POOL_REALLOCATE)((uint64_t)&status, 1, old_size, new_size, 64, (uint64_t)&block),
		(uint64_t)&status);
	return block;
}

Test(recorder_native, pools)
{
	begin(PL_INLINE_GIL);
	pool_status = 0;
	cr_assert_eq(pool_take(0x10000000, 5000), 0x10000000);
	expect_live(5000, 1);
	cr_assert_eq(last_row()->count, 2);
	/* Of no bytes: a place that all share. */
	cr_assert_eq(pool_take(0x10008000, 0), 0x10008000);
	expect_live(5000, 1);
	cr_assert_eq(pool_resize(0x10008000, 0, 300, 0x10009000), 0x10009000);
	expect_live(5300, 2);
	cr_assert_eq(pool_resize(0x10000000, 5000, 7000, 0x1000a000), 0x1000a000);
	expect_live(7300, 2);
	pool_status = 1;
	cr_assert_eq(pool_resize(0x1000a000, 7000, 9000, 0x1000b000), 0x1000a000);
	(void)pool_take(0x1000c000, 100);
	expect_live(7300, 2);
	pool_status = 0;
	(void)NATIVE_LONG(POOL_FREE)(1, 0x1000a000, 7000, 64, 0, 0);
	(void)NATIVE_LONG(POOL_FREE)(1, 0x10008000, 0, 64, 0, 0);
	expect_live(300, 1);
	cr_assert_eq(host_control()->freed_native, 0);
	(void)NATIVE_LONG(POOL_FREE)(1, 0x1000f000, 123, 64, 0, 0);
	cr_assert_eq(host_control()->freed_native, 1);
	cr_assert_eq(host_control()->freed_native_size, 123);
	host_unplant();
}

/* In the first thread, which has let go of the GIL. */
Test(recorder_native, the_line_without_the_gil)
{
	begin(PL_INLINE_GIL);
	host_current = NULL;
	(void)take(0x10000000, 1000);
	cr_assert_eq(last_row()->count, 2);
	expect_live(1000, 1);
	(void)NATIVE(FREE)(0x10000000, 0, 0);
	expect_live(0, 0);
	host_unplant();
}

static struct pl_inline_totals all_totals(void)
{
	const struct pl_inline_totals *rows = (const struct pl_inline_totals *)host_config->totals;
	struct pl_inline_totals sum = {0};

	for (uint32_t site = 0; site < PL_INLINE_SITE_FIRST + host_control()->next_site; site++) {
		sum.allocated_count += rows[site].allocated_count;
		sum.freed_count += rows[site].freed_count;
		sum.first_allocated_count += rows[site].first_allocated_count;
		sum.first_freed_count += rows[site].first_freed_count;
		sum.shared_allocated_count += rows[site].shared_allocated_count;
		sum.shared_freed_count += rows[site].shared_freed_count;
	}
	return sum;
}

static void *allocates(void *address)
{
	(void)take((uint64_t)address, 1000);
	(void)NATIVE(FREE)(0x10000000, 0, 0);
	return NULL;
}

/* Nobody adds to another's totals. */
Test(recorder_native, whose_totals)
{
	struct pl_inline_totals before, now;
	pthread_t thread;

	begin(PL_INLINE_GIL);
	before = all_totals();
	(void)take(0x10000000, 1000);
	(void)take(0x10001000, 1000);
	now = all_totals();
	cr_assert_eq(now.allocated_count, before.allocated_count + 2);
	host_current = NULL;
	(void)take(0x10002000, 1000);
	(void)NATIVE(FREE)(0x10001000, 0, 0);
	cr_assert_eq(pthread_create(&thread, NULL, allocates, (void *)0x10003000), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	now = all_totals();
	cr_assert_eq(now.allocated_count, before.allocated_count + 2);
	cr_assert_eq(now.freed_count, before.freed_count);
	cr_assert_eq(now.first_allocated_count, 1);
	cr_assert_eq(now.first_freed_count, 1);
	cr_assert_eq(now.shared_allocated_count, 1);
	cr_assert_eq(now.shared_freed_count, 1);
	expect_live(2000, 2);
	host_unplant();
}

Test(recorder_native, another_thread_without_the_gil)
{
	leader_offset = 4096;
	begin(PL_INLINE_GIL);
	host_current = NULL;
	(void)take(0x10000000, 1000);
	cr_assert_eq(last_row()->count, 0);
	host_unplant();
}

static void begin_worker(void)
{
	leader_offset = 4096;
	knows_finalizing = true;
	begin(PL_INLINE_GIL);
	host_current = NULL;
}

static uint32_t entry_at(uint64_t address)
{
	uint64_t chunk = ((const uint64_t *)host_config->directory)[address >> PL_INLINE_CHUNK_SHIFT];

	return chunk ? *(const uint32_t *)(chunk + (address >> 2 & (PL_INLINE_CHUNK_BYTES - 4))) : 0;
}

/* The frames of what it allocates. */
static uint64_t allocate_and_count(uint64_t address)
{
	(void)take(address, 1000);
	return ((const struct pl_inline_site *)host_config->sites)[entry_at(address) >> PL_INLINE_SITE_SHIFT].count;
}

static uint8_t *reading(void)
{
	return (uint8_t *)host_config->reading;
}

static bool nobody_reads(void)
{
	for (uint64_t i = 0; i <= host_config->slot_count; i++)
		if (reading()[i])
			return false;
	return true;
}

Test(recorder_native, a_worker_without_the_gil)
{
	begin_worker();
	cr_assert_eq(allocate_and_count(0x10000000), 2);
	cr_assert(nobody_reads());
	host_unplant();
}

/* By itself; another state at the same address is known as soon as it allocates with the GIL. */
Test(recorder_native, a_worker_whose_state_was_freed)
{
	begin_worker();
	host_free(PL_INLINE_RAW, (uint64_t)&main_thread);
	cr_assert_eq(allocate_and_count(0x10000000), 0);
	host_current = &main_thread;
	host_next = 0x70000000;
	(void)host_malloc(PL_INLINE_OBJ, 1);
	host_current = NULL;
	cr_assert_eq(allocate_and_count(0x10001000), 2);
	host_unplant();
}

Test(recorder_native, a_state_that_is_not_the_workers)
{
	static struct host_interpreter another;

	tid_from_self = true;
	begin_worker();
	cr_assert_eq(allocate_and_count(0x10000000), 2);
	state_tid = 1; /* it died in its frames, and this thread has its place */
	cr_assert_eq(allocate_and_count(0x10001000), 0);
	kernel_tid = 1;
	cr_assert_eq(allocate_and_count(0x10002000), 2);
	main_thread.id++; /* taken by another thread */
	cr_assert_eq(allocate_and_count(0x10003000), 0);
	main_thread.id--;
	interpreters = &another;
	cr_assert_eq(allocate_and_count(0x10004000), 0);
	interpreters = &main_interpreter;
	main_thread.interpreter = &another;
	cr_assert_eq(allocate_and_count(0x10005000), 0);
	cr_assert(nobody_reads());
	host_unplant();
}

/* Py_Finalize() has begun: nobody begins to read, and what somebody reads is not freed. Nor later, when another
 * interpreter runs and the word is 0 again. */
Test(recorder_native, workers_while_the_interpreter_ends)
{
	begin_worker();
	host_next = 0x10000000;
	(void)host_malloc(PL_INLINE_RAW, 1000);
	host_next = 0x10001000;
	(void)host_malloc(PL_INLINE_RAW, 1000);
	expect_live(2000, 2);
	native_result = 7;
	finalizing = 1;
	reading()[host_config->slot_count] = 1;
	host_free(PL_INLINE_RAW, 0x10000000);
	expect_live(2000, 2);
	cr_assert_eq(NATIVE(MUNMAP)(0x20000000, 4096, 0), 0);
	reading()[host_config->slot_count] = 0;
	host_free(PL_INLINE_RAW, 0x10000000);
	expect_live(1000, 1);
	cr_assert_eq(NATIVE(MUNMAP)(0x20000000, 4096, 0), 7);
	cr_assert_eq(allocate_and_count(0x10002000), 0);
	finalizing = 0;
	cr_assert_eq(allocate_and_count(0x10003000), 0);
	cr_assert(nobody_reads());
	host_unplant();
}

/* In mode OFF too: who reads may have begun before. */
Test(recorder_native, what_is_read_stays_without_recording)
{
	begin_worker();
	host_next = 0x10000000;
	(void)host_malloc(PL_INLINE_RAW, 1000);
	host_control()->mode = PL_INLINE_OFF;
	native_result = 7;
	cr_assert_eq(NATIVE(MUNMAP)(0x20000000, 4096, 0), 7);
	finalizing = 1;
	reading()[1] = 1;
	cr_assert_eq(NATIVE(MUNMAP)(0x20000000, 4096, 0), 0);
	host_unplant();
}

/* Its state may be gone with it; and another interpreter that begins has another state. */
Test(recorder_native, no_line_once_the_interpreter_has_ended)
{
	begin(PL_INLINE_GIL);
	host_current = NULL;
	interpreters = NULL;
	(void)take(0x10000000, 1000);
	cr_assert_eq(last_row()->count, 0);
	interpreters = &main_interpreter;
	(void)take(0x10001000, 1000);
	cr_assert_eq(last_row()->count, 0);
	host_unplant();
}

/* operator new: where there is no memory the original is called to throw, and nothing of ours is on the stack. */
Test(recorder_native, what_throws)
{
	uint64_t (*entry)(uint64_t, uint64_t, uint64_t);

	begin(PL_INLINE_GIL);
	entry = (uint64_t(*)(uint64_t, uint64_t, uint64_t))host_entry(0, THROWING);
	quiet_result = 0x10000000;
	host_next = 0x20000000;
	cr_assert_eq(entry(100, 0, 0), 0x10000000);
	expect_live(100, 1);
	cr_assert_eq(last_row()->count, 2);
	quiet_result = 0;
	host_original_calls = 0;
	cr_assert_eq(entry(200, 0, 0), 0x20000000);
	cr_assert(!host_marker_seen, "it was jumped to");
	expect_live(100, 1);
	host_unplant();
}

Test(recorder_native, every_function)
{
	uint64_t block = 0;

	begin(PL_INLINE_GIL);
	host_next = 0x10000000;
	(void)NATIVE(CALLOC)(10, 30, 0);
	expect_live(300, 1);
	host_next = 0x10001000;
	(void)NATIVE(ALIGNED)(4096, 7, 0);
	expect_live(307, 2);
	host_next = 0x10002000;
	(void)NATIVE(POSIX_MEMALIGN)((uint64_t)&block, 64, 70);
	cr_assert_eq(block, 0x10002000);
	expect_live(377, 3);
	native_result = ENOMEM;
	(void)NATIVE(POSIX_MEMALIGN)((uint64_t)&block, 64, 70);
	expect_live(377, 3);
	host_next = 0x10003000;
	(void)NATIVE(REALLOC)(0x10000000, 1000, 0);
	expect_live(1077, 3);
	host_next = 0x10003000;
	(void)NATIVE(REALLOCARRAY)(0x10003000, 100, 20);
	expect_live(2077, 3);
	/* It could not: the block is still there. */
	host_next = 0;
	(void)NATIVE(REALLOC)(0x10003000, 1 << 20, 0);
	expect_live(2077, 3);
	/* To nothing: it is gone. */
	(void)NATIVE(REALLOC)(0x10003000, 0, 0);
	expect_live(77, 2);
	(void)NATIVE(ALLOC)(100, 0, 0);
	expect_live(77, 2);
	(void)NATIVE(FREE)(0, 0, 0);
	cr_assert_eq(host_control()->freed_native, 0);
	host_unplant();
}

Test(recorder_native, mappings)
{
	enum { DATA = PROT_READ | PROT_WRITE };

	begin(PL_INLINE_GIL);
	host_next = 0x20000000;
	(void)NATIVE_LONG(MMAP)(0, 0x5000, DATA, MAP_PRIVATE | MAP_ANONYMOUS, (uint64_t)-1, 0);
	expect_live(0x5000, 1);
	/* A file, a stack, an address that is only reserved. */
	host_next = 0x21000000;
	(void)NATIVE_LONG(MMAP)(0, 0x5000, DATA, MAP_PRIVATE, 3, 0);
	(void)NATIVE_LONG(MMAP)(0, 0x5000, DATA, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, (uint64_t)-1, 0);
	(void)NATIVE_LONG(MMAP)(0, 0x5000, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, (uint64_t)-1, 0);
	expect_live(0x5000, 1);
	/* The first pages go, and what remains is known by where it begins now. */
	(void)NATIVE(MUNMAP)(0x20000000, 0x2000, 0);
	expect_live(0x3000, 1);
	native_result = -1;
	(void)NATIVE(MUNMAP)(0x20002000, 0x3000, 0);
	expect_live(0x3000, 1);
	native_result = 0;
	host_next = 0x22000000;
	(void)NATIVE_LONG(MREMAP)(0x20002000, 0x3000, 0x9000, MREMAP_MAYMOVE, (uint64_t)-1, 0);
	expect_live(0x9000, 1);
	host_next = (uint64_t)-ENOMEM;
	(void)NATIVE_LONG(MREMAP)(0x22000000, 0x9000, 1ULL << 40, MREMAP_MAYMOVE, (uint64_t)-1, 0);
	expect_live(0x9000, 1);
	(void)NATIVE(MUNMAP)(0x22000000, 0x9000, 0);
	expect_live(0, 0);
	host_unplant();
}

/* In every mode, whichever domain calls malloc in the end. */
Test(recorder_native, a_block_of_pythons_is_counted_once)
{
	static const uint32_t modes[] = {PL_INLINE_GIL, PL_INLINE_THREADS};

	for (size_t i = 0; i < 2; i++)
		for (int domain = PL_INLINE_RAW; domain < PL_INLINE_DOMAINS; domain++) {
			struct host_totals before;

			begin(modes[i]);
			before = host_sum();
			host_next = 0x10000000;
			(void)host_malloc(domain, 1000);
			expect_live(1000, 1);
			cr_assert_eq(host_sum().allocated_count, before.allocated_count + 1);
			cr_assert_eq(last_row()->kind, 0);
			host_free(domain, 0x10000000);
			expect_live(0, 0);
			host_unplant();
		}
	/* The free below one of Python's raw domain is no free of an unknown block. */
	begin(PL_INLINE_GIL);
	host_next = 0x10000000;
	(void)host_malloc(PL_INLINE_RAW, 1000);
	host_free(PL_INLINE_RAW, 0x10000000);
	cr_assert_eq(host_control()->freed_native, 0);
	host_unplant();
}

static void *without_python(void *argument)
{
	host_next = 0x30000000;
	(void)NATIVE(ALLOC)(123, 0, 0);
	return argument;
}

/* A thread that has not the GIL never looks at the frames of the one that has. */
Test(recorder_native, another_thread)
{
	pthread_t thread;

	begin(PL_INLINE_GIL);
	cr_assert_eq(pthread_create(&thread, NULL, without_python, NULL), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	expect_live(123, 1);
	cr_assert_eq(last_row()->kind, 1);
	cr_assert_eq(last_row()->count, 0);
	host_unplant();
}

Test(recorder_native, frees_from_before)
{
	static uint64_t block[6] __attribute__((aligned(16))) = {0, 33};

	begin(PL_INLINE_GIL);
	(void)NATIVE(FREE)((uint64_t)&block[2], 0, 0);
	cr_assert_eq(host_control()->freed_native, 1);
	cr_assert_eq(host_control()->freed_native_size, 0);
	host_unplant();
	begin(PL_INLINE_GIL);
	cr_assert_eq(mprotect(host_code_base, 3 * 4096, PROT_READ | PROT_WRITE | PROT_EXEC), 0);
	host_config->flags[pl_inline_native_first(PL_INLINE_NATIVE_FREE)] = PL_INLINE_NATIVE_GLIBC;
	(void)NATIVE(FREE)((uint64_t)&block[2], 0, 0);
	cr_assert_eq(host_control()->freed_native_size, 24);
	host_unplant();
}

/* It has interrupted a hook of this thread, whose stack lies far below the handler's or far above: the slot is not its own, nor
 * may it say that nobody is at work on it. */
Test(recorder_native, a_handler_on_another_stack)
{
	const uint64_t here = (uint64_t)__builtin_frame_address(0);
	const uint64_t interrupted[] = {here - (64 << 20), here + (64 << 20)};
	struct pl_inline_slot *slot = NULL;
	uint64_t address = 0x41000000;

	begin(PL_INLINE_GIL);
	host_next = address;
	cr_assert_eq(NATIVE(ALLOC)(100, 0, 0), address);
	for (uint32_t i = 1; i <= host_config->slot_count && !slot; i++) {
		slot = (struct pl_inline_slot *)(host_config->slots + i * host_config->slot_stride);
		if (slot->owner != self_pointer())
			slot = NULL;
	}
	cr_assert_not_null(slot);
	cr_assert_eq(slot->busy, 0);
	for (int i = 0; i < 2; i++) {
		slot->busy = interrupted[i];
		address += 4096;
		host_next = address;
		cr_assert_eq(NATIVE(ALLOC)(100, 0, 0), address);
		cr_assert_eq(slot->busy, interrupted[i], "%d", i);
		slot->busy = 0;
		cr_assert_eq(host_control()->slotless, 0);
		(void)NATIVE(FREE)(address, 0, 0);
	}
	cr_assert_eq(host_control()->freed_native, 0);
	host_unplant();
}

static struct pl_inline_slot *own_slot(void)
{
	for (uint32_t i = 1; i <= host_config->slot_count; i++) {
		struct pl_inline_slot *slot = (struct pl_inline_slot *)(host_config->slots + i * host_config->slot_stride);

		if (slot->owner == self_pointer())
			return slot;
	}
	cr_assert_fail("no slot");
	return NULL;
}

static struct pl_inline_slot *handlers_slot;
static uint64_t handlers_address, handlers_outer;

static void allocating_handler(int signal)
{
	(void)signal;
	host_next = handlers_address;
	(void)NATIVE(ALLOC)(100, 0, 0);
	handlers_outer = handlers_slot->outer;
}

enum { HANDLERS_STACK = 65536 };

/* What a hook of this thread's says while the handler goes through another one, on a stack of its own. */
static void *interrupt_a_hook(void *stack)
{
	const stack_t alternate = {.ss_sp = stack, .ss_size = HANDLERS_STACK};
	const struct sigaction action = {.sa_handler = allocating_handler, .sa_flags = SA_ONSTACK};
	const uint64_t here = (uint64_t)__builtin_frame_address(0);

	cr_assert_eq(sigaltstack(&alternate, NULL), 0);
	cr_assert_eq(sigaction(SIGUSR1, &action, NULL), 0);
	host_next = 0x41000000;
	cr_assert_eq(NATIVE(ALLOC)(100, 0, 0), 0x41000000);
	handlers_slot = own_slot();
	handlers_slot->outer = here - 4096;
	handlers_address = 0x42000000;
	cr_assert_eq(raise(SIGUSR1), 0);
	cr_assert_eq(handlers_outer, here - 4096, "%lx instead of %lx", handlers_outer, here - 4096);
	/* The handler of another one jumped out of its hook: nobody is in it. */
	handlers_slot->outer = (uint64_t)stack + HANDLERS_STACK / 2;
	host_next = 0x43000000;
	cr_assert_eq(NATIVE(ALLOC)(100, 0, 0), 0x43000000);
	cr_assert_eq(handlers_slot->outer, 0);
	return NULL;
}

Test(recorder_native, a_hook_is_interrupted_on_another_stack)
{
	char *stack = mmap(NULL, HANDLERS_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	leader_stack_end = (uint64_t)__builtin_frame_address(0) + 4096;
	begin(PL_INLINE_GIL);
	(void)interrupt_a_hook(stack);
	host_unplant();
}

/* Its own stack lies below the handler's, or above. */
Test(recorder_native, a_hook_of_another_thread_is_interrupted)
{
	enum { APART = 4 << 20 }; /* nearer above it would be taken for the same stack */
	char *above = mmap(NULL, APART + HANDLERS_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	leader_offset = 16;
	begin(PL_INLINE_GIL);
	for (int i = 0; i < 2; i++) {
		pthread_t thread;
		char *below = i ? mmap((void *)0x100000000, HANDLERS_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) :
				  above + APART;

		cr_assert_eq(pthread_create(&thread, NULL, interrupt_a_hook, below), 0);
		cr_assert_eq(pthread_join(thread, NULL), 0);
	}
	host_unplant();
}

/* Somebody jumped out of a hook, to farther up on the same stack than any handler is from what it interrupts. */
Test(recorder_native, a_hook_that_was_jumped_out_of)
{
	const uint64_t here = (uint64_t)__builtin_frame_address(0);
	uint64_t address = 0x41000000;
	struct pl_inline_slot *slot;

	leader_stack_end = here + 4096;
	begin(PL_INLINE_GIL);
	host_next = address;
	cr_assert_eq(NATIVE(ALLOC)(100, 0, 0), address);
	slot = own_slot();
	for (uint64_t depth = 4096; depth <= 16 << 20; depth *= 2) {
		slot->busy = here - depth;
		host_next = address += 4096;
		cr_assert_eq(NATIVE(ALLOC)(100, 0, 0), address);
		cr_assert_eq(slot->busy, 0, "%lu below", depth);
		cr_assert_eq(host_control()->slotless, 0);
	}
	/* Not the same stack, or a handler's. */
	slot->busy = here - (100 << 20);
	host_next = address += 4096;
	cr_assert_eq(NATIVE(ALLOC)(100, 0, 0), address);
	cr_assert_eq(slot->busy, here - (100 << 20));
	slot->busy = 0;
	host_unplant();
}

Test(recorder_native, switched_off)
{
	begin(PL_INLINE_GIL);
	host_control()->mode = PL_INLINE_OFF;

	uint32_t sites = host_site_count();

	(void)take(0x10000000, 100);
	host_next = 0x10001000;
	(void)NATIVE(REALLOC)(0x10000000, 200, 0);
	(void)NATIVE(FREE)(0x10001000, 0, 0);
	(void)NATIVE_LONG(MMAP)(0, 0x5000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, (uint64_t)-1, 0);
	(void)NATIVE(MUNMAP)(0x10001000, 0x5000, 0);
	cr_assert_eq(host_site_count(), sites);
	expect_live(0, 0);
	host_unplant();
}

/* -- copies of the stack ------------------------------------------------------------------------------- */

static const struct pl_inline_stack *stack_of(uint64_t claim)
{
	return (const struct pl_inline_stack *)host_config->stacks + claim % PL_INLINE_STACKS;
}

/* As the tracer says it of the main thread's stack; here of whatever stack the test runs on. */
static void publish_main(uint64_t low, uint64_t high)
{
	host_control()->main_low = low;
	host_control()->main_high = high;
	host_control()->main_check = pl_inline_bounds_check(0, low, high);
}

static uint64_t here(void)
{
	return (uint64_t)__builtin_frame_address(0);
}

Test(recorder_native, a_stack_is_copied_where_one_is_wanted)
{
	volatile uint64_t mine[64];
	const struct pl_inline_stack *stack;
	const uint64_t *found = NULL, *words;
	uint16_t *skips;

	begin(PL_INLINE_GIL);
	skips = (uint16_t *)host_config->skips;
	for (size_t i = 0; i < 64; i++)
		mine[i] = 0x1234567890abcd00 + i;
	(void)take(0x10000000, 100);
	cr_assert_eq(host_control()->next_stack, 0, "none was granted");
	host_control()->granted_stacks = 2;
	(void)take(0x10000000, 100);
	cr_assert_eq(host_control()->next_stack, 0, "where the stack ends is not known");
	publish_main(here() - 100000, here() + 1024);
	skips[host_site_count() - 1] = 1;
	(void)take(0x10000000, 100);
	cr_assert_eq(host_control()->next_stack, 0, "one is to be let pass");
	cr_assert_not(entry_at(0x10000000) & PL_INLINE_ENTRY_STACK);
	(void)take(0x10000000, 100);
	cr_assert_eq(host_control()->next_stack, 1);
	cr_assert_eq(skips[host_site_count() - 1], PL_INLINE_SKIP_ALL);
	stack = stack_of(0);
	cr_assert_eq(stack->sequence, 1);
	cr_assert_eq(stack->block, 0x10000000);
	cr_assert_eq(stack->size, 100);
	cr_assert_eq(stack->site, host_site_count() - 1);
	cr_assert_eq(stack->pc, ((const uint64_t *)host_config->frames)[last_row()->frames - 1]);
	cr_assert_eq(stack->sp, stack_pointer_of_take);
	cr_assert_leq(stack->sp + stack->bytes, host_control()->main_high);
	cr_assert_gt(stack->sp + stack->bytes, host_control()->main_high - 8);
	words = (const uint64_t *)stack->copy;
	for (size_t i = 0; i < stack->bytes / 8; i++)
		if (words[i] == mine[0])
			found = &words[i];
	cr_assert_not_null(found, "the frame of who called is in it");
	for (size_t i = 0; i < 64; i++)
		cr_assert_eq(found[i], mine[i]);
	/* The block has the mark, and the next one at its address has not. */
	cr_assert_eq(entry_at(0x10000000) >> PL_INLINE_SITE_SHIFT, stack->site);
	cr_assert(entry_at(0x10000000) & PL_INLINE_ENTRY_STACK);
	expect_live(100, 1);
	(void)NATIVE(FREE)(0x10000000, 0, 0);
	expect_live(0, 0);
	(void)take(0x10000000, 100);
	cr_assert_not(entry_at(0x10000000) & PL_INLINE_ENTRY_STACK);
	host_unplant();
}

/* What the tracer does when it asks: the caches miss the site once. */
static void forget_tops(void)
{
	struct pl_inline_slot *slot = (struct pl_inline_slot *)host_config->slots;

	for (size_t i = 0; i < PL_INLINE_TOPS; i++)
		for (size_t way = 0; way < PL_INLINE_TOP_WAYS; way++)
			((uint8_t *)&slot->top[i][way].code)[7] = 0xff;
}

static __attribute__((noinline, noclone)) uint64_t take_pythons(int domain, int function)
{
	volatile uint64_t block;

	block = function == PL_INLINE_MALLOC ? host_malloc(domain, 1000) :
		function == PL_INLINE_CALLOC ? host_calloc(domain, 10, 100) : host_realloc(domain, 0, 1000);
	stack_pointer_of_take = STACK_POINTER;
	return block;
}

/* Of Python's allocators none unless it is asked for, and then one: that of the caller of the hook, whichever it is. */
Test(recorder_native, a_stack_of_a_block_of_pythons)
{
	for (int domain = PL_INLINE_RAW; domain < PL_INLINE_DOMAINS; domain++)
		for (int function = PL_INLINE_MALLOC; function <= PL_INLINE_REALLOC; function++) {
			const struct pl_inline_stack *stack;
			uint16_t *skip;

			begin(PL_INLINE_GIL);
			stack = stack_of(0);
			publish_main(here() - 100000, here() + 1024);
			host_control()->granted_stacks = 1;
			host_next = 0x10000000;
			(void)take_pythons(domain, function);
			host_free(domain, 0x10000000);
			skip = (uint16_t *)host_config->skips + host_site_count() - 1;
			cr_assert_eq(host_control()->next_stack, 0, "nobody asked");
			*skip = 2;
			(void)take_pythons(domain, function);
			host_free(domain, 0x10000000);
			cr_assert_eq(*skip, 2, "it is known, and nothing is looked at");
			forget_tops();
			(void)take_pythons(domain, function);
			host_free(domain, 0x10000000);
			cr_assert_eq(host_control()->next_stack, 0, "one is to be let pass");
			cr_assert_not(entry_at(0x10000000) & PL_INLINE_ENTRY_STACK);
			(void)take_pythons(domain, function);
			cr_assert_eq(host_control()->next_stack, 1);
			cr_assert_eq(*skip, 0);
			cr_assert_eq(stack->sequence, 1);
			cr_assert_eq(stack->block, 0x10000000);
			cr_assert_eq(stack->size, 1000);
			cr_assert_eq(stack->site, host_site_count() - 1);
			cr_assert_eq(stack->sp, stack_pointer_of_take, "%d, %d: %#lx", domain, function, stack->sp);
			cr_assert(entry_at(0x10000000) & PL_INLINE_ENTRY_STACK);
			host_free(domain, 0x10000000);
			expect_live(0, 0);
			/* And none again; nor where none is granted: then it is asked in vain. */
			(void)take_pythons(domain, function);
			cr_assert_not(entry_at(0x10000000) & PL_INLINE_ENTRY_STACK);
			host_free(domain, 0x10000000);
			*skip = 1;
			forget_tops();
			(void)take_pythons(domain, function);
			cr_assert_eq(host_control()->next_stack, 1);
			cr_assert_eq(*skip, 0);
			host_free(domain, 0x10000000);
			host_unplant();
		}
}

/* Every way into an allocation, to where the caller's stack pointer is after the return. */
Test(recorder_native, the_stack_pointer_of_every_function)
{
	const char *names[] = {"malloc", "calloc", "aligned", "realloc", "reallocarray", "posix_memalign", "mmap", "mremap"};

	begin(PL_INLINE_GIL);
	publish_main(here() - 100000, here() + 1024);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const struct pl_inline_stack *stack = stack_of(i);
		uint64_t place;

		host_next = 0x20000000 + i * 0x100000;
		host_control()->granted_stacks = i + 1;
		switch (i) {
		case 0: (void)NATIVE(ALLOC)(1000, 0, 0); break;
		case 1: (void)NATIVE(CALLOC)(10, 100, 0); break;
		case 2: (void)NATIVE(ALIGNED)(64, 1000, 0); break;
		case 3: (void)NATIVE(REALLOC)(0, 1000, 0); break;
		case 4: (void)NATIVE(REALLOCARRAY)(0, 10, 100); break;
		case 5: (void)NATIVE(POSIX_MEMALIGN)((uint64_t)&place, 64, 1000); break;
		case 6:
			(void)NATIVE_LONG(MMAP)
			(0, 1000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, (uint64_t)-1, 0);
			break;
		default:
			(void)NATIVE_LONG(MREMAP)(0x20000000 + 6 * 0x100000, 1000, 1000, MREMAP_MAYMOVE, (uint64_t)-1, 0);
			break;
		}
		cr_assert_eq(host_control()->next_stack, i + 1, "%s", names[i]);
		cr_assert_eq(stack->size, 1000, "%s", names[i]);
		cr_assert_eq(stack->sp, STACK_POINTER, "%s: %#lx", names[i], stack->sp);
	}
	host_unplant();
}

/* Whatever stands there: no byte beyond what was said to be this stack is touched. */
Test(recorder_native, a_stack_is_not_copied_where_it_is_not_known)
{
	const struct {
		int64_t low, high, spoil, granted;
		const char *what;
	} cases[] = {
		{8192, 16384, 0, 1, "the stack pointer is below"},
		{-16384, -8192, 0, 1, "above"},
		{-16384, 16384, 1, 1, "the words do not belong together"},
		{-16384, 16384, 0, PL_INLINE_STACKS + 1, "more is granted than there are places"},
		{-16384, 16384, 0, -1, "the same"},
	};

	begin(PL_INLINE_GIL);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		publish_main(here() + (uint64_t)cases[i].low, here() + (uint64_t)cases[i].high);
		host_control()->main_check ^= (uint64_t)cases[i].spoil;
		host_control()->granted_stacks = (uint64_t)cases[i].granted;
		memset((void *)host_config->skips, 0, 1000);
		(void)take(0x10000000, 100);
		cr_assert_eq(host_control()->next_stack, 0, "%s", cases[i].what);
	}
	/* The same, but right. */
	publish_main(here() - 16384, here() + 64);
	host_control()->granted_stacks = 1;
	memset((void *)host_config->skips, 0, 1000);
	(void)take(0x10000000, 100);
	cr_assert_eq(host_control()->next_stack, 1);
	cr_assert_leq(stack_of(0)->sp + stack_of(0)->bytes, host_control()->main_high);
	expect_live(100, 1);
	host_unplant();
}

/* A thread asks for its stack's bounds, and is copied from when they are there. */
static void *stack_thread(void *unused)
{
	struct pl_inline_bounds *bounds = (void *)host_config->bounds, *own = NULL;
	uint64_t self = self_pointer();

	host_control()->granted_stacks = 1;
	(void)take(0x10000000, 100);
	for (uint64_t i = 0; i <= host_config->slot_count; i++)
		if (bounds[i].owner == self)
			own = &bounds[i];
	cr_assert_not_null(own);
	cr_assert_eq(host_control()->bounds_wanted, 1);
	cr_assert_eq(host_control()->next_stack, 0);
	for (int i = 0; i < 2; i++) {
		own->low = i ? self - 1000000 : here() + 1000; /* first one that the stack pointer is not in */
		own->high = self + 4096;
		own->check = pl_inline_bounds_check(self, own->low, own->high);
		memset((void *)host_config->skips, 0, 1000);
		(void)take(0x10000000, 100);
		cr_assert_eq(host_control()->next_stack, (uint64_t)i);
	}
	cr_assert_leq(stack_of(0)->sp + stack_of(0)->bytes, self);
	cr_assert_eq(host_control()->bounds_wanted, 1);
	return NULL;
}

Test(recorder_native, a_stack_of_another_thread)
{
	pthread_t thread;

	begin(PL_INLINE_GIL);
	cr_assert_eq(pthread_create(&thread, NULL, stack_thread, NULL), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	host_unplant();
}

/* From the byte of the mode on blocks are samples, of rows that say so; what was there before stays what it was. */
Test(recorder_native, samples_from_now_on)
{
	enum { BEFORE = 1000, SINCE = 100000, SIZE = 100 };
	double count = 0;

	begin(PL_INLINE_GIL);
	for (uint64_t i = 0; i < BEFORE; i++)
		(void)take(0x60000000 + 512 * i, SIZE);
	((uint8_t *)&host_control()->mode)[PL_INLINE_SAMPLE_SHIFT / 8] = 13;
	for (uint64_t i = 0; i < SINCE; i++)
		(void)take(0x61000000 + 512 * i, SIZE);
	for (uint64_t i = 0; i < BEFORE; i += 2)
		(void)NATIVE(FREE)(0x60000000 + 512 * i, 0, 0);
	for (uint64_t i = 0; i < SINCE; i += 2)
		(void)NATIVE(FREE)(0x61000000 + 512 * i, 0, 0);
	for (uint32_t site = 0; site < host_site_count(); site++) {
		const struct pl_inline_totals *row = (const struct pl_inline_totals *)host_config->totals + site;
		const struct host_totals totals = host_site(site);

		if (!row->sampling)
			cr_assert_eq(totals.allocated_count - totals.freed_count, totals.allocated_count > 1 ? BEFORE / 2 : 0);
		else
			count += (double)(totals.allocated_count - totals.freed_count) / -expm1(-(double)SIZE / 8192);
	}
	cr_assert_lt(fabs(count - SINCE / 2), 5 * sqrt(SINCE / 2 * 8192.0 / SIZE), "%f", count);
	cr_assert_eq(host_control()->freed_native, 0);
	host_unplant();
}
