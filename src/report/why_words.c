/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "pyleak/why_report.h"

/* What both forms of the answer say. */

const char *pl_why_name(enum pl_why_kind kind)
{
	static const char *const names[PL_WHY_KINDS] = {
		[PL_WHY_LEAK] = "leak",
		[PL_WHY_PERHAPS] = "perhaps",
		[PL_WHY_FRAGMENTED] = "fragmentation",
		[PL_WHY_ELSEWHERE] = "elsewhere",
		[PL_WHY_CACHE] = "cache",
		[PL_WHY_NOTHING] = "nothing",
		[PL_WHY_IDLE] = "idle",
		[PL_WHY_EARLY] = "early",
	};

	return names[kind];
}

const struct pl_frame *pl_why_caller(const struct pl_why *why)
{
	const struct pl_sites *sites = why->report->sites;
	const uint32_t *numbers;
	struct pl_caller own;
	size_t count;

	if (why->row == SIZE_MAX)
		return NULL;
	own = pl_sites_caller(sites, why->report->rows->items[why->row].site);
	numbers = pl_sites_trace(sites, why->report->rows->items[why->row].site, &count, NULL);
	for (size_t i = own.index + 1; own.kind == PL_CALLER_OWN && i < count; i++) {
		const struct pl_frame *frame = pl_sites_frame(sites, numbers[i]);
		/* A comprehension is called on its own line. */
		bool same = strcmp(frame->filename, own.frame->filename) == 0 && frame->line == own.frame->line;

		if (!same && !pl_is_library(frame->filename))
			return frame;
	}
	return NULL;
}

const struct pl_frame *pl_why_allocated_in(const struct pl_why *why)
{
	const struct pl_sites *sites = why->report->sites;
	const struct pl_frame *frame;
	struct pl_caller own;

	if (why->row == SIZE_MAX)
		return NULL;
	own = pl_sites_caller(sites, why->report->rows->items[why->row].site);
	frame = pl_sites_innermost(sites, why->report->rows->items[why->row].site);
	return own.index && pl_is_library(frame->filename) && frame->line ? frame : NULL;
}

static char *text_of(const char *format, ...) __attribute__((format(printf, 1, 2)));
static char *text_of(const char *format, ...)
{
	va_list arguments;
	char *text;
	int length;

	va_start(arguments, format);
	length = vasprintf(&text, format, arguments);
	va_end(arguments);
	return length < 0 ? NULL : text;
}

/* What holds things for everybody is told by its path. */
static const struct {
	const char *path, *advice;
} known_holders[] = {
	{"lru_cache", "give the cache a maxsize; on a method it also keeps every object that the method was called on"},
	{"weakref.finalize._registry", "what weakref.finalize() watches lives on, and so do the arguments: detach() it, or watch what goes"},
	{"sys.modules", "modules are imported under ever new names: take them out of sys.modules, or use another namespace"},
	{".__defaults__", "a default argument is one object for all calls: make it None, and a new one within the function"},
	{".__kwdefaults__", "a default argument is one object for all calls: make it None, and a new one within the function"},
	{"atexit", "what is registered with atexit stays until the end: unregister it"},
};

static char *advise_holder(const char *path)
{
	for (size_t i = 0; i < sizeof(known_holders) / sizeof(known_holders[0]); i++)
		if (strstr(path, known_holders[i].path))
			return strdup(known_holders[i].advice);
	return text_of("take out of %s what is done with, or bound it (by size, by age)", path);
}

static char *advise_leak(const struct pl_why *why)
{
	const struct pl_collector *collector = &why->report->collector;

	switch (why->holding) {
	case PL_WHY_HELD:
		return advise_holder(why->held->held_by[0].path);
	case PL_WHY_CYCLES:
		if (collector->known && !collector->enabled)
			return text_of("the collector of cycles is off: gc.enable(), or gc.collect() now and then");
		return text_of("what a full collection takes is no leak: watch for longer, or break the cycles");
	case PL_WHY_BY_NATIVE:
		return text_of("look at the extension that makes these objects: it keeps them, or forgets a DECREF");
	case PL_WHY_NOT_ASKED:
	case PL_WHY_NOT_SEEN:
	case PL_WHY_REFUSED:
		break;
	}
	return text_of("find what keeps that which this line makes, and let go of it");
}

/* By the largest part of the growth. */
static char *advise_elsewhere(const struct pl_why *why)
{
	const struct pl_rss_growth *growth = &why->report->growth;
	int largest = PL_CAUSE_UNEXPLAINED;

	for (int cause = 0; growth->known && cause < PL_CAUSES; cause++)
		if (growth->causes[cause] > growth->causes[largest])
			largest = cause;
	switch (largest) {
	case PL_CAUSE_TRACKED:
	case PL_CAUSE_ROUNDING:
		return text_of("the rows grow, and not steadily yet: watch for longer");
	case PL_CAUSE_PROCESSES:
		return text_of("processes came, with what they have from their start: no leak, unless more and more of them come");
	case PL_CAUSE_POOLS:
		return text_of("an allocator that is linked into a library took it; its lines are not known");
	case PL_CAUSE_ARENAS_FREE:
	case PL_CAUSE_HEAP_FREE:
		return text_of("it was freed and is held for later: no leak, unless it goes on");
	case PL_CAUSE_FILES:
		return text_of("files that are mapped come into memory: the kernel drops them when it needs room");
	case PL_CAUSE_SHARED:
		return text_of("shared memory: see what is in /dev/shm, and who unlinks it");
	case PL_CAUSE_STACKS:
		return text_of("stacks of threads: see whether threads are started that never end");
	default:
		return text_of("memory that no hooked allocator gave out: 'pyleak doctor' says which objects are not recorded");
	}
}

char *pl_why_advice(const struct pl_why *why)
{
	if (why->cause)
		return strdup(why->cause->remedy);
	switch (why->kind) {
	case PL_WHY_LEAK:
		return advise_leak(why);
	case PL_WHY_PERHAPS:
		return text_of("it may be a cache that fills, or one that is full: watch for longer");
	case PL_WHY_FRAGMENTED:
		return text_of("no leak: keep peaks smaller, or end workers now and then");
	case PL_WHY_ELSEWHERE:
		return advise_elsewhere(why);
	case PL_WHY_IDLE:
	case PL_WHY_NOTHING:
	case PL_WHY_CACHE:
		if (why->workers)
			return text_of("watch the %zu Python process%s that it started as well: pyleak why %d --children", why->workers,
				why->workers == 1 ? "" : "es", (int)why->report->facts.pid);
		if (why->kind != PL_WHY_IDLE)
			break;
		return text_of("ask again while it works");
	case PL_WHY_EARLY:
		return text_of("let it be watched for longer");
	case PL_WHY_KINDS:
		break;
	}
	return text_of("a leak that is slower than this needs longer to be seen");
}
