/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pyleak/unwind.h"
#include "spaces.h"

/* This process looks at itself. */
struct seen {
	char text[2000]; /* "function@file:line|..." */
	int limit;
};

static int see(void *context, const struct pl_native_frame *frame)
{
	struct seen *seen = context;
	const char *slash = frame->filename ? strrchr(frame->filename, '/') : NULL;
	size_t length = strlen(seen->text);

	(void)snprintf(seen->text + length, sizeof(seen->text) - length, "%s@%s:%d|",
		frame->function ? frame->function : "?", slash ? slash + 1 : "?", frame->filename ? frame->line : 0);
	return --seen->limit > 0 ? 0 : 1;
}

static struct pl_stack_copy copy;
static unsigned char bytes[1024];
static int inlined_line;

/* What a hook sees: where its call returns to, and the caller's registers after that. */
static __attribute__((noinline, no_sanitize("address"))) uint64_t hook(void)
{
	copy.pc = (uint64_t)__builtin_return_address(0);
	copy.sp = (uint64_t)__builtin_dwarf_cfa();
	copy.bp = *(const uint64_t *)__builtin_frame_address(0);
	copy.start = copy.sp;
	/* The frames of the test runner above are larger than this. */
	copy.size = sizeof(bytes);
	for (size_t i = 0; i < copy.size; i += 8)
		__builtin_memcpy(bytes + i, (const void *)(copy.start + i), 8);
	copy.bytes = bytes;
	return copy.pc;
}

static inline __attribute__((always_inline)) uint64_t inlined_leak(void)
{
	inlined_line = __LINE__ + 1;
	return hook() + 1;
}

/* By the name that a C++ compiler would give it. */
uint64_t leak(int) __asm__("_ZN6module4leakEi");
__attribute__((noinline)) uint64_t leak(int number)
{
	uint64_t at = inlined_leak();

	__asm__ volatile("" : "+r"(at), "+r"(number));
	return at - (uint64_t)number;
}

static __attribute__((noinline)) uint64_t outer(void)
{
	uint64_t at = leak(1);

	__asm__ volatile("" : "+r"(at));
	return at;
}

Test(unwind, functions_at_an_address)
{
	struct pl_unwinder *unwinder = pl_unwinder_new(space_of(getpid()));
	struct seen seen = {.limit = 10};
	char wanted[100];

	cr_assert_eq(pl_unwind_address(unwinder, outer(), see, &seen), 0);
	(void)snprintf(wanted, sizeof(wanted), "inlined_leak@test_unwind.c:%d|module::leak(int)@test_unwind.c:%d|",
		inlined_line, inlined_line + 7);
	cr_assert_str_eq(seen.text, wanted);
	seen = (struct seen){.limit = 1};
	cr_assert_eq(pl_unwind_address(unwinder, copy.pc, see, &seen), 1);
	cr_assert_eq(pl_unwind_address(unwinder, 4096, see, &seen), -ENOENT);
	pl_unwinder_free(unwinder);
	pl_unwinder_free(NULL);
}

Test(unwind, without_dwarf)
{
	struct pl_unwinder *unwinder = pl_unwinder_new(space_of(getpid()));
	struct seen seen = {.limit = 10};

	cr_assert_eq(pl_unwind_address(unwinder, (uint64_t)(uintptr_t)&getpid + 1, see, &seen), 0);
	cr_assert_not_null(strstr(seen.text, "getpid@"), "%s", seen.text);
	pl_unwinder_free(unwinder);
}

Test(unwind, stack)
{
	struct pl_unwinder *unwinder = pl_unwinder_new(space_of(getpid()));
	struct seen seen = {.limit = 4};

	(void)outer();
	cr_assert_eq(pl_unwind_stack(unwinder, &copy, 30, see, &seen), 1);
	cr_assert_not_null(strstr(seen.text, "inlined_leak@test_unwind.c"), "%s", seen.text);
	cr_assert_not_null(strstr(seen.text, "|module::leak(int)@test_unwind.c"), "%s", seen.text);
	cr_assert_not_null(strstr(seen.text, "|outer@test_unwind.c"), "%s", seen.text);
	/* The copy ends: so does the walk. */
	copy.size = 8;
	seen = (struct seen){.limit = 30};
	cr_assert_eq(pl_unwind_stack(unwinder, &copy, 30, see, &seen), 0);
	copy.pc = 4096;
	cr_assert_eq(pl_unwind_stack(unwinder, &copy, 30, see, &seen), -ENOENT);
	pl_unwinder_free(unwinder);
}

/* Of symbols as compilers write them. */
Test(unwind, names_that_can_be_read)
{
	static const struct {
		const char *symbol, *name;
	} table[] = {
		{"_ZN6module4leakEi", "module::leak(int)"},
		{"_ZN4core3fmt5write17h0123456789abcdefE", "core::fmt::write"},
		{"_RNvNtCs1234_7mycrate3foo3bar", "mycrate::foo::bar"},
		{"__pyx_pw_4work_1keep", "work.keep"},
		{"__pyx_pw_7package_6module_5Store_3add_more", "package.module.Store.add_more"},
		{"__pyx_pw_4work_3add_more", "work.add_more"},
		{"__pyx_pf_4work_keep.isra.0", "work.keep"},
		{"__pyx_f_4work_5Store_add", "work.Store.add"},
		{"__pyx_gb_4work_2generator", "work.generator"},
		{"__pyx_fuse_1__pyx_f_4work_add", "work.add"},
		{"__pyx_pw_999999999999999999999_1keep", "_1keep"},
		{"__pyx_pw_4wor", "wor"},
		{"__Pyx_PyObject_Call", NULL},
		{"malloc", NULL},
		{"_Z", NULL},
		{"_R", NULL},
		{"__pyx_fuse_", NULL},
		{"", NULL},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		char *name = pl_readable_symbol(table[i].symbol);

		if (table[i].name)
			cr_expect(name && strcmp(name, table[i].name) == 0, "%s: %s for %s", table[i].symbol, name, table[i].name);
		else
			cr_expect_null(name, "%s: %s", table[i].symbol, name);
		free(name);
	}
}
