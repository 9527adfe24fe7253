/* SPDX-License-Identifier: MIT */
#include "checks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pyleak/cleanup.h"
#include "pyleak/engine.h"
#include "pyleak/headroom.h"
#include "pyleak/hook.h"
#include "pyleak/landing.h"
#include "pyleak/maps.h"
#include "pyleak/text.h"
#include "pyleak/trace.h"
#include "pyleak/units.h"

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

static void __attribute__((format(printf, 2, 3))) note_down(char note[PL_CHECK_NOTE], const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(note, PL_CHECK_NOTE, format, arguments);
	va_end(arguments);
	/* Some of it is a name of the process's. */
	pl_text_blank(note, strlen(note));
}

static int check_alive(struct pl_subject *subject, char note[PL_CHECK_NOTE], struct pl_error *err)
{
	const struct pl_process *process = &subject->process;
	char rss[PL_SIZE_TEXT];

	pl_format_size((int64_t)process->rss, false, rss);
	note_down(note, "it runs: %d thread%s, RSS %s", process->threads, process->threads == 1 ? "" : "s", rss);
	return pl_process_check(process, PL_PROCESS_IS_ALIVE, err);
}

static int check_program(struct pl_subject *subject, char note[PL_CHECK_NOTE], struct pl_error *err)
{
	note_down(note, "64-bit, " PL_ARCH_NAME);
	return pl_process_check(&subject->process, PL_PROCESS_HAS_PROGRAM, err);
}

static int check_tracer(struct pl_subject *subject, char note[PL_CHECK_NOTE], struct pl_error *err)
{
	note_down(note, "nobody traces it");
	return pl_process_check(&subject->process, PL_PROCESS_HAS_NO_TRACER, err);
}

static int check_permission(struct pl_subject *subject, char note[PL_CHECK_NOTE], struct pl_error *err)
{
	note_down(note, "user %u may trace it (it is user %u's)", (unsigned int)geteuid(), subject->process.uid);
	return pl_process_check(&subject->process, PL_PROCESS_IS_PERMITTED, err);
}

static int check_memory(struct pl_subject *subject, char note[PL_CHECK_NOTE], struct pl_error *err)
{
	note_down(note, "its own");
	return pl_process_check(&subject->process, PL_PROCESS_HAS_OWN_MEMORY, err);
}

static int check_sandbox(struct pl_subject *subject, char note[PL_CHECK_NOTE], struct pl_error *err)
{
	note_down(note, subject->process.seccomp ? "its seccomp filter is its container's, or can be suspended"
						 : "no seccomp filter, no shadow stack");
	return pl_process_check(&subject->process, PL_PROCESS_HAS_NO_SANDBOX, err);
}

static int check_python(struct pl_subject *subject, char note[PL_CHECK_NOTE], struct pl_error *err)
{
	int code = pl_python_open(subject->space, subject->by_force, &subject->python, err);

	if (code == 0)
		note_down(note, "%s in %s (%s)", subject->python->version, subject->python->object_path,
			subject->python->executable_kind);
	return code;
}

/* The kernel is the same for all: it is asked about a page of ours. */
static int check_kernel(struct pl_subject *subject, char note[PL_CHECK_NOTE], struct pl_error *err)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE);
	void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int code = page == MAP_FAILED || madvise(page, size, MADV_WIPEONFORK) < 0 ? -errno : 0;

	(void)subject;
	if (page != MAP_FAILED)
		(void)munmap(page, size);
	note_down(note, "it can hide the recorder's memory from forked children");
	return code < 0 ? pl_fail(err, code, "the kernel cannot hide the probe's memory from forked children (Linux 4.14 can)")
			: 0;
}

/* Of the machine; a process may have its own mind. */
static bool huge_pages_always(void)
{
	pl_autoclose int fd = open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY | O_CLOEXEC);
	char text[64];
	ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	text[length > 0 ? length : 0] = '\0';
	return strstr(text, "[always]") != NULL;
}

