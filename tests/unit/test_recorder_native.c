/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
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
	uint64_t self;

	__asm__("mov %%fs:0, %0" : "=r"(self));
	return self;
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

static struct host_interpreter *interpreters = &main_interpreter;
static uint64_t leader_offset; /* 0: this thread is the first one */

static void adjust(struct pl_inline_config *config)
{
	config->leader = self_pointer() + leader_offset;
	config->leader_thread = (uint64_t)&main_thread;
	config->interpreters_head = (uint64_t)&interpreters;
	config->native = 1;
	for (uint32_t kind = 0; kind < PL_INLINE_NATIVE_KINDS; kind++)
		for (uint32_t i = 0; i < pl_inline_native_count((enum pl_inline_native)kind); i++)
			config->original[pl_inline_native_first((enum pl_inline_native)kind) + i] =
				kind == PL_INLINE_NATIVE_POSIX_MEMALIGN ? (uint64_t)original_place :
				kind == PL_INLINE_NATIVE_MUNMAP		? (uint64_t)original_code :
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

static __attribute__((noinline)) uint64_t take(uint64_t address, uint64_t size)
{
	volatile uint64_t block; /* the call is no jump */

	host_next = address;
	block = NATIVE(ALLOC)(size, 0, 0);
	return block;
}

Test(recorder_native, the_python_line_and_the_caller)
{
	begin(PL_INLINE_GIL);
	cr_assert_eq(take(0x10000000, 5000), 0x10000000);
	expect_live(5000, 1);
	cr_assert_eq(last_row()->domain, 1);
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

Test(recorder_native, another_thread_without_the_gil)
{
	leader_offset = 4096;
	begin(PL_INLINE_GIL);
	host_current = NULL;
	(void)take(0x10000000, 1000);
	cr_assert_eq(last_row()->count, 0);
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
			cr_assert_eq(last_row()->domain, 0);
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
	cr_assert_eq(last_row()->domain, 1);
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
