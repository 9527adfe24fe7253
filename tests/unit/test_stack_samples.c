/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

#include "../../src/engine/native_stack.h"
#include "../../src/engine/stack_samples.h"

/* Which native stack a site is shown with, and which frames of one belong into a traceback. */

Test(stack_samples, most_of_the_living)
{
	struct sampled site = {.key = 7};

	cr_assert_eq(stack_samples_choose(&site), UINT32_MAX);
	for (uint64_t block = 1; block <= 5; block++)
		stack_samples_add(&site, block, block <= 3 ? 10 : 20);
	cr_assert_eq(stack_samples_living(&site), 5);
	cr_assert_eq(stack_samples_choose(&site), 10);
	site.samples[0].live = site.samples[1].live = false;
	cr_assert_eq(stack_samples_choose(&site), 20);
	for (size_t i = 0; i < 5; i++)
		site.samples[i].live = false;
	cr_assert_eq(stack_samples_living(&site), 0);
	cr_assert_eq(stack_samples_choose(&site), 10, "of the dead it is most of all");
}

Test(stack_samples, the_dead_make_room_first)
{
	struct sampled site = {.key = 7};

	for (uint64_t block = 1; block <= STACK_SAMPLES_KEPT; block++)
		stack_samples_add(&site, block, 10);
	site.samples[3].live = false;
	stack_samples_add(&site, 100, 20);
	cr_assert_eq(site.count, STACK_SAMPLES_KEPT);
	cr_assert_eq(site.samples[3].block, 100);
	cr_assert_eq(stack_samples_living(&site), STACK_SAMPLES_KEPT);
	/* All live: one after the other. */
	for (uint64_t block = 101; block < 101 + STACK_SAMPLES_KEPT; block++)
		stack_samples_add(&site, block, 30);
	cr_assert_eq(stack_samples_choose(&site), 30);
	/* An address that was given out again. */
	stack_samples_add(&site, 105, 40);
	for (size_t i = 0; i < STACK_SAMPLES_KEPT; i++)
		cr_assert_eq(site.samples[i].stack, site.samples[i].block == 105 ? 40 : 30);
}

Test(stack_samples, many_sites)
{
	struct stack_samples samples = {0};

	for (int round = 0; round < 2; round++)
		for (uint64_t key = 0; key < 65536; key++) {
			struct sampled *site = stack_samples_find(&samples, key);

			cr_assert_not_null(site);
			cr_assert_eq(site->key, key);
			stack_samples_add(site, key, (uint32_t)key);
		}
	cr_assert_eq(samples.count, 65536);
	cr_assert_null(stack_samples_find(&samples, 65536), "there is an end");
	cr_assert_eq(stack_samples_find(&samples, 9)->samples[0].stack, 9);
	stack_samples_free(&samples);
}

#define PYTHON "/usr/bin/python3.11"

static char got[1000];

/* "MODULE:FUNCTION" one after the other, innermost first, as the unwinder says them. */
static void add_frames(struct native_stack *stack, const char *const *frames)
{
	for (; *frames; frames++) {
		char text[200], *function;

		(void)snprintf(text, sizeof(text), "%s", *frames);
		function = strchr(text, ':');
		*function++ = '\0';
		if (native_stack_add(stack, &(struct pl_native_frame){.module = text, .function = *function ? function : NULL}))
			break;
	}
}

/* Frames, into "FUNCTION …", and a '+' if
 * there may be more. */
static const char *frames_of(const char *const *frames, size_t limit, bool outside)
{
	struct pl_sites *sites = pl_sites_new();
	struct native_stack stack = {.sites = sites, .limit = limit, .python = PYTHON, .outside = outside};
	const struct pl_native_line *lines;
	uint32_t number;
	size_t count;
	bool more;

	add_frames(&stack, frames);
	number = outside ? native_stack_intern_outside(&stack) : native_stack_intern(&stack);
	got[0] = '\0';
	if (number == UINT32_MAX)
		return "none";
	if (number == NATIVE_STACK_INTERPRETERS)
		return "the interpreter";
	lines = pl_sites_stack_lines(sites, number, &count, &more);
	for (size_t i = 0; i < count; i++)
		(void)snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s%s", i ? " " : "", lines[i].frame.function);
	(void)strcat(got, more ? "+" : "");
	pl_sites_free(sites);
	return got;
}
#define FRAMES(limit, ...) frames_of((const char *const[]){__VA_ARGS__, NULL}, limit, false)
#define OUTSIDE(...) frames_of((const char *const[]){__VA_ARGS__, NULL}, 64, true)

