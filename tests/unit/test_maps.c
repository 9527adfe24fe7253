/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pyleak/maps.h"
#include "pyleak/memory.h"
#include "pyleak/page.h"
#include "pyleak/resident.h"
#include "pyleak/space.h"

/* Of this kernel's: what is mapped and unmapped here. */
#define page ((size_t)pl_page_size())
/* In which pages are counted. */
#define UNITS (page / PL_PAGE)

Test(maps, parse)
{
	static const char text[] =
		"00400000-00420000 r--p 00000000 fe:01 1055                               /usr/bin/python3.11\n"
		"00420000-006d1000 r-xp 00020000 fe:01 1055                               /usr/bin/python3.11\n"
		"this is not a mapping\n"
		"00a00000-00a00000 rw-p 00000000 00:00 0 \n"
		"01000000-01100000 rw-p 00000000 00:00 0                                  [heap]\n"
		"02000000-02001000 rw-s 00001000 00:05 77                                 /dev/shm/a b (deleted)\n"
		"02000000-02001000 rw-s 00001000 00:05 77                                 /again\n"
		"7f0000000000-7f0000001000 ---p 00000000 00:00 0 \n"
		"7f0000002000-7f0000003000 ---p 00000000 00:00 0\n"
		"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]";
	static const struct pl_map expected[] = {
		{0x400000, 0x420000, 0, 1055, 0xfe, 1, PL_MAP_READ, (char *)"/usr/bin/python3.11"},
		{0x420000, 0x6d1000, 0x20000, 1055, 0xfe, 1, PL_MAP_READ | PL_MAP_EXEC, (char *)"/usr/bin/python3.11"},
		{0x1000000, 0x1100000, 0, 0, 0, 0, PL_MAP_READ | PL_MAP_WRITE, (char *)"[heap]"},
		{0x2000000, 0x2001000, 0x1000, 77, 0, 5, PL_MAP_READ | PL_MAP_WRITE | PL_MAP_SHARED | PL_MAP_DELETED,
			(char *)"/dev/shm/a b"},
		{0x7f0000000000, 0x7f0000001000, 0, 0, 0, 0, 0, (char *)""},
		{0x7f0000002000, 0x7f0000003000, 0, 0, 0, 0, 0, (char *)""},
		{0xffffffffff600000, 0xffffffffff601000, 0, 0, 0, 0, PL_MAP_EXEC, (char *)"[vsyscall]"},
	};
	struct pl_maps maps;

	cr_assert_eq(pl_maps_parse(text, sizeof(text) - 1, &maps), 0);
	cr_assert_eq(maps.count, sizeof(expected) / sizeof(expected[0]));
	for (size_t i = 0; i < maps.count; i++) {
		const struct pl_map *map = &maps.items[i];

		cr_assert_eq(map->start, expected[i].start);
		cr_assert_eq(map->end, expected[i].end);
		cr_assert_eq(map->offset, expected[i].offset);
		cr_assert_eq(map->inode, expected[i].inode);
		cr_assert_eq(map->dev_major, expected[i].dev_major);
		cr_assert_eq(map->dev_minor, expected[i].dev_minor);
		cr_assert_eq(map->flags, expected[i].flags, "%zu: %x", i, map->flags);
		cr_assert_str_eq(map->path, expected[i].path);
	}
	cr_assert_eq(pl_maps_find(&maps, 0x3fffff), NULL);
	cr_assert_eq(pl_maps_find(&maps, 0x400000), &maps.items[0]);
	cr_assert_eq(pl_maps_find(&maps, 0x41ffff), &maps.items[0]);
	cr_assert_eq(pl_maps_find(&maps, 0x420000), &maps.items[1]);
	cr_assert_eq(pl_maps_find(&maps, 0x7f0000001000), NULL);
	cr_assert_eq(pl_maps_find(&maps, UINT64_MAX), NULL);
	cr_assert(pl_map_same_file(&maps.items[0], &maps.items[1]));
	cr_assert_not(pl_map_same_file(&maps.items[0], &maps.items[3]));
	cr_assert_not(pl_map_same_file(&maps.items[4], &maps.items[5]), "anonymous memory is no file");
	pl_maps_free(&maps);
	cr_assert_eq(maps.count, 0);
}

