/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "../../src/python/python_private.h"
#include "spaces.h"

/* A str laid out by hand in our own memory, and read as if it were another's. */
static struct pl_python python;
static uint8_t string_type[256], other_type[256];

static void set_up(int minor, bool free_threaded)
{
	uint64_t flags = 1u << 28;

	memset(&python, 0, sizeof(python));
	python.space = space_of(getpid());
	python.minor = minor;
	cr_assert_eq(layout_table(minor, 0, free_threaded, &python.layout), 0);
	memcpy(string_type + python.layout.type_flags, &flags, sizeof(flags));
}

enum { COMPACT = 1, ASCII = 2 };

static uint8_t *make(const void *data, unsigned int kind, uint64_t length, int flags)
{
	uint8_t *object = calloc(1, 128 + kind * length);
	uint64_t type = (uint64_t)string_type, pointer;
	uint32_t compact = flags & COMPACT ? 1 : 0, ascii = flags & ASCII ? 1 : 0, state;

	cr_assert(object);
	state = python.layout.string_state_wide ? kind << 8 | compact << 11 | ascii << 12 :
						  kind << 2 | compact << 5 | ascii << 6;
	memcpy(object + python.layout.object_type, &type, sizeof(type));
	memcpy(object + python.layout.string_length, &length, sizeof(length));
	memcpy(object + python.layout.string_state, &state, sizeof(state));
	if (!(flags & COMPACT)) {
		pointer = (uint64_t)data;
		memcpy(object + python.layout.string_data_pointer, &pointer, sizeof(pointer));
	} else {
		memcpy(object + (ascii ? python.layout.string_ascii_data : python.layout.string_compact_data), data,
			kind * length);
	}
	return object;
}

static void expect(uint8_t *object, size_t max_bytes, const char *expected)
{
	char *text = NULL;
	int r = pl_python_string(&python, (uint64_t)object, max_bytes, &text);

	cr_expect_eq(r, 0, "%d", r);
	if (r == 0)
		cr_expect_str_eq(text, expected);
	free(text);
	free(object);
}

static void expect_error(uint8_t *object, int error)
{
	char *text = NULL;

	cr_expect_eq(pl_python_string(&python, (uint64_t)object, 100, &text), error);
	cr_expect_null(text);
}

Test(string, every_kind_in_every_layout)
{
	static const uint16_t two[] = { 'a', 0xe9, 0x65e5 };
	static const uint32_t four[] = { 'a', 0xe9, 0x65e5, 0x1f600 };

	for (int i = 6; i <= 15 + 3; i++) {
		set_up(i <= 15 ? i : i - 3, i > 15);
		expect(make("", 1, 0, COMPACT | ASCII), 100, "");
		expect(make("app.py", 1, 6, COMPACT | ASCII), 100, "app.py");
		expect(make("caf\xe9", 1, 4, COMPACT), 100, "caf\xc3\xa9");
		expect(make(two, 2, 3, COMPACT), 100, "a\xc3\xa9\xe6\x97\xa5");
		expect(make(four, 4, 4, COMPACT), 100, "a\xc3\xa9\xe6\x97\xa5\xf0\x9f\x98\x80");
		expect(make("legacy", 1, 6, ASCII), 100, "legacy");
		expect(make(two, 2, 3, 0), 100, "a\xc3\xa9\xe6\x97\xa5");
	}
}

Test(string, replaces_what_is_no_character)
{
	static const uint16_t lone[] = { 'a', 0xdc80, 0xd800 };
	static const uint32_t beyond[] = { 0x10ffff, 0x110000, 0xffffffff };

	set_up(11, false);
	expect(make(lone, 2, 3, COMPACT), 100, "a\xef\xbf\xbd\xef\xbf\xbd");
	expect(make(beyond, 4, 3, COMPACT), 100, "\xf4\x8f\xbf\xbf\xef\xbf\xbd\xef\xbf\xbd");
}

Test(string, cuts_between_characters)
{
	static const uint16_t two[] = { 0x65e5, 0x672c };

	set_up(11, false);
	expect(make("abcdef", 1, 6, COMPACT | ASCII), 4, "abcd");
	expect(make("abcdef", 1, 6, COMPACT | ASCII), 0, "");
	expect(make(two, 2, 2, COMPACT), 5, "\xe6\x97\xa5");
	expect(make("\xe9\xe9", 1, 2, COMPACT), 3, "\xc3\xa9");
}

Test(string, refuses_what_is_no_string)
{
	uint8_t *object;
	uint64_t pointer = (uint64_t)other_type;

	set_up(11, false);
	object = make("a", 1, 1, COMPACT | ASCII);
	memcpy(object + 8, &pointer, sizeof(pointer));
	expect_error(object, -EINVAL); /* another type */
	pointer = 8;
	memcpy(object + 8, &pointer, sizeof(pointer));
	expect_error(object, -EINVAL); /* no type */
	free(object);
	object = make("abc", 3, 1, COMPACT);
	expect_error(object, -EINVAL); /* no such kind */
	free(object);
	object = make("a", 0, 1, COMPACT);
	expect_error(object, -EINVAL); /* not ready */
	free(object);
	expect_error(NULL, -EINVAL);
	object = make((void *)16, 1, 10, ASCII);
	expect_error(object, -EFAULT); /* its data are not there */
	free(object);
}

Test(string, does_not_believe_a_length)
{
	long page = sysconf(_SC_PAGESIZE);
	uint8_t *pages = mmap(NULL, (size_t)page * 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *object;
	uint64_t length = UINT64_MAX / 2;

	set_up(11, false);
	cr_assert_neq(pages, MAP_FAILED);
	cr_assert_eq(munmap(pages + page, (size_t)page), 0);
	object = make("abc", 1, 3, COMPACT | ASCII);
	memcpy(object + python.layout.string_length, &length, sizeof(length));
	memcpy(pages + page - 64, object, 64);
	free(object);
	expect_error(pages + page - 64, -EFAULT);
	length = UINT64_MAX;
	memcpy(pages + page - 64 + python.layout.string_length, &length, sizeof(length));
	expect_error(pages + page - 64, -EINVAL);
	(void)munmap(pages, (size_t)page);
}
