/* SPDX-License-Identifier: MIT */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "elf_private.h"
#include "pyleak/cleanup.h"

/*
 * A file for each object, named by a hash of which file the object is: device, inode, size, and the times of its last
 * changes, which nobody can set back who cannot write to any file. Not by its build ID, which anybody can copy: what a
 * hostile process's object is like must not be believed of another's. What was found by another version of the search is
 * not believed either.
 *
 * A wrong answer could do harm (a word that is loaded as a value would be taken for one that is jumped through). So the
 * folder and its files are ours alone, or they are not looked at; what is in them has a checksum.
 */

enum {
	ITEMS_MAX = 1024,
	FILES_MAX = 512,
	NAME_LENGTH = 32,
	SETTLED_SEC = 2,            /* a file that changes within a tick of its clock looks the same */
	STALE_SEC = 60 * 24 * 3600, /* of what was stored, where there are too many */
};
#define FORMAT UINT64_C(0x31656d6c70796c70)
/* To be raised with each change of what finds these facts. */
#define SEARCH 3

struct stored {
	uint64_t format, search, kind;
	uint64_t device, inode, size;
	int64_t modified[2], changed[2];
	uint64_t count, check;
	uint64_t items[ITEMS_MAX];
};

/* FNV-1a. */
static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		hash = (hash ^ ((const uint8_t *)bytes)[i]) * 0x100000001b3;
	return hash;
}

static uint64_t check_of(const struct stored *stored)
{
	uint64_t hash = hash_bytes(0xcbf29ce484222325, stored, offsetof(struct stored, check));

	return hash_bytes(hash, stored->items, stored->count * sizeof(stored->items[0]));
}

/* Which file it is. False: it has changed just now, or cannot be told. */
static bool identify(int fd, enum remembered_kind kind, struct stored *ret)
{
	struct timespec now;
	struct stat status;

	memset(ret, 0, sizeof(*ret));
	if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || clock_gettime(CLOCK_REALTIME, &now) < 0 ||
		now.tv_sec - status.st_mtim.tv_sec < SETTLED_SEC || now.tv_sec - status.st_ctim.tv_sec < SETTLED_SEC)
		return false;
	ret->format = FORMAT;
	ret->search = SEARCH;
	ret->kind = (uint64_t)kind;
	ret->device = status.st_dev;
	ret->inode = status.st_ino;
	ret->size = (uint64_t)status.st_size;
	ret->modified[0] = status.st_mtim.tv_sec;
	ret->modified[1] = status.st_mtim.tv_nsec;
	ret->changed[0] = status.st_ctim.tv_sec;
	ret->changed[1] = status.st_ctim.tv_nsec;
	return true;
}

static void name_of(const struct stored *stored, char name[NAME_LENGTH])
{
	(void)snprintf(name, NAME_LENGTH, "%016llx",
		(unsigned long long)hash_bytes(0xcbf29ce484222325, stored, offsetof(struct stored, count)));
}

static bool is_ours(int fd, mode_t type)
{
	struct stat status;

	return fstat(fd, &status) == 0 && (status.st_mode & S_IFMT) == type && status.st_uid == geteuid() &&
	       !(status.st_mode & (S_IWGRP | S_IWOTH));
}

/* $XDG_CACHE_HOME or ~/.cache; by sudo that may be another's: then there is none. */
static int open_folder(bool make)
{
	const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	pl_autofree char *path = NULL;
	pl_autoclose int parent = -1;
	int fd;

	if ((!base || base[0] != '/') && (!home || home[0] != '/'))
		return -ENOENT;
	if ((base && base[0] == '/' ? asprintf(&path, "%s", base) : asprintf(&path, "%s/.cache", home)) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	if (make)
		(void)mkdir(path, 0700);
	parent = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (parent < 0 || !is_ours(parent, S_IFDIR))
		return -ENOENT;
	if (make)
		(void)mkdirat(parent, "pyleak", 0700);
	fd = openat(parent, "pyleak", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0 && is_ours(fd, S_IFDIR))
		return fd;
	if (fd >= 0)
		(void)close(fd);
	return -ENOENT;
}

static int read_stored(int folder, const char *name, struct stored *ret)
{
	pl_autoclose int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	ssize_t got;

	if (fd < 0 || !is_ours(fd, S_IFREG))
		return -ENOENT;
	got = pread(fd, ret, sizeof(*ret), 0);
	if (got < (ssize_t)offsetof(struct stored, items) || ret->count > ITEMS_MAX ||
		(size_t)got != offsetof(struct stored, items) + ret->count * sizeof(ret->items[0]))
		return -ENOENT;
	return 0;
}

int remembered_load(int fd, enum remembered_kind kind, uint64_t **ret, size_t *ret_count)
{
	pl_autofree struct stored *wanted = malloc(sizeof(*wanted));
	pl_autofree struct stored *found = malloc(sizeof(*found));
	pl_autoclose int folder = -1;
	char name[NAME_LENGTH];

	if (!wanted || !found || fd < 0 || !identify(fd, kind, wanted))
		return -ENOENT;
	folder = open_folder(false);
	name_of(wanted, name);
	if (folder < 0 || read_stored(folder, name, found) < 0 ||
		memcmp(found, wanted, offsetof(struct stored, count)) != 0 || check_of(found) != found->check)
		return -ENOENT;
	*ret = malloc((found->count + 1) * sizeof(**ret));
	if (!*ret)
		return -ENOENT;
	memcpy(*ret, found->items, found->count * sizeof(**ret));
	*ret_count = found->count;
	return 0;
}

/* True: there is room for one more. What nobody has stored anew for long is of an object that is gone. */
static bool make_room(int folder)
{
	int copy = dup(folder);
	DIR *entries = copy < 0 ? NULL : fdopendir(copy);
	const time_t now = time(NULL);
	const struct dirent *entry;
	struct stat status;
	int count = 0;

	if (!entries) {
		if (copy >= 0)
			(void)close(copy);
		return false;
	}
	rewinddir(entries);
	while ((entry = readdir(entries))) {
		if (entry->d_name[0] == '.' && (!entry->d_name[1] || entry->d_name[1] == '.'))
			continue;
		if (fstatat(folder, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(status.st_mode) &&
			now - status.st_mtim.tv_sec > STALE_SEC && unlinkat(folder, entry->d_name, 0) == 0)
			continue;
		if (++count >= FILES_MAX)
			break;
	}
	(void)closedir(entries);
	return count < FILES_MAX;
}

void remembered_store(int fd, enum remembered_kind kind, const uint64_t *items, size_t count)
{
	pl_autofree struct stored *stored = malloc(sizeof(*stored));
	pl_autoclose int folder = -1, file = -1;
	char name[NAME_LENGTH], fresh[2 * NAME_LENGTH];
	size_t size = offsetof(struct stored, items) + count * sizeof(*items);

	if (!stored || fd < 0 || count > ITEMS_MAX || !identify(fd, kind, stored))
		return;
	name_of(stored, name);
	stored->count = count;
	memcpy(stored->items, items, count * sizeof(*items));
	stored->check = check_of(stored);
	folder = open_folder(true);
	if (folder < 0 || !make_room(folder))
		return;
	(void)snprintf(fresh, sizeof(fresh), ".%s-%d", name, (int)getpid());
	file = openat(folder, fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (file < 0)
		return;
	/* As a whole or not at all. */
	if (pwrite(file, stored, size, 0) != (ssize_t)size || renameat(folder, fresh, folder, name) < 0)
		(void)unlinkat(folder, fresh, 0);
}