/* Each prefix of a line, and each line with one byte changed, must be taken or left without harm. */
Test(maps, parse_survives_anything)
{
	static const char line[] = "7f00-7fff r-xp 00000012 fe:01 1055   /bin/x (deleted)\n";
	struct pl_maps maps;

	for (size_t length = 0; length <= sizeof(line) - 1; length++) {
		char *text = malloc(length + 1); /* its end is guarded where a sanitizer runs */

		memcpy(text, line, length);
		cr_assert_eq(pl_maps_parse(text, length, &maps), 0);
		pl_maps_free(&maps);
		for (size_t at = 0; at < length; at++) {
			for (int byte = 0; byte < 256; byte += 5) {
				text[at] = (char)byte;
				cr_assert_eq(pl_maps_parse(text, length, &maps), 0);
				pl_maps_free(&maps);
			}
			text[at] = line[at];
		}
		free(text);
	}
}

Test(maps, read_own)
{
	char name[] = "/tmp/pyleak-maps-XXXXXX";
	int fd = mkstemp(name);
	struct pl_maps maps;
	const struct pl_map *map;
	struct stat status;
	void *memory;

	cr_assert_geq(fd, 0);
	cr_assert_eq(ftruncate(fd, 3 * (off_t)page), 0);
	cr_assert_eq(fstat(fd, &status), 0);
	memory = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, (off_t)page);
	cr_assert_neq(memory, MAP_FAILED);
	cr_assert_eq(pl_maps_read(getpid(), &maps), 0);
	map = pl_maps_find(&maps, (uint64_t)(uintptr_t)memory);
	cr_assert_not_null(map);
	cr_assert_eq(map->offset, page);
	cr_assert_eq(map->inode, status.st_ino);
	cr_assert_eq(map->flags, (unsigned)(PL_MAP_READ | PL_MAP_SHARED));
	cr_assert_str_eq(map->path, name);
	pl_maps_free(&maps);

	cr_assert_eq(unlink(name), 0);
	cr_assert_eq(pl_maps_read(getpid(), &maps), 0);
	map = pl_maps_find(&maps, (uint64_t)(uintptr_t)memory);
	cr_assert_not_null(map);
	cr_assert(map->flags & PL_MAP_DELETED);
	cr_assert_str_eq(map->path, name);
	pl_maps_free(&maps);
	(void)munmap(memory, page);
	(void)close(fd);
}

/* A pid that was just reaped is not used again before all the others have been. */
static pid_t dead_pid(void)
{
	pid_t child = fork();

	if (child == 0)
		_exit(0);
	cr_assert_eq(waitpid(child, NULL, 0), child);
	return child;
}

Test(maps, gone)
{
	struct pl_maps maps;

	cr_assert_eq(pl_maps_read(dead_pid(), &maps), -ESRCH);
	pl_maps_free(&maps);
}