static int check_space(struct pl_subject *subject, char note[PL_CHECK_NOTE], struct pl_error *err)
{
	uint64_t size, locked = pl_process_locked(subject->process.pid);
	char text[PL_SIZE_TEXT], locked_text[PL_SIZE_TEXT];
	int code = pl_engine_room(subject->process.pid, &size, err);

	if (code < 0)
		return code;
	pl_format_size((int64_t)size, false, text);
	pl_format_size((int64_t)locked, false, locked_text);
	note_down(note, "room for the recorder's tables (%s of addresses; memory only where something is recorded%s)%s%s%s", text,
		huge_pages_always() ? ", in small pages though huge ones are \"always\"" : "", locked ? "; it has locked " : "",
		locked ? locked_text : "", locked ? " of its memory (mlock), the tables are not locked" : "");
	return 0;
}

int pl_check_headroom(pid_t pid, struct pl_headroom *ret, struct pl_error *err)
{
	char left[PL_SIZE_TEXT], limit[PL_SIZE_TEXT];

	if (pl_headroom_read("", pid, ret) < 0) {
		*ret = (struct pl_headroom){0};
		return 0;
	}
	if (ret->left >= PL_PLANT_BYTES && ret->left >= ret->floor)
		return 0;
	pl_format_size((int64_t)ret->left, false, left);
	pl_format_size((int64_t)ret->limit, false, limit);
	return pl_fail(err, -ENOMEM,
		"process %d has only %s left of %s %s, too little for pyleak to begin with: raise the limit, or free memory",
		(int)pid, left, ret->cgroup ? "its cgroup's" : "the machine's", limit);
}

/* What more is too little depends on what the process does: it is said, not judged. */
static int check_headroom(struct pl_subject *subject, char note[PL_CHECK_NOTE], struct pl_error *err)
{
	struct pl_headroom headroom;
	char left[PL_SIZE_TEXT], limit[PL_SIZE_TEXT];

	int code = pl_check_headroom(subject->process.pid, &headroom, err);

	if (code < 0)
		return code;
	if (!headroom.limit) {
		note_down(note, "not known");
		return 0;
	}
	pl_format_size((int64_t)headroom.left, false, left);
	pl_format_size((int64_t)headroom.limit, false, limit);
	note_down(note, "%s left of %s %s; the recorder takes about a quarter of what it tracks", left,
		headroom.cgroup ? "its cgroup's" : "the machine's", limit);
	return 0;
}

static int check_calls(struct pl_subject *subject, char note[PL_CHECK_NOTE], struct pl_error *err)
{
	struct pl_maps maps = {0};
	struct pl_gadgets gadgets;
	int code = pl_maps_read(subject->process.pid, &maps);

	if (code == 0)
		code = pl_gadgets_find(subject->process.pid, &maps, &gadgets, err);
	pl_maps_free(&maps);
	note_down(note, "its code has what system calls from outside need");
	return code < 0 ? pl_fail(err, code, "process %d cannot be read: %s", (int)subject->process.pid, strerror(-code)) : 0;
}

bool pl_check_is_pyleak(const struct pl_process *process)
{
	return strncmp(process->comm, "pyleak", 6) == 0 && (process->euid == 0 || process->euid == geteuid());
}

int pl_check_claimed(pid_t pid, struct pl_error *err)
{
	pid_t other = pl_probe_claimant(pid);
	struct pl_process process = {0};
	int code;

	if (!other || pl_process_read(other, &process) < 0)
		code = pl_fail(err, -EBUSY, "process %d is being recorded by another pyleak: end that one first", (int)pid);
	else if (pl_check_is_pyleak(&process))
		code = pl_fail(err, -EBUSY, "process %d is being recorded by another pyleak, process %d: end that one first",
			(int)pid, (int)other);
	else
		code = pl_fail(err, -EBUSY,
			"process %d is locked by process %d (%s) of user %u, as if it were recorded by another pyleak: end that one "
			"first, or give --force",
			(int)pid, (int)other, process.comm, process.euid);
	pl_process_free(&process);
	return code;
}

