/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../src/elf/elf_private.h"

/* What is remembered of files, in a folder that somebody else may have written to. */

static char base[64], folder[80];
static const uint64_t facts[] = {0x1234, 0x5679, 42};
static int file = -1;

static void begin(void)
{
	(void)strcpy(base, "/tmp/pyleak-test-XXXXXX");
	cr_assert_not_null(mkdtemp(base));
	cr_assert_eq(setenv("XDG_CACHE_HOME", base, 1), 0);
	(void)snprintf(folder, sizeof(folder), "%s/pyleak", base);
	/* One that has not changed for seconds. */
	file = open("/bin/sh", O_RDONLY | O_CLOEXEC);
	cr_assert_geq(file, 0);
}

static void empty(const char *path)
{
	DIR *entries = opendir(path);
	const struct dirent *entry;

	while (entries && (entry = readdir(entries)))
		if (unlinkat(dirfd(entries), entry->d_name, 0) < 0)
			(void)unlinkat(dirfd(entries), entry->d_name, AT_REMOVEDIR);
	if (entries)
		(void)closedir(entries);
}

static void end(void)
{
	(void)close(file);
	empty(folder);
	empty(base);
	(void)rmdir(base);
}

static bool knows(enum remembered_kind kind)
{
	uint64_t *found = NULL;
	size_t count = 0;
	bool known = remembered_load(file, kind, &found, &count) == 0;

	if (known) {
		cr_assert_eq(count, 3);
		cr_assert_eq(memcmp(found, facts, sizeof(facts)), 0);
		free(found);
	}
	return known;
}

/* The only file in the folder. */
static void stored_path(char *path, size_t size)
{
	DIR *entries = opendir(folder);
	const struct dirent *entry;
	int count = 0;

	cr_assert_not_null(entries);
	while ((entry = readdir(entries)))
		if (entry->d_name[0] != '.') {
			(void)snprintf(path, size, "%s/%s", folder, entry->d_name);
			count++;
		}
	(void)closedir(entries);
	cr_assert_eq(count, 1);
}

Test(remembered, of_one_file, .init = begin, .fini = end)
{
	int other = open("/bin/ls", O_RDONLY | O_CLOEXEC), mine = file;
	struct stat status;

	cr_assert_not(knows(REMEMBERED_REFERENCES));
	remembered_store(file, REMEMBERED_REFERENCES, facts, 3);
	cr_assert(knows(REMEMBERED_REFERENCES));
	cr_assert_not(knows(REMEMBERED_ALLOCATOR));
	cr_assert_eq(stat(folder, &status), 0);
	cr_assert_eq(status.st_mode & 0777, 0700);
	file = other;
	cr_assert_not(knows(REMEMBERED_REFERENCES));
	file = mine;
	(void)close(other);
	/* Nothing else is left there. */
	char path[400];

	stored_path(path, sizeof(path));
	cr_assert_eq(stat(path, &status), 0);
	cr_assert_eq(status.st_mode & 0777, 0600);
}

/* A file that changes at this moment may change again, and look the same. */
Test(remembered, a_file_that_is_new, .init = begin, .fini = end)
{
	char path[128];
	int fresh, settled = file;

	(void)snprintf(path, sizeof(path), "%s/new", base);
	fresh = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	cr_assert_geq(fresh, 0);
	file = fresh;
	remembered_store(file, REMEMBERED_REFERENCES, facts, 3);
	cr_assert_not(knows(REMEMBERED_REFERENCES));
	(void)close(fresh);
	file = settled;
	cr_assert_neq(access(folder, F_OK), 0);
}