/* Three pages, the last of them not mapped. */
static char *two_pages(void)
{
	char *memory = mmap(NULL, 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(memory, MAP_FAILED);
	cr_assert_eq(munmap(memory + 2 * page, page), 0);
	for (size_t i = 0; i < 2 * page; i++)
		memory[i] = (char)(i * 7);
	return memory;
}

static void check_reads(void)
{
	char *memory = two_pages();
	uint64_t address = (uint64_t)(uintptr_t)memory;
	static char buffer[3 * PL_PAGE_MAX];
	uint64_t first = 0, second = 0;
	struct pl_memory_piece pieces[200];
	uint64_t words[200];

	cr_assert_eq(pl_memory_read(getpid(), address, buffer, 2 * page), 0);
	cr_assert_eq(memcmp(buffer, memory, 2 * page), 0);
	cr_assert_eq(pl_memory_read(getpid(), address, buffer, 2 * page + 1), -EFAULT);
	cr_assert_eq(pl_memory_read_some(getpid(), address + 10, buffer, 3 * page), (ssize_t)(2 * page - 10));
	cr_assert_eq(memcmp(buffer, memory + 10, 2 * page - 10), 0);
	cr_assert_eq(pl_memory_read_some(getpid(), address + 2 * page, buffer, 8), 0);
	cr_assert_eq(pl_memory_read(getpid(), 0, buffer, 8), -EFAULT);
	cr_assert_eq(pl_memory_read(getpid(), 0, buffer, 0), 0);
	cr_assert_eq(pl_memory_read(getpid(), UINT64_MAX - 3, buffer, 8), -EFAULT);
	cr_assert_eq(pl_memory_read(getpid(), UINT64_C(1) << 63, buffer, 8), -EFAULT);

	pieces[0] = (struct pl_memory_piece){address, &first, 8};
	pieces[1] = (struct pl_memory_piece){address + 2 * page - 8, &second, 8};
	cr_assert_eq(pl_memory_read_pieces(getpid(), pieces, 2), 0);
	cr_assert_eq(memcmp(&first, memory, 8), 0);
	cr_assert_eq(memcmp(&second, memory + 2 * page - 8, 8), 0);
	pieces[1].address += 4;
	cr_assert_eq(pl_memory_read_pieces(getpid(), pieces, 2), -EFAULT);
	for (size_t i = 0; i < 200; i++)
		pieces[i] = (struct pl_memory_piece){address + 16 * i, &words[i], 8};
	cr_assert_eq(pl_memory_read_pieces(getpid(), pieces, 200), 0);
	for (size_t i = 0; i < 200; i++)
		cr_assert_eq(memcmp(&words[i], memory + 16 * i, 8), 0);
	cr_assert_eq(pl_memory_read_pieces(getpid(), pieces, 0), 0);
	(void)munmap(memory, 2 * page);
}

Test(memory, read)
{
	pid_t gone = dead_pid();
	char byte;

	check_reads();
	cr_assert_eq(pl_memory_read(gone, 4096, &byte, 1), -ESRCH);
	cr_assert_eq(pl_memory_read_pieces(gone, &(struct pl_memory_piece){4096, &byte, 1}, 1), -ESRCH);
}

/* The same answers where a sandbox has no process_vm_readv. */
Test(memory, read_without_process_vm_readv)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};
	pid_t gone = dead_pid();
	char byte;

	cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
	check_reads();
	cr_assert_eq(pl_memory_read(gone, 4096, &byte, 1), -ESRCH);
	cr_assert_eq(pl_memory_read_pieces(gone, &(struct pl_memory_piece){4096, &byte, 1}, 1), -ESRCH);
}

static struct pl_range piece(const char *start, size_t length)
{
	return (struct pl_range){(uintptr_t)start, (uintptr_t)start + length};
}

