/* SPDX-License-Identifier: MIT */
#include "pyleak/resident.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "pyleak/cleanup.h"

enum { WORDS_AT_ONCE = 8192 }; /* 32 MiB of the process */
enum { LARGE_PAGES = 512 };    /* to be scanned, where the kernel can */
/* Documentation/admin-guide/mm/pagemap.rst */
#define PAGE_PRESENT (UINT64_C(1) << 63)
#define PAGE_SWAPPED (UINT64_C(1) << 62)
#define PAGE_OF_FILE (UINT64_C(1) << 61) /* or shared */

/* The same, and as linux/fs.h has it from 6.7 on. */
struct scan {
	uint64_t size, flags, start, end, walk_end, regions, region_count, page_max;
	uint64_t inverted, all_of, any_of, wanted;
};
struct region {
	uint64_t start, end, categories;
};
#define SCAN _IOWR('f', 16, struct scan)
enum { SCAN_FILE = 1 << 2, SCAN_PRESENT = 1 << 3, SCAN_SWAPPED = 1 << 4, REGIONS_AT_ONCE = 256 };

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

/* The words of at most WORDS_AT_ONCE of the kernel's pages, from the one in which the range begins: how many there are, or
 * -errno. */
static ssize_t read_words(int fd, struct pl_range range, uint64_t words[WORDS_AT_ONCE])
{
	const uint64_t size = pl_page_size(), first = range.start / size;
	uint64_t count = (range.end + size - 1) / size - first;
	ssize_t got;

	if (count > WORDS_AT_ONCE)
		count = WORDS_AT_ONCE;
	do
		got = pread(fd, words, count * sizeof(*words), (off_t)(first * sizeof(*words)));
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	return got < (ssize_t)sizeof(*words) ? -ESRCH : got / (ssize_t)sizeof(*words);
}

/* Of the kernel's page in which the range begins, or of the range, whichever is first. */
static uint64_t page_end(struct pl_range range)
{
	uint64_t end = pl_kernel_page_start(range.start) + pl_page_size();

	return end < range.end ? end : range.end;
}

static uint64_t kernel_page_end(uint64_t address)
{
	return pl_kernel_page_start(address + pl_page_size() - 1);
}

/* What a scan says of whole pages of the kernel's. */
static struct pl_range within(struct pl_range range, uint64_t start, uint64_t end)
{
	return (struct pl_range){start > range.start ? start : range.start, end < range.end ? end : range.end};
}

static uint8_t where_it_is(uint64_t word)
{
	return (word & PAGE_PRESENT ? PL_RESIDENT : 0) | (word & PAGE_SWAPPED ? PL_SWAPPED : 0);
}

static int look_at_pages(int fd, struct pl_range range, uint8_t *pages)
{
	uint64_t words[WORDS_AT_ONCE];

	while (range.start < range.end) {
		ssize_t count = read_words(fd, range, words);

		if (count < 0)
			return (int)count;
		for (ssize_t i = 0; i < count; i++)
			for (uint64_t end = page_end(range); range.start < end; range.start += PL_PAGE)
				*pages++ = where_it_is(words[i]);
	}
	return 0;
}

