/* SPDX-License-Identifier: MIT */
#include "pyleak/resident.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { WORDS_AT_ONCE = 8192 }; /* 32 MiB of the process */
#define PAGE_PRESENT (UINT64_C(1) << 63)

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

int pl_resident_pages(int fd, struct pl_range range, uint8_t *pages)
{
	uint64_t words[WORDS_AT_ONCE];

	while (range.start < range.end) {
		ssize_t count = read_words(fd, range, words);

		if (count < 0)
			return (int)count;
		for (ssize_t i = 0; i < count; i++)
			*pages++ = (words[i] & PAGE_PRESENT) != 0;
		range.start += (uint64_t)count * PL_PAGE;
	}
	return 0;
}
