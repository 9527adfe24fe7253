/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pyleak/cleanup.h"
#include "pyleak/process.h"
#include "pyleak/units.h"
#include "ptrace.h"
#include "tracee_private.h"

struct pl_thread *thread_find(struct pl_tracee *tracee, pid_t tid)
{
	for (size_t i = 0; i < tracee->count; i++)
		if (tracee->threads[i].tid == tid)
			return &tracee->threads[i];
	return NULL;
}

struct pl_thread *thread_add(struct pl_tracee *tracee, pid_t tid)
{
	if (tracee->count == tracee->capacity) {
		size_t capacity = tracee->capacity ? 2 * tracee->capacity : 16;
		struct pl_thread *threads = reallocarray(tracee->threads, capacity, sizeof(*threads));

		if (!threads)
			return NULL;
		tracee->threads = threads;
		tracee->capacity = capacity;
	}
	tracee->threads[tracee->count] = (struct pl_thread){.tid = tid, .state = PL_THREAD_RUNNING};
	return &tracee->threads[tracee->count++];
}

void threads_forget_gone(struct pl_tracee *tracee)
{
	size_t kept = 0;

	for (size_t i = 0; i < tracee->count; i++)
		if (tracee->threads[i].state != PL_THREAD_GONE)
			tracee->threads[kept++] = tracee->threads[i];
	tracee->count = kept;
}

bool thread_is_own(const struct pl_tracee *tracee, pid_t tid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task/%d", (int)tracee->pid, (int)tid);
	return access(path, F_OK) == 0;
}

void thread_go_on(struct pl_thread *thread, int signal, bool collecting)
{
	if (collecting)
		(void)pl_ptrace_interrupt(thread->tid);
	if (pl_ptrace_continue(thread->tid, signal) == -ESRCH)
		thread->state = PL_THREAD_GONE;
	else
		thread->state = PL_THREAD_RUNNING;
}

bool threads_any_running(const struct pl_tracee *tracee)
{
	for (size_t i = 0; i < tracee->count; i++)
		if (tracee->threads[i].state == PL_THREAD_RUNNING || tracee->threads[i].state == PL_THREAD_LISTENING)
			return true;
	return false;
}

void threads_interrupt(struct pl_tracee *tracee)
{
	if (!tracee->stopped_since)
		tracee->stopped_since = pl_now_ns();
	for (size_t i = 0; i < tracee->count; i++) {
		struct pl_thread *thread = &tracee->threads[i];

		if (thread->state != PL_THREAD_RUNNING && thread->state != PL_THREAD_LISTENING)
			continue;
		if (pl_ptrace_interrupt(thread->tid) == -ESRCH)
			thread->state = PL_THREAD_GONE;
	}
}

bool thread_is_dead(pid_t pid, pid_t tid)
{
	char path[64], line[512];
	pl_autofclose FILE *file = NULL;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", (int)pid, (int)tid);
	file = fopen(path, "re");
	if (!file || !fgets(line, sizeof(line), file))
		return true;

	const char *state = strrchr(line, ')');

	return !state || state[1] == '\0' || state[2] == 'Z' || state[2] == 'X';
}

int threads_seize_new(struct pl_tracee *tracee)
{
	pl_autofree pid_t *tids = NULL;
	size_t count;
	int added = 0;
	int code = pl_process_threads(tracee->pid, &tids, &count);

	if (code < 0)
		return code;
	for (size_t i = 0; i < count; i++) {
		if (thread_find(tracee, tids[i]))
			continue;
		code = late_take(tracee->pid, tids[i]) ? 0 : pl_ptrace_seize(tids[i], PL_TRACE_OPTIONS);
		if (code < 0) {
			if (thread_is_dead(tracee->pid, tids[i]))
				continue;
			return code;
		}
		if (!thread_add(tracee, tids[i])) {
			(void)pl_ptrace_interrupt(tids[i]);
			late_add(tracee->pid, tids[i]);
			return -ENOMEM;
		}
		added++;
	}
	return added;
}

int pl_tracee_follow_threads(struct pl_tracee *tracee)
{
	for (size_t i = 0; i < tracee->count; i++) {
		int code = pl_ptrace_set_options(tracee->threads[i].tid, PL_FOLLOW_OPTIONS);

		if (code < 0 && code != -ESRCH)
			return code;
	}
	tracee->follow_threads = true;
	return 0;
}

int pl_thread_registers(const struct pl_thread *thread, pl_registers *ret)
{
	return pl_ptrace_get_registers(thread->tid, ret);
}

int pl_thread_processor(pid_t pid, pid_t tid)
{
	char path[64], line[1024];
	pl_autofclose FILE *file = NULL;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", (int)pid, (int)tid);
	file = fopen(path, "re");
	if (!file || !fgets(line, sizeof(line), file))
		return -1;

	char *field = strrchr(line, ')');
	char *rest;
	int number = 2; /* the command's name was the second */

	if (!field)
		return -1;
	for (char *word = strtok_r(field + 1, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
		if (++number == 39)
			return atoi(word);
	return -1;
}

void thread_follow_processor(const struct pl_tracee *tracee, pid_t tid)
{
	static int current = -1;
	int processor = pl_thread_processor(tracee->pid, tid);
	cpu_set_t set;

	if (processor < 0 || processor >= CPU_SETSIZE || processor == current)
		return;
	CPU_ZERO(&set);
	CPU_SET(processor, &set);
	if (sched_setaffinity(0, sizeof(set), &set) == 0)
		current = processor;
}