/* pl_resident_pages() of a large range, of which most may be nothing. -ENOTTY: the kernel is older. */
static int scan_pages(int fd, struct pl_range range, uint8_t *pages)
{
	struct region regions[REGIONS_AT_ONCE];
	uint64_t word;

	memset(pages, 0, (range.end - range.start) / PL_PAGE);
	for (uint64_t at = pl_kernel_page_start(range.start); at < range.end;) {
		struct scan scan = {
			.size = sizeof(scan),
			.start = at,
			.end = kernel_page_end(range.end),
			.regions = (uint64_t)(uintptr_t)regions,
			.region_count = REGIONS_AT_ONCE,
			.any_of = SCAN_PRESENT | SCAN_SWAPPED,
			.wanted = SCAN_PRESENT | SCAN_SWAPPED,
		};
		int count;

		do
			count = ioctl(fd, SCAN, &scan);
		while (count < 0 && errno == EINTR);
		if (count < 0)
			return -errno;
		for (int i = 0; i < count; i++) {
			const struct pl_range part = within(range, regions[i].start, regions[i].end);

			memset(pages + (part.start - range.start) / PL_PAGE,
				regions[i].categories & SCAN_PRESENT ? PL_RESIDENT : PL_SWAPPED,
				(part.end - part.start) / PL_PAGE);
		}
		if (scan.walk_end <= at)
			return -EIO;
		at = scan.walk_end;
	}
	/* Of a process that has ended a scan finds nothing, and says no more. */
	return pread(fd, &word, sizeof(word), (off_t)(range.start / pl_page_size() * sizeof(word))) == (ssize_t)sizeof(word) ? 0 : -ESRCH;
}

int pl_resident_pages(int fd, struct pl_range range, uint8_t *pages)
{
	int code = (range.end - range.start) / PL_PAGE >= LARGE_PAGES ? scan_pages(fd, range, pages) : -ENOTTY;

	return code == -ENOTTY ? look_at_pages(fd, range, pages) : code;
}

uint64_t pl_resident_or_swapped(pid_t pid, struct pl_range range)
{
	uint8_t pages[WORDS_AT_ONCE] = {0};
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

/* -ENOTTY: the kernel is older. */
static int scan_runs(int fd, struct pl_range range, bool own, struct pl_range *runs, size_t max, size_t *ret_count,
	uint64_t *ret_end)
{
	struct region regions[REGIONS_AT_ONCE];
	struct scan scan = {
		.size = sizeof(scan),
		.start = pl_kernel_page_start(range.start),
		.end = kernel_page_end(range.end),
		.regions = (uint64_t)(uintptr_t)regions,
		.region_count = max < REGIONS_AT_ONCE ? max : REGIONS_AT_ONCE,
		.any_of = own ? SCAN_PRESENT | SCAN_SWAPPED : SCAN_PRESENT,
		.inverted = own ? SCAN_FILE : 0,
		.all_of = own ? SCAN_FILE : 0,
		.wanted = SCAN_PRESENT,
	};
	int count;

	do
		count = ioctl(fd, SCAN, &scan);
	while (count < 0 && errno == EINTR);
	if (count < 0)
		return -errno;
	for (int i = 0; i < count; i++)
		runs[i] = within(range, regions[i].start, regions[i].end);
	*ret_count = (size_t)count;
	*ret_end = scan.walk_end < range.end ? scan.walk_end : range.end;
	return scan.walk_end > range.start ? 0 : -EIO;
}

static bool is_wanted(uint64_t word, bool own)
{
	return own ? word & (PAGE_PRESENT | PAGE_SWAPPED) && !(word & PAGE_OF_FILE) : (word & PAGE_PRESENT) != 0;
}

int pl_resident_runs(int fd, struct pl_range range, bool own, struct pl_range *runs, size_t max, size_t *ret_count,
	uint64_t *ret_end)
{
	uint64_t words[WORDS_AT_ONCE];
	int code = scan_runs(fd, range, own, runs, max, ret_count, ret_end);
	ssize_t count;

	if (code != -ENOTTY)
		return code;
	*ret_count = 0;
	/* One window at a time, so that nobody waits for long where nothing is. */
	count = read_words(fd, range, words);
	if (count < 0)
		return (int)count;
	for (ssize_t i = 0; i < count; i++, range.start = page_end(range)) {
		if (!is_wanted(words[i], own))
			continue;
		if (*ret_count && runs[*ret_count - 1].end == range.start) {
			runs[*ret_count - 1].end = page_end(range);
			continue;
		}
		if (*ret_count == max)
			break;
		runs[(*ret_count)++] = (struct pl_range){range.start, page_end(range)};
	}
	*ret_end = range.start;
	return 0;
}
