/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <criterion/criterion.h>

#include "pyleak/arch.h"
#include "pyleak/page.h"

/* src/arch/aarch64: what is written about A64's instructions is asked about some that the assembler makes. */

static int read_own(void *context, uint64_t address, void *buffer, size_t length)
{
	memcpy(buffer, (const void *)address, length);
	return 0;
}

static bool in_words(void *context, uint64_t address)
{
	return address - (uint64_t)context < 4096;
}

#define CODE(name, text) \
	extern const char name[]; \
	__asm__(".pushsection .text\n\t.balign 64\n\t.globl " #name "\n" #name ":\n\t" text "\n\t.balign 64, 0\n\t.popsection")

CODE(self_of_glibc, "mrs x0, tpidr_el0; sub x0, x0, #0x740; ret");
CODE(self_guarded, "hint #34; mrs x1, tpidr_el0; sub x0, x1, #1, lsl #12; ret");
CODE(self_is_pointer, "mrs x0, tpidr_el0; ret");
CODE(self_by_a_word, "mrs x0, tpidr_el0; ldr x0, [x0, #-8]; ret");
CODE(self_too_far, "mrs x0, tpidr_el0; sub x0, x0, #3, lsl #12; ret");

Test(aarch64, what_threads_are_called)
{
	int64_t distance = 1;

	cr_expect_eq(pl_arch_thread_self((uint64_t)self_of_glibc, read_own, NULL, &distance), 0);
	cr_expect_eq(distance, -0x740);
	cr_expect_eq(pl_arch_thread_self((uint64_t)self_guarded, read_own, NULL, &distance), 0);
	cr_expect_eq(distance, -4096);
	cr_expect_eq(pl_arch_thread_self((uint64_t)self_is_pointer, read_own, NULL, &distance), 0);
	cr_expect_eq(distance, 0);
	cr_expect_eq(pl_arch_thread_self((uint64_t)self_by_a_word, read_own, NULL, &distance), -ENOENT);
	cr_expect_eq(pl_arch_thread_self((uint64_t)self_too_far, read_own, NULL, &distance), -ENOENT);
}

/* This C library's own. Called through a pointer that nothing knows, or the compiler would take its own. */
Test(aarch64, what_this_thread_is_called)
{
	pthread_t (*volatile self)(void) = pthread_self;
	int64_t distance = 0;

	cr_assert_eq(pl_arch_thread_self((uint64_t)self, read_own, NULL, &distance), 0);
	cr_expect_eq((uint64_t)__builtin_thread_pointer() + (uint64_t)distance, (uint64_t)self());
}

CODE(local_exec, "mrs x0, tpidr_el0; add x0, x0, #1, lsl #12; add x0, x0, #0x18; ldr x0, [x0, #8]; ret");
CODE(no_thread_local, "adrp x0, words_of_tests; ldr x0, [x0]; ret");
static uint64_t words[512] __asm__("words_of_tests") __attribute__((aligned(4096), used));

Test(aarch64, thread_local_words)
{
	struct pl_thread_local found;

	cr_expect_eq(pl_arch_thread_local((uint64_t)local_exec, read_own, NULL, &found), 0);
	cr_expect_eq(found.offset, 0x1020);
	cr_expect_eq(found.pair, 0);
	cr_expect_eq(found.descriptor, 0);
	cr_expect_eq(pl_arch_thread_local((uint64_t)no_thread_local, read_own, NULL, &found), -ENOENT);
}

CODE(loads_word, "adrp x0, words_of_tests; add x0, x0, :lo12:words_of_tests; ldr x0, [x0, #592]; ret");
/* As GCC compiles a choice of one of three: domain in w0, table in x1. */
CODE(get_allocator, "cmp w0, #1; b.eq 1f; cmp w0, #2; b.eq 2f; adrp x0, words_of_tests; add x0, x0, :lo12:words_of_tests;"
	"ldp q0, q1, [x0, #160]; stp q0, q1, [x1]; ret;"
	"1: adrp x0, words_of_tests; add x0, x0, :lo12:words_of_tests; ldr x2, [x0, #200]; str x2, [x1]; ret;"
	"2: adrp x0, words_of_tests; add x0, x0, :lo12:words_of_tests; ldp x2, x3, [x0, #240]; stp x2, x3, [x1]; ret");

Test(aarch64, words_that_code_loads)
{
	uint64_t found = 0;

	cr_expect_eq(pl_arch_loaded_word((uint64_t)loads_word, read_own, NULL, &found), 0);
	cr_expect_eq(found, (uint64_t)words + 592);
	for (int domain = 0; domain < 3; domain++) {
		cr_expect_eq(pl_arch_walk_get_allocator((uint64_t)get_allocator, domain, read_own, in_words, words, &found), 0);
		cr_expect_eq(found, (uint64_t)words + 160 + 40 * (uint64_t)domain, "%d: %ld", domain,
			(long)(found - (uint64_t)words));
	}
}

static uint64_t twice(uint64_t number)
{
	return 2 * number;
}

static uint64_t thrice(uint64_t number)
{
	return 3 * number;
}

/* A stub is run where a landing page would have it: far from its word, in memory that is not writable. */
Test(aarch64, a_stub_jumps_through_its_word)
{
	enum { AT = 0x810, WORD = PL_PAGE_MAX + 8 };
	uint8_t *page = mmap(NULL, 2 * PL_PAGE_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t (*call)(uint64_t) = (uint64_t (*)(uint64_t))(page + AT);
	uint64_t (*volatile *word)(uint64_t) = (void *)(page + WORD);

	cr_assert_neq(page, MAP_FAILED);
	pl_arch_stub(WORD - AT, page + AT);
	__builtin___clear_cache((char *)page + AT, (char *)page + AT + PL_ARCH_STUB_BYTES);
	cr_assert_eq(mprotect(page, PL_PAGE_MAX, PROT_READ | PROT_EXEC), 0);
	*word = twice;
	cr_expect_eq(call(21), 42);
	*word = thrice;
	cr_expect_eq(call(21), 63);
	(void)munmap(page, 2 * PL_PAGE_MAX);
}

enum { FPSIMD = 0x46508001, SVE = 0x53564501, EXTRA = 0x45585401, RECORDS_AT = 592, RECORDS_BYTES = 4096 };

/* What NT_ARM_SVE would give: every byte of each register is its number, and P and FFR are 0xe0 and on. */
static size_t make_state(uint8_t *state, uint16_t vector_bytes)
{
	const uint16_t header[] = {0, 0, 0, 0, vector_bytes, 256, 1, 0};
	uint8_t *at = state + sizeof(header);
	const uint32_t status[] = {0x11111111, 0x22222222};

	memcpy(state, header, sizeof(header));
	for (int i = 0; i < 32; i++, at += vector_bytes)
		memset(at, i, vector_bytes);
	for (int i = 0; i < 17; i++, at += vector_bytes / 8)
		memset(at, 0xe0 + i, vector_bytes / 8);
	while ((at - state) % 16)
		*at++ = 0;
	memcpy(at, status, sizeof(status));
	return (size_t)(at - state) + 16;
}

/* By the rules of parse_user_sigframe() in arch/arm64/kernel/signal.c. */
static void check_frame(const struct pl_remote_frame *frame, uint16_t vector_bytes)
{
	uint64_t base = frame->address + RECORDS_AT, offset = 0, limit = RECORDS_BYTES;
	bool vectors = false, wide = false, extra = false;

	cr_assert_eq(frame->address % 16, 0);
	for (;;) {
		const uint8_t *at = frame->bytes + (base + offset - frame->address);
		uint32_t head[2];

		cr_assert(limit - offset >= 8 && base + offset + 8 <= frame->address + frame->size);
		memcpy(head, at, sizeof(head));
		cr_assert_eq(offset % 16, 0);
		if (!head[0])
			break;
		cr_assert(head[1] >= 16 && head[1] <= limit - offset && base + offset + head[1] <= frame->address + frame->size);
		if (head[0] == FPSIMD) {
			cr_assert_eq(head[1], 528);
			cr_expect_eq(at[16 + 16 * 7 + 15], 7);
			cr_expect_eq(at[8], 0x11);
			cr_expect_eq(at[12], 0x22);
			vectors = true;
		} else if (head[0] == SVE) {
			uint16_t bytes;

			memcpy(&bytes, at + 8, sizeof(bytes));
			cr_expect_eq(bytes, vector_bytes);
			cr_assert_geq(head[1], 16 + 32U * vector_bytes + 17U * vector_bytes / 8);
			for (int i = 0; i < 32; i++)
				cr_expect_eq(at[16 + i * vector_bytes + vector_bytes - 1], i);
			for (int i = 0; i < 17; i++)
				cr_expect_eq(at[16 + 32 * vector_bytes + i * vector_bytes / 8], 0xe0 + i);
			wide = true;
		} else {
			uint64_t address;
			uint32_t bytes, end[2];

			cr_assert_eq(head[0], EXTRA);
			cr_assert(!extra);
			extra = true;
			memcpy(&address, at + 8, sizeof(address));
			memcpy(&bytes, at + 16, sizeof(bytes));
			memcpy(end, at + head[1], sizeof(end));
			cr_assert_eq(end[0] | end[1], 0);
			cr_assert_eq(address, base + offset + head[1] + 16);
			cr_assert_eq(address % 16 + bytes % 16, 0);
			base = address;
			offset = 0;
			limit = bytes;
			continue;
		}
		offset += head[1];
	}
	cr_expect(vectors && wide);
	cr_expect_eq(extra, vector_bytes >= 112);
}

Test(aarch64, frames_keep_vectors_of_any_length)
{
	uint8_t *state = malloc(16384);

	for (uint16_t vector_bytes = 16; vector_bytes <= 256; vector_bytes += 16) {
		pl_registers regs = {.set = {.sp = 0x7ffffff8, .pc = 0x1000}};
		struct pl_remote_frame frame;
		size_t size = make_state(state, vector_bytes);

		cr_expect(pl_arch_call_loses(state, size));
		cr_assert_eq(pl_arch_remote_frame(&regs, state, size, 0, 0x2000, 0x3000, &frame), 0);
		cr_expect_leq(frame.address + frame.size, regs.set.sp);
		check_frame(&frame, vector_bytes);
		free(frame.bytes);
		/* Cut: it is nothing that could be put back. */
		cr_expect_eq(pl_arch_remote_frame(&regs, state, size - 32, 0, 0x2000, 0x3000, &frame), -EINVAL);
	}
	free(state);
}

Test(aarch64, a_thread_without_sve_loses_nothing)
{
	uint8_t narrow[528] = {0}, header_and_narrow[544] = {0};

	cr_expect(!pl_arch_call_loses(narrow, sizeof(narrow)));
	cr_expect(!pl_arch_call_loses(header_and_narrow, sizeof(header_and_narrow)));
}