/* Every byte, and every length. */
Test(remembered, damaged, .init = begin, .fini = end)
{
	unsigned char bytes[512], spoilt;
	char path[400];
	ssize_t size;
	int fd;

	remembered_store(file, REMEMBERED_REFERENCES, facts, 3);
	stored_path(path, sizeof(path));
	fd = open(path, O_RDWR | O_CLOEXEC);
	size = pread(fd, bytes, sizeof(bytes), 0);
	cr_assert(size > 0 && size < (ssize_t)sizeof(bytes));
	for (ssize_t i = 0; i < size; i++)
		for (int bit = 0; bit < 8; bit++) {
			spoilt = bytes[i] ^ (unsigned char)(1 << bit);
			cr_assert_eq(pwrite(fd, &spoilt, 1, i), 1);
			cr_assert_not(knows(REMEMBERED_REFERENCES), "byte %zd, bit %d", i, bit);
			cr_assert_eq(pwrite(fd, &bytes[i], 1, i), 1);
		}
	cr_assert(knows(REMEMBERED_REFERENCES));
	for (ssize_t length = 0; length < size; length++) {
		cr_assert_eq(ftruncate(fd, length), 0);
		cr_assert_not(knows(REMEMBERED_REFERENCES), "%zd bytes", length);
		cr_assert_eq(pwrite(fd, bytes, (size_t)size, 0), size);
	}
	cr_assert_eq(pwrite(fd, bytes, 8, size), 8);
	cr_assert_not(knows(REMEMBERED_REFERENCES));
	(void)close(fd);
	/* It is found anew, and stored over that. */
	remembered_store(file, REMEMBERED_REFERENCES, facts, 3);
	cr_assert(knows(REMEMBERED_REFERENCES));
}

/* What others may write to is not believed. */
Test(remembered, not_ours_alone, .init = begin, .fini = end)
{
	char path[400], elsewhere[128];

	remembered_store(file, REMEMBERED_REFERENCES, facts, 3);
	stored_path(path, sizeof(path));
	for (int i = 0; i < 3; i++) {
		const char *what = i == 0 ? path : i == 1 ? folder : base;
		mode_t mode = i == 0 ? 0600 : 0700;

		cr_assert_eq(chmod(what, mode | S_IWOTH), 0);
		cr_assert_not(knows(REMEMBERED_REFERENCES), "%s", what);
		cr_assert_eq(chmod(what, mode | S_IWGRP), 0);
		cr_assert_not(knows(REMEMBERED_REFERENCES), "%s", what);
		cr_assert_eq(chmod(what, mode), 0);
		cr_assert(knows(REMEMBERED_REFERENCES));
	}
	if (geteuid() == 0) {
		cr_assert_eq(chown(path, 12345, 12345), 0);
		cr_assert_not(knows(REMEMBERED_REFERENCES));
		cr_assert_eq(chown(path, 0, 0), 0);
	}
	(void)snprintf(elsewhere, sizeof(elsewhere), "%s/elsewhere", base);
	cr_assert_eq(rename(path, elsewhere), 0);
	cr_assert_eq(symlink(elsewhere, path), 0);
	cr_assert_not(knows(REMEMBERED_REFERENCES), "a link");
	cr_assert_eq(unlink(path), 0);
	cr_assert_eq(mkfifo(path, 0600), 0);
	cr_assert_not(knows(REMEMBERED_REFERENCES), "a pipe");
	cr_assert_eq(unlink(path), 0);
	cr_assert_eq(rename(elsewhere, path), 0);
	cr_assert(knows(REMEMBERED_REFERENCES));
}

Test(remembered, an_end, .init = begin, .fini = end)
{
	char path[400];

	cr_assert_eq(mkdir(folder, 0700), 0);
	for (int i = 0; i < 512; i++) {
		(void)snprintf(path, sizeof(path), "%s/%016x", folder, i);
		(void)close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	}
	remembered_store(file, REMEMBERED_REFERENCES, facts, 3);
	cr_assert_not(knows(REMEMBERED_REFERENCES));
	/* The oldest ones go. */
	cr_assert_eq(utimensat(AT_FDCWD, path, (const struct timespec[]){{1, 0}, {1, 0}}, 0), 0);
	remembered_store(file, REMEMBERED_REFERENCES, facts, 3);
	cr_assert(knows(REMEMBERED_REFERENCES));
	cr_assert_neq(access(path, F_OK), 0);
	/* Nowhere to write, nothing to read. */
	cr_assert_eq(setenv("XDG_CACHE_HOME", "/dev/null", 1), 0);
	remembered_store(file, REMEMBERED_REFERENCES, facts, 3);
	cr_assert_not(knows(REMEMBERED_REFERENCES));
}
