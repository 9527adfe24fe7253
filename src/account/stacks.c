/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "account_private.h"
#include "pyleak/cleanup.h"
#include "pyleak/process.h"
#include "pyleak/units.h"

/*
 * Where the stacks are. The kernel names the first thread's. The C library puts the thread pointer, which Python knows of
 * its threads, at the top of a thread's stack; the stack of any other thread is where its stack pointer is, which
 * /proc/PID/task/TID/syscall tells while it waits (a thread that runs is in the rest). Below a stack there is no access
 * (a guard page); above it the kernel may have joined other memory to its mapping.
 */

enum {
	STACK_MAX = 8 << 20,      /* what threads get unless they ask for something else */
	STACK_MIN = 16 * PL_PAGE, /* the first thread's thread pointer is in a mapping of some pages */
	THREAD_HEAD = 4096,       /* struct pthread is smaller */
};
#define SEEN_NSEC (100 * PL_NSEC_PER_MSEC)

static uint64_t stack_pointer(pid_t pid, pid_t tid)
{
	char path[64], text[256];
	pl_autoclose int fd = -1;
	const char *last;
	ssize_t length;

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", (int)pid, (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (length <= 0)
		return 0;
	text[length] = '\0';
	/* "NUMBER ARGUMENT… SP PC", or "running" */
	last = strrchr(text, ' ');
	if (!last)
		return 0;
	while (last > text && last[-1] != ' ')
		last--;
	return strtoull(last, NULL, 16);
}

static int compare_starts(const void *a, const void *b)
{
	const struct pl_range *first = a, *second = b;

	return (first->start > second->start) - (first->start < second->start);
}

static uint64_t resident_bytes(struct pl_space *space, struct pl_range range)
{
	uint8_t pages[STACK_MAX / PL_PAGE];
	uint64_t count, bytes = 0;

	/* It grows downwards. */
	if (range.end - range.start > STACK_MAX)
		range.start = range.end - STACK_MAX;
	count = (range.end - range.start) / PL_PAGE;
	if (pl_space_pages(space, range, pages) < 0)
		return 0;
	for (uint64_t i = 0; i < count; i++)
		bytes += pages[i] ? PL_PAGE : 0;
	return bytes;
}

/* The stack that this address lies in: at its top, if it is the thread pointer. */
static struct pl_range stack_around(const struct pl_maps *maps, uint64_t address, bool is_top)
{
	const struct pl_map *map = address ? pl_maps_find(maps, address) : NULL;
	struct pl_range none = {0, 0}, range;

	if (!map || !pl_map_is_anonymous(map) || map->path[0] == '[' || map->end - map->start < STACK_MIN)
		return none;
	range = (struct pl_range){map->start, map->end};
	if (is_top && map->end - address > THREAD_HEAD)
		range.end = pl_page_end(address + THREAD_HEAD);
	else if (!is_top && map->end - map->start > STACK_MAX)
		range.end = map->start + STACK_MAX;
	return address < range.end ? range : none;
}

static size_t find_stacks(const struct pl_python *python, const struct pl_maps *maps, struct pl_range *stacks, size_t max,
	const pid_t *tids, size_t count)
{
	pl_autofree uint64_t *pointers = calloc(count, sizeof(*pointers));
	size_t found = 0, known = pointers ? pl_python_thread_pointers(python, pointers, count) : 0;

	for (size_t i = 0; i < maps->count && found < max; i++)
		if (strcmp(maps->items[i].path, "[stack]") == 0)
			stacks[found++] = (struct pl_range){maps->items[i].start, maps->items[i].end};
	for (size_t i = 0; i < known && found < max; i++)
		stacks[found++] = stack_around(maps, pointers[i], true);
	/* If Python knows all of them, all are there. */
	for (size_t i = 0; known < count && i < count && found < max; i++)
		if (tids[i] != python->pid)
			stacks[found++] = stack_around(maps, stack_pointer(python->pid, tids[i]), false);
	return found;
}

static ssize_t look(const struct pl_python *python, const struct pl_maps *maps, struct pl_range **ret)
{
	pl_autofree pid_t *tids = NULL;
	struct pl_range *stacks;
	uint64_t covered = 0;
	size_t count, found;
	int code = pl_process_threads(python->pid, &tids, &count);

	if (code < 0)
		return code;
	stacks = calloc(2 * count + 1, sizeof(*stacks));
	if (!stacks)
		return -ENOMEM;
	found = find_stacks(python, maps, stacks, 2 * count + 1, tids, count);
	qsort(stacks, found, sizeof(*stacks), compare_starts);
	for (size_t i = 0; i < found; i++) {
		/* None twice. */
		if (stacks[i].start < covered)
			stacks[i].start = covered < stacks[i].end ? covered : stacks[i].end;
		if (stacks[i].start < stacks[i].end)
			covered = stacks[i].end;
	}
	*ret = stacks;
	return (ssize_t)found;
}

ssize_t stacks_find(const struct pl_python *python, const struct pl_maps *maps, struct stacks_seen *seen, struct pl_range **ret)
{
	if (!seen->items || pl_now_ns() - seen->at_ns >= SEEN_NSEC) {
		struct pl_range *items = NULL;
		ssize_t found = look(python, maps, &items);

		if (found < 0)
			return found;
		free(seen->items);
		*seen = (struct stacks_seen){items, (size_t)found, pl_now_ns()};
	}
	*ret = calloc(seen->count + 1, sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	if (seen->count)
		memcpy(*ret, seen->items, seen->count * sizeof(**ret));
	return (ssize_t)seen->count;
}

void stacks_count(const struct pl_python *python, const struct pl_maps *maps, struct stacks_seen *seen, struct pl_account *ret)
{
	pl_autofree struct pl_range *stacks = NULL;
	ssize_t found = stacks_find(python, maps, seen, &stacks);
	uint64_t sum = 0;

	if (found < 0)
		return;
	for (ssize_t i = 0; i < found; i++)
		if (stacks[i].start < stacks[i].end)
			sum += resident_bytes(python->space, stacks[i]);
	ret->parts[PL_ACCOUNT_STACKS] = (int64_t)sum;
	ret->known[PL_ACCOUNT_STACKS] = true;
}