Test(memory, resident)
{
	const size_t unit = page, pages = 10000;
	char *map = mmap(NULL, pages * unit, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(map, MAP_FAILED);
	cr_assert_eq(madvise(map, pages * unit, MADV_NOHUGEPAGE), 0);
	cr_assert_eq(pl_resident_or_swapped(getpid(), piece(map, pages * unit)), 0);
	for (size_t i = 0; i < pages; i += 4000)
		map[i * unit] = 1;
	cr_assert_eq(pl_resident_or_swapped(getpid(), piece(map, pages * unit)), 3 * unit);
	cr_assert_eq(pl_resident_or_swapped(getpid(), piece(map + unit, 4000 * unit)), unit);
	cr_assert_eq(pl_resident_or_swapped(0, piece(map, unit)), 0, "no such process");
	cr_assert_eq(munmap(map, pages * unit), 0);
}

/* Large ranges are scanned where the kernel can: the same as page by page, with more runs than one scan gives. */
Test(memory, resident_pages)
{
	enum { UNIT = 4096, PAGES = 3000 };
	char *map = mmap(NULL, PAGES * UNIT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t at_once[PAGES], one;
	int fd = pl_resident_open(getpid());

	cr_assert_neq(map, MAP_FAILED);
	cr_assert_geq(fd, 0);
	cr_assert_eq(madvise(map, PAGES * UNIT, MADV_NOHUGEPAGE), 0);
	for (size_t i = 0; i < PAGES; i += i % 7 + 1 + (i > 1000 && i < 1700 ? 200 : 0))
		map[i * UNIT] = 1;
	memset(at_once, 0xff, sizeof(at_once));
	cr_assert_eq(pl_resident_pages(fd, piece(map, PAGES * UNIT), at_once), 0);
	for (size_t i = 0; i < PAGES; i++) {
		cr_assert_eq(pl_resident_pages(fd, piece(map + i * UNIT, UNIT), &one), 0);
		cr_assert_eq(at_once[i], one, "page %zu", i);
	}
	cr_assert_eq(at_once[0], PL_RESIDENT);
	cr_assert_eq(close(fd), 0);
	cr_assert_eq(munmap(map, PAGES * UNIT), 0);
}

/* -- the space of a process ----------------------------------------------------------------------- */

Test(space, live)
{
	static const char text[] = "what is read", other[] = "elsewhere";
	char *map = mmap(NULL, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const struct pl_range range = piece(map, 4 * page), nothing = {0, 0};
	struct pl_space *space = NULL, *gone = NULL;
	char first[sizeof(text)], second[sizeof(other)];
	const struct pl_memory_piece pieces[] = {
		{(uintptr_t)text, first, sizeof(first)}, {(uintptr_t)other, second, sizeof(second)}};
	struct pl_maps maps = {0};
	uint8_t pages[4 * PL_PAGE_MAX / PL_PAGE];
	uint64_t word;

	cr_assert_neq(map, MAP_FAILED);
	cr_assert_eq(munmap(map + 3 * page, page), 0);
	map[page] = 1;
	cr_assert_eq(pl_space_of_process(getpid(), &space), 0);
	cr_assert_eq(space->pid, getpid());
	cr_assert_eq(pl_space_read_pieces(space, pieces, 2), 0);
	cr_assert_str_eq(first, text);
	cr_assert_str_eq(second, other);
	cr_assert_eq(pl_space_read_u64(space, (uintptr_t)map + page, &word), 0);
	cr_assert_eq(word, 1);
	cr_assert_eq(pl_space_pages(space, nothing, NULL), 0);
	cr_assert_eq(pl_space_pages(space, range, pages), 0);
	for (size_t i = 0; i < 4 * UNITS; i++)
		cr_assert_eq(pages[i], i / UNITS == 1, "page %zu", i);
	/* Exactly, or as much as is there. */
	cr_assert_eq(pl_space_read(space, (uintptr_t)map + 3 * page - 4, &word, sizeof(word)), -EFAULT);
	cr_assert_eq(pl_space_read_some(space, (uintptr_t)map + 3 * page - 4, &word, sizeof(word)), 4);
	cr_assert_eq(pl_space_maps(space, &maps), 0);
	cr_assert_not_null(pl_maps_find(&maps, (uintptr_t)map));
	cr_assert_null(pl_maps_find(&maps, (uintptr_t)map + 3 * page));
	cr_assert_eq(pl_space_open_mapped(space, &maps, pl_maps_find(&maps, (uintptr_t)map)), -ENOENT);
	pl_maps_free(&maps);
	pl_space_close(space);

	cr_assert_eq(pl_space_of_process(dead_pid(), &gone), 0);
	cr_assert_eq(pl_space_pages(gone, nothing, NULL), -ESRCH);
	cr_assert_eq(pl_space_read_u64(gone, (uintptr_t)map, &word), -ESRCH);
	cr_assert_lt(pl_space_maps(gone, &maps), 0);
	pl_space_close(gone);
	pl_space_close(NULL);
}