Test(native_stack, up_to_what_runs_python)
{
	cr_expect_str_eq(FRAMES(64, "x.so:inner", "x.so:outer", PYTHON ":_PyEval_EvalFrameDefault", PYTHON ":main"), "inner outer");
	cr_expect_str_eq(FRAMES(64, "x.so:f", PYTHON ":cfunction_call", PYTHON ":", PYTHON ":_PyObject_MakeTpCall",
				 PYTHON ":_PyEval_EvalFrameDefault"),
		"f");
	/* A module that is part of the interpreter, and what it is called through. */
	cr_expect_str_eq(FRAMES(64, "z.so:deflateInit", PYTHON ":zlib_compressobj", PYTHON ":_TAIL_CALL_CALL", PYTHON ":main"),
		"deflateInit zlib_compressobj");
	/* The same names elsewhere are somebody else's. */
	cr_expect_str_eq(FRAMES(64, "x.so:f", "x.so:call_function", PYTHON ":_PyEval_EvalFrameDefault"), "f call_function");
	/* A call back into Python: what is below its innermost line. */
	cr_expect_str_eq(FRAMES(64, "x.so:f", PYTHON ":_PyEval_EvalFrameDefault", "x.so:calls_back", PYTHON ":_PyEval_EvalFrameDefault"),
		"f");
	cr_expect_str_eq(FRAMES(64, PYTHON ":_PyEval_EvalFrameDefault"), "none");
}

Test(native_stack, what_is_missing_is_said)
{
	cr_expect_str_eq(FRAMES(64, "x.so:f", "c.so:start_thread"), "f start_thread+");
	cr_expect_str_eq(FRAMES(2, "x.so:a", "x.so:b", "x.so:c", PYTHON ":_PyEval_EvalFrameDefault"), "a b+");
	cr_expect_str_eq(FRAMES(3, "x.so:a", "x.so:b", "x.so:c", PYTHON ":_PyEval_EvalFrameDefault"), "a b c");
	cr_expect_str_eq(FRAMES(64, "x.so:", PYTHON ":_PyEval_EvalFrameDefault"), "<unknown>");
}

/* "NAME runs FUNCTION (MODULE), meanwhile FILE"; of a thread whose frames end here. */
static const char *thread_of(const char *const *frames, size_t limit, bool no_python)
{
	struct pl_sites *sites = pl_sites_new();
	struct native_stack stack = {.sites = sites, .limit = limit, .python = PYTHON, .no_python = no_python};
	const struct pl_native_thread *thread;
	uint32_t number;

	stack.thread.name = pl_sites_string(sites, "worker");
	stack.thread.meanwhile = (struct pl_frame){pl_sites_string(sites, "app.py"), pl_sites_string(sites, "f"), 3};
	add_frames(&stack, frames);
	number = native_stack_intern(&stack);
	thread = number == UINT32_MAX ? NULL : pl_sites_stack_thread(sites, number);
	(void)snprintf(got, sizeof(got), "none");
	if (thread)
		(void)snprintf(got, sizeof(got), "%s runs %s (%s), meanwhile %s", thread->name,
			thread->begins.module ? thread->begins.frame.function : "?", thread->begins.module ? thread->begins.module : "?",
			thread->meanwhile.filename);
	pl_sites_free(sites);
	return got;
}
#define THREAD(limit, no_python, ...) thread_of((const char *const[]){__VA_ARGS__, NULL}, limit, no_python)

