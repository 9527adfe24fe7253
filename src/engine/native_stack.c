/* SPDX-License-Identifier: MIT */
#include "native_stack.h"

#include <errno.h>
#include <string.h>

/* What runs Python code: _PyEval_EvalFrameDefault() in every version, with what compilers split off it; the tail calls
 * of 3.14; up to 3.8, who replaced the evaluation (PEP 523) comes by the first name. */
static bool runs_python(const char *function)
{
	return strncmp(function, "_PyEval_EvalFrame", 17) == 0 || strncmp(function, "PyEval_EvalFrame", 16) == 0 ||
	       strncmp(function, "_TAIL_CALL_", 11) == 0;
}

/* How the interpreter calls: names of CPython's Objects/call.c, methodobject.c, descrobject.c, typeobject.c. */
static bool calls(const char *function)
{
	static const char *const prefixes[] = {"_PyEval_", "PyEval_", "_PyObject_Call", "_PyObject_Vectorcall",
		"_PyObject_MakeTpCall", "_PyObject_FastCall", "PyObject_Call", "PyObject_Vectorcall",
		"_PyFunction_", "PyFunction_", "cfunction_", "PyCFunction_", "_PyCFunction_", "_PyMethodDef", "method_vectorcall",
		"_PyVectorcall_", "PyVectorcall_", "vectorcall_", "slot_", "type_call", "call_function", "do_call", "object_vacall",
		"_PyStack_", "wrap_", "wrapper_", "method_call", "_PyMethodDescr_", "classmethoddescr_", "call_unbound",
		"vgetargs", "PyRun_", "run_mod", "run_eval", "pymain_", "Py_RunMain", "Py_BytesMain", "builtin_exec"};

	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
		if (strncmp(function, prefixes[i], strlen(prefixes[i])) == 0)
			return true;
	return false;
}

/* The C library, and C++'s, which starts threads by functions of its own. */
static bool is_libc(const char *module)
{
	static const char *const prefixes[] = {"libc.so", "libc-2", "libpthread", "ld-musl", "libc.musl", "libstdc++", "libc++"};
	const char *slash = strrchr(module, '/'), *name = slash ? slash + 1 : module;

	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
		if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
			return true;
	return false;
}

int native_stack_add(void *context, const struct pl_native_frame *frame)
{
	struct native_stack *stack = context;
	const char *module = frame->module ? pl_sites_string(stack->sites, frame->module) : NULL;
	struct pl_frame line;

	stack->failed = frame->module && !module;
	if (!module)
		return 1;
	if (frame->function && runs_python(frame->function)) {
		stack->interpreter = module;
		return 1;
	}
	if (stack->outside && !stack->count && stack->python && strcmp(frame->module, stack->python) == 0) {
		stack->skipped_nameless |= !frame->function;
		return 0;
	}
	stack->full = stack->count == PL_NATIVE_FRAMES_MAX;
	line = (struct pl_frame){
		.filename = frame->filename ? pl_sites_string(stack->sites, frame->filename) : module,
		.function = pl_sites_string(stack->sites, frame->function ? frame->function : "<unknown>"),
		.line = frame->filename ? frame->line : 0,
	};
	stack->failed = !line.filename || !line.function;
	stack->ends_in_libc = is_libc(module);
	if (!stack->ends_in_libc && !stack->failed)
		stack->begins = (struct pl_native_line){line, module};
	if (stack->full)
		return stack->failed;
	if (!frame->function && !stack->nameless && stack->python && strcmp(frame->module, stack->python) == 0)
		stack->nameless = stack->count + 1;
	if (!stack->failed)
		stack->lines[stack->count++] = (struct pl_native_line){line, module};
	return stack->failed;
}

uint32_t native_stack_intern(struct native_stack *stack)
{
	bool more;

	if (stack->failed)
		return UINT32_MAX;
	/* Where what runs Python has no name either, it is at the latest behind the first of these: from 3.14 on it is
	 * many functions, of which a stripped interpreter names one. */
	if (!stack->interpreter && stack->nameless) {
		stack->count = stack->nameless - 1;
		stack->interpreter = stack->python;
		stack->full = false;
	}
	more = !stack->interpreter || stack->full;
	/* In a stripped interpreter what is not exported has no name. */
	while (stack->interpreter && stack->count && strcmp(stack->lines[stack->count - 1].module, stack->interpreter) == 0 &&
		(strcmp(stack->lines[stack->count - 1].frame.function, "<unknown>") == 0 ||
			calls(stack->lines[stack->count - 1].frame.function)))
		stack->count--;
	if (stack->count > stack->limit) {
		stack->count = stack->limit;
		more = true;
	}
	if (!stack->count)
		return UINT32_MAX;
	if (stack->interpreter || stack->has_python || !(stack->no_python || stack->ends_in_libc))
		return pl_sites_intern_stack(stack->sites, stack->lines, stack->count, more);
	if (stack->ends_in_libc)
		stack->thread.begins = stack->begins;
	return pl_sites_intern_thread_stack(stack->sites, stack->lines, stack->count, more, &stack->thread);
}

uint32_t native_stack_intern_outside(struct native_stack *stack)
{
	if (stack->failed)
		return UINT32_MAX;
	/* One without a name may be what runs Python: what is further out asked for nothing. */
	if (!stack->interpreter && (stack->skipped_nameless || !stack->nameless))
		return UINT32_MAX;
	return stack->count ? native_stack_intern(stack) : NATIVE_STACK_INTERPRETERS;
}