static int check_probe(struct pl_subject *subject, char note[PL_CHECK_NOTE], struct pl_error *err)
{
	pid_t pid = subject->process.pid;
	struct pl_probe probe = {0};
	char stays[640];
	int code = pl_probe_claim(pid);

	pl_probe_unclaim(pid, 0);
	if (code == -EBUSY)
		return pl_check_claimed(pid, err);
	code = pl_probe_find(pid, &probe);
	if (code == -EPROTO)
		return pl_fail(err, code,
			"the probe in process %d was planted by another version of pyleak: read it with that version, or "
			"remove it with 'pyleak detach %d'",
			(int)pid, (int)pid);
	if (code == 0 && !pl_probe_is_kept(&probe) && pl_engine_who_stays(pid, subject->python, stays, sizeof(stays)))
		note_down(note, "one that was left behind: attach and diff remove it first, once that is possible: %s", stays);
	else
		note_down(note, code < 0 ? pl_landing_present(pid) ? "none; a landing page of an earlier recording" : "none" :
			pl_probe_is_kept(&probe) ? "one that records since 'attach --keep': attach and diff go on with it" :
						   "one that was left behind: attach and diff remove it first");
	pl_probe_free(&probe);
	return 0;
}

enum { ALIVE, PROGRAM, TRACER, PERMISSION, MEMORY, SANDBOX, PYTHON, KERNEL, SPACE, HEADROOM, CALLS, PROBE };

#define NEEDS(check) (1u << (check))
#define READABLE (NEEDS(ALIVE) | NEEDS(PROGRAM) | NEEDS(PERMISSION))

const struct pl_check pl_checks[] = {
	[ALIVE] = {"alive", check_alive, 0, false},
	[PROGRAM] = {"program", check_program, NEEDS(ALIVE), false},
	[TRACER] = {"tracer", check_tracer, NEEDS(ALIVE), false},
	[PERMISSION] = {"permission", check_permission, NEEDS(ALIVE) | NEEDS(PROGRAM), false},
	[MEMORY] = {"memory", check_memory, READABLE, false},
	[SANDBOX] = {"sandbox", check_sandbox, NEEDS(ALIVE) | NEEDS(PROGRAM), false},
	[PYTHON] = {"python", check_python, READABLE, false},
	[KERNEL] = {"kernel", check_kernel, 0, true},
	[SPACE] = {"space", check_space, READABLE, true},
	[HEADROOM] = {"headroom", check_headroom, NEEDS(ALIVE) | NEEDS(PROGRAM), true},
	[CALLS] = {"calls", check_calls, READABLE, true},
	[PROBE] = {"probe", check_probe, READABLE, true},
};
const size_t pl_check_count = sizeof(pl_checks) / sizeof(pl_checks[0]);

int pl_subject_open(struct pl_subject *subject, pid_t pid, bool by_force, struct pl_error *err)
{
	int code;

	*subject = (struct pl_subject){.by_force = by_force};
	code = pl_space_of_process(pid, &subject->space);
	if (code < 0)
		return pl_fail(err, code, "out of memory");
	code = pl_process_read(pid, &subject->process);
	if (code == -ESRCH)
		return pl_fail(err, code, "no process %d: see 'pyleak ps'", (int)pid);
	return code < 0 ? pl_fail(err, code, "process %d cannot be read: %s", (int)pid, strerror(-code)) : 0;
}

void pl_subject_close(struct pl_subject *subject)
{
	pl_python_close(PL_TAKE(subject->python));
	pl_space_close(PL_TAKE(subject->space));
	pl_process_free(&subject->process);
}

int pl_checks_before_planting(struct pl_subject *subject, struct pl_error *err)
{
	char note[PL_CHECK_NOTE];
	int code = 0;

	for (size_t i = 0; code == 0 && i < pl_check_count; i++)
		if (!pl_checks[i].planting)
			code = pl_checks[i].run(subject, note, err);
	return code;
}

int pl_checks_before_reading(struct pl_subject *subject, struct pl_error *err)
{
	static const size_t checks[] = {ALIVE, PROGRAM, PERMISSION, MEMORY, PYTHON};
	char note[PL_CHECK_NOTE];
	int code = 0;

	for (size_t i = 0; code == 0 && i < sizeof(checks) / sizeof(checks[0]); i++)
		code = pl_checks[checks[i]].run(subject, note, err);
	return code;
}
