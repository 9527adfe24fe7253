/* SPDX-License-Identifier: MIT */
#include "pyleak/resident.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "pyleak/cleanup.h"

enum { WORDS_AT_ONCE = 8192 }; /* 32 MiB of the process */
/* Documentation/admin-guide/mm/pagemap.rst */
#define PAGE_PRESENT (UINT64_C(1) << 63)
#define PAGE_SWAPPED (UINT64_C(1) << 62)
#define PAGE_OF_FILE (UINT64_C(1) << 61) /* or shared */

int pl_resident_open(pid_t pid)
{
	char path[48];
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	return errno == ENOENT ? -ESRCH : errno == EACCES ? -EPERM : -errno;
}

/* The words of at most WORDS_AT_ONCE pages: how many there are, or -errno. */
static ssize_t read_words(int fd, struct pl_range range, uint64_t words[WORDS_AT_ONCE])
{
	uint64_t count = (range.end - range.start) / PL_PAGE;
	ssize_t got;

	if (count > WORDS_AT_ONCE)
		count = WORDS_AT_ONCE;
	do
		got = pread(fd, words, count * sizeof(*words), (off_t)(range.start / PL_PAGE * sizeof(*words)));
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	return got < (ssize_t)sizeof(*words) ? -ESRCH : got / (ssize_t)sizeof(*words);
}

/* `of`: what to say of a page with this word. */
static int look_at_pages(int fd, struct pl_range range, uint8_t (*of)(uint64_t word), uint8_t *pages)
{
	uint64_t words[WORDS_AT_ONCE];

	while (range.start < range.end) {
		ssize_t count = read_words(fd, range, words);

		if (count < 0)
			return (int)count;
		for (ssize_t i = 0; i < count; i++)
			*pages++ = of(words[i]);
		range.start += (uint64_t)count * PL_PAGE;
	}
	return 0;
}

static uint8_t where_it_is(uint64_t word)
{
	return (word & PAGE_PRESENT ? PL_RESIDENT : 0) | (word & PAGE_SWAPPED ? PL_SWAPPED : 0);
}

static uint8_t is_written(uint64_t word)
{
	return word & (PAGE_PRESENT | PAGE_SWAPPED) && !(word & PAGE_OF_FILE);
}

int pl_resident_pages(int fd, struct pl_range range, uint8_t *pages)
{
	return look_at_pages(fd, range, where_it_is, pages);
}

int pl_resident_written(int fd, struct pl_range range, uint8_t *pages)
{
	return look_at_pages(fd, range, is_written, pages);
}

uint64_t pl_resident_or_swapped(pid_t pid, struct pl_range range)
{
	uint8_t pages[WORDS_AT_ONCE];
	pl_autoclose int fd = pl_resident_open(pid);
	uint64_t found = 0;

	for (struct pl_range part = range; fd >= 0 && part.start < range.end; part.start = part.end) {
		part.end = range.end - part.start < sizeof(pages) * PL_PAGE ? range.end : part.start + sizeof(pages) * PL_PAGE;
		if (pl_resident_pages(fd, part, pages) < 0)
			break;
		for (uint64_t i = 0; i < (part.end - part.start) / PL_PAGE; i++)
			found += pages[i] != 0;
	}
	return found * PL_PAGE;
}