/* A thread of a library's own, by where its stack ends, however few frames of it are kept. */
Test(native_stack, of_a_thread)
{
	cr_expect_str_eq(THREAD(64, false, "x.so:f", "x.so:loop", "/lib/libc.so.6:start_thread", "/lib/libc.so.6:clone3"),
		"worker runs loop (x.so), meanwhile app.py");
	cr_expect_str_eq(THREAD(1, false, "x.so:f", "x.so:loop", "/lib/libstdc++.so.6:", "/lib/libc.so.6:", "/lib/libc.so.6:"),
		"worker runs loop (x.so), meanwhile app.py");
	/* The stack that was copied ends before. */
	cr_expect_str_eq(THREAD(64, true, "x.so:f", "x.so:g"), "worker runs ? (?), meanwhile app.py");
	/* It may be one of Python's. */
	cr_expect_str_eq(THREAD(64, false, "x.so:f", "x.so:g"), "none");
	cr_expect_str_eq(THREAD(64, false, "x.so:f", PYTHON ":_PyEval_EvalFrameDefault", "/lib/libc.so.6:"), "none");
	cr_expect_str_eq(THREAD(64, false, "x.so:f", PYTHON ":", "/lib/libc.so.6:start_thread"), "none");
}

/* Of a block of Python's allocators: who asked for it, by whatever functions of the interpreter. */
Test(native_stack, who_asked_python)
{
	cr_expect_str_eq(OUTSIDE("x.so:f", PYTHON ":_PyEval_EvalFrameDefault"), "f");
	cr_expect_str_eq(OUTSIDE(PYTHON ":PyObject_Malloc", PYTHON ":_PyObject_New", "x.so:f", PYTHON ":PyObject_Call", "x.so:g",
				 PYTHON ":cfunction_call", PYTHON ":_PyEval_EvalFrameDefault"),
		"f PyObject_Call g");
	cr_expect_str_eq(OUTSIDE(PYTHON ":PyObject_Malloc", PYTHON ":list_append", PYTHON ":_PyEval_EvalFrameDefault", "x.so:f"),
		"the interpreter");
	/* A stripped one: up to 3.13 what runs Python has a name. */
	cr_expect_str_eq(OUTSIDE(PYTHON ":", "x.so:f", PYTHON ":", PYTHON ":_PyEval_EvalFrameDefault"), "f");
	cr_expect_str_eq(OUTSIDE(PYTHON ":", PYTHON ":_PyEval_EvalFrameDefault", "x.so:f"), "the interpreter");
	/* Where it may have none, what is behind a nameless one did perhaps not ask. */
	cr_expect_str_eq(OUTSIDE(PYTHON ":PyObject_Malloc", PYTHON ":", "c.so:start"), "none");
	cr_expect_str_eq(OUTSIDE("x.so:f", PYTHON ":", "c.so:start"), "f");
	cr_expect_str_eq(OUTSIDE(PYTHON ":PyObject_Malloc"), "none");
	cr_expect_str_eq(OUTSIDE("x.so:f", "c.so:start"), "none");
}

/* A stripped interpreter whose evaluation is of many functions. */
Test(native_stack, nameless_python)
{
	cr_expect_str_eq(FRAMES(64, "x.so:f", PYTHON ":PyObject_Vectorcall", PYTHON ":", "m.so:m", PYTHON ":PyEval_EvalCode", PYTHON ":main"),
		"f");
	cr_expect_str_eq(FRAMES(64, "x.so:f", PYTHON ":", PYTHON ":PySequence_List", PYTHON ":_PyEval_EvalFrameDefault"),
		"f <unknown> PySequence_List");
	cr_expect_str_eq(FRAMES(64, "x.so:f", "y.so:", "c.so:start_thread"), "f <unknown> start_thread+");
}

Test(native_stack, endless)
{
	const char *frames[200];
	size_t length = 0;

	for (size_t i = 0; i < 199; i++)
		frames[i] = "x.so:f";
	frames[199] = NULL;
	(void)frames_of(frames, PL_NATIVE_FRAMES_MAX, false);
	for (const char *c = got; *c; c++)
		length += *c == 'f';
	cr_assert_eq(length, PL_NATIVE_FRAMES_MAX);
	cr_assert_eq(got[strlen(got) - 1], '+');
}
