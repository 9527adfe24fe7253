/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pyleak/cleanup.h"
#include "process_private.h"

/* Who descends from a process, as the kernel lists it: children are those of a thread, by the parent that
 * they have now. One that is born or ends meanwhile can be missed; the next look finds it. */

enum { MAX_DESCENDANTS = 4096, CHILDREN_BYTES = 65536 };

struct pids {
	pid_t *items; /* [MAX_DESCENDANTS] */
	size_t count;
};

static void add(struct pids *pids, pid_t pid)
{
	for (size_t i = 0; i < pids->count; i++)
		if (pids->items[i] == pid)
			return;
	if (pids->count < MAX_DESCENDANTS)
		pids->items[pids->count++] = pid;
}

/* /proc/PID/task/TID/children, which has a line of numbers. */
static int add_children_of(pid_t pid, pid_t tid, char *text, struct pids *ret)
{
	char name[48], *end = text;

	(void)snprintf(name, sizeof(name), "task/%d/children", (int)tid);

	ssize_t got = pl_proc_read(pid, name, text, CHILDREN_BYTES);

	for (const char *at = text; got > 0; at = end) {
		long child = strtol(at, &end, 10);

		if (end == at || child <= 0)
			break;
		add(ret, (pid_t)child);
	}
	return got < 0 ? (int)got : 0;
}

static int add_children(pid_t pid, char *text, struct pids *ret)
{
	pl_autofree pid_t *tids = NULL;
	size_t count;
	int r = pl_process_threads(pid, &tids, &count);

	for (size_t i = 0; r == 0 && i < count; i++)
		(void)add_children_of(pid, tids[i], text, ret); /* the thread may have ended */
	return r;
}

/* A kernel without CONFIG_PROC_CHILDREN: every process is asked for its parent, until nobody new is found. */
static int search_all(struct pids *ret)
{
	pl_autofree pid_t *pids = NULL, *parents = NULL;
	size_t count, before;
	int r = pl_process_list(&pids, &count);

	if (r < 0)
		return r;
	parents = calloc(count + 1, sizeof(*parents));
	if (!parents)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		struct pl_process process;

		parents[i] = pl_process_read(pids[i], &process) == 0 ? process.ppid : 0;
		pl_process_free(&process);
	}
	do {
		before = ret->count;
		for (size_t i = 0; i < count; i++)
			for (size_t j = 0; j < before; j++)
				if (parents[i] == ret->items[j])
					add(ret, pids[i]);
	} while (ret->count > before);
	return 0;
}

int pl_process_thread_children(pid_t pid, pid_t tid, pid_t **ret_pids, size_t *ret_count)
{
	pl_autofree char *text = malloc(CHILDREN_BYTES);
	struct pids found = {calloc(MAX_DESCENDANTS, sizeof(*found.items)), 0};
	int r = text && found.items ? add_children_of(pid, tid, text, &found) : -ENOMEM;

	if (r < 0) {
		free(found.items);
		return r;
	}
	*ret_pids = found.items;
	*ret_count = found.count;
	return 0;
}

int pl_process_family(pid_t pid, pid_t **ret_pids, size_t *ret_count)
{
	pl_autofree char *text = malloc(CHILDREN_BYTES);
	struct pids found = {calloc(MAX_DESCENDANTS, sizeof(*found.items)), 0};
	uint64_t start_time;
	int r = text && found.items ? pl_process_start_time(pid, &start_time) : -ENOMEM;

	if (r == 0) {
		found.items[found.count++] = pid;
		if (access("/proc/thread-self/children", R_OK) != 0)
			r = search_all(&found);
		else
			for (size_t i = 0; i < found.count; i++)
				(void)add_children(found.items[i], text, &found); /* it may have ended: so have its children another parent */
	}
	if (r < 0) {
		free(found.items);
		return r;
	}
	*ret_pids = found.items;
	*ret_count = found.count;
	return 0;
}
