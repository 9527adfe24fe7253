/* SPDX-License-Identifier: MIT */
#include "native_text.h"

#include <stdlib.h>
#include <string.h>

#include "pyleak/text.h"
#include "terms.h"

#define NATIVE_CALLERS_SHOWN 3

const char *native_text_object(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static void print_place(FILE *out, const char *head, const char *module, const char *symbol, const char *filename, int line)
{
	(void)fprintf(out, "    %s: ", head);
	pl_text_print(out, native_text_object(module));
	if (symbol) {
		(void)fputs(" (", out);
		pl_text_print(out, symbol);
		(void)fputc(')', out);
	}
	if (filename) {
		(void)fputs(", ", out);
		pl_text_print(out, filename);
		(void)fprintf(out, ":%d", line);
	}
	(void)fputc('\n', out);
}

/* Who of the native code asked for it; and who that, as far as a row has room. Of Python's own allocators, where an extension
 * asked them: of the inline engine alone, which leaves out what of the interpreter is in between. */
static void print_callers(FILE *out, const struct pl_report *report, const struct pl_row *row, bool traceback_follows)
{
	const struct pl_native_caller *caller =
		row->domain == PL_SITE_NATIVE ? pl_sites_native_caller(report->sites, row->site) : NULL;
	const bool asked = row->domain == PL_SITE_PYTHON && strcmp(report->facts.engine, "inline") == 0;
	struct pl_traceback traceback;

	if (caller)
		print_place(out, TERM_NATIVE, caller->module, caller->symbol, caller->filename, caller->line);
	if ((!caller && !asked) || traceback_follows)
		return;
	pl_sites_traceback(report->sites, row->site, &traceback);
	for (size_t i = caller ? 1 : 0; i < traceback.native && i <= NATIVE_CALLERS_SHOWN; i++) {
		const struct pl_frame *frame = &traceback.frames[i];
		const char *module = traceback.modules[i];

		print_place(out, i ? TERM_CALLED_BY : TERM_NATIVE, module, frame->function,
			frame->filename == module ? NULL : frame->filename, frame->line);
	}
}

static char *format_thread(const struct pl_native_thread *thread)
{
	const char *name = thread->name ? thread->name : "";
	char *text;
	int length;

	if (!thread->begins.module)
		return thread->name ? strdup(name) : NULL;
	length = asprintf(&text, "%s%sruns %s (%s)", name, thread->name ? ", " : "", thread->begins.frame.function,
		native_text_object(thread->begins.module));
	return length < 0 ? NULL : text;
}

struct pl_thread_texts pl_thread_texts_of(const struct pl_sites *sites, const struct pl_row *row)
{
	const struct pl_native_thread *thread =
		row->domain == PL_SITE_NATIVE && row->site != UINT32_MAX ? pl_sites_thread(sites, row->site) : NULL;
	struct pl_thread_texts texts = {0};

	if (!thread)
		return texts;
	texts.thread = format_thread(thread);
	if (thread->meanwhile.filename &&
		asprintf(&texts.meanwhile, "%s:%d", thread->meanwhile.filename, thread->meanwhile.line) < 0)
		texts.meanwhile = NULL;
	return texts;
}

void pl_thread_texts_free(struct pl_thread_texts *texts)
{
	free(texts->thread);
	free(texts->meanwhile);
	*texts = (struct pl_thread_texts){0};
}

static void print_line(FILE *out, const char *head, const char *text)
{
	if (!text)
		return;
	(void)fprintf(out, "    %s: ", head);
	pl_text_print(out, text);
	(void)fputc('\n', out);
}

void native_text_print(FILE *out, const struct pl_report *report, const struct pl_row *row, bool traceback_follows)
{
	/* A library's own thread: which line of Python it worked for is not known, but which one was busy meanwhile. */
	struct pl_thread_texts texts = pl_thread_texts_of(report->sites, row);

	print_callers(out, report, row, traceback_follows);
	print_line(out, TERM_THREAD, texts.thread);
	print_line(out, TERM_MEANWHILE, texts.meanwhile);
	pl_thread_texts_free(&texts);
}
