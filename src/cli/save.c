/* SPDX-License-Identifier: MIT */
#include "save.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pyleak/cleanup.h"
#include "pyleak/log.h"
#include "pyleak/units.h"

enum { NAMES_TRIED = 100 };

int pl_heap_save_check(const struct pl_options *options, struct pl_error *err)
{
	struct stat status;

	if (lstat(options->save, &status) < 0)
		return errno == ENOENT ? 0 : pl_fail(err, -errno, "--save %s: %s", options->save, strerror(errno));
	if (!S_ISREG(status.st_mode))
		return pl_fail(err, -EEXIST, "--save %s: that is no regular file", options->save);
	return options->force ? 0 : pl_fail(err, -EEXIST, "--save %s: the file exists; --force overwrites it", options->save);
}

/* A file without a name, where the file system has such: whatever ends this process, nothing of it stays. Otherwise one beside
 * the other; *ret_path: its name. 0600. */
static int open_unnamed(const char *path, char **ret_path)
{
	pl_autofree char *folder = strdup(path);
	int fd;

	*ret_path = NULL;
	if (!folder)
		return -ENOMEM;
	fd = open(dirname(folder), O_TMPFILE | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR);
	/* Older systems say that it is a folder. */
	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
		return fd >= 0 ? fd : -errno;
	if (asprintf(ret_path, "%s.XXXXXX", path) < 0) {
		*ret_path = NULL;
		return -ENOMEM;
	}
	fd = mkostemp(*ret_path, O_CLOEXEC);
	if (fd < 0) {
		fd = -errno;
		free(*ret_path);
		*ret_path = NULL;
	}
	return fd;
}

static int name_it(int fd, const char *path)
{
	char unnamed[64];

	(void)snprintf(unnamed, sizeof(unnamed), "/proc/self/fd/%d", fd);
	return linkat(AT_FDCWD, unnamed, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

/* A link never replaces what is there: only a name beside it can. */
static int name_beside(int fd, const char *path, char **ret_path)
{
	int code = -EEXIST;

	for (int i = 0; code == -EEXIST && i < NAMES_TRIED; i++) {
		free(*ret_path);
		*ret_path = NULL;
		if (asprintf(ret_path, "%s.%d-%d", path, (int)getpid(), i) < 0) {
			*ret_path = NULL;
			return -ENOMEM;
		}
		code = name_it(fd, *ret_path);
	}
	if (code < 0) {
		free(*ret_path);
		*ret_path = NULL;
	}
	return code;
}

/* Under its name only once it is whole. */
static int publish(const struct pl_options *options, int fd, char **written, struct pl_error *err)
{
	int code = 0;

	if (!*written) {
		code = name_it(fd, options->save);
		if (code == 0)
			return 0;
		if (code == -EEXIST && options->force)
			code = name_beside(fd, options->save, written);
	}
	if (code == 0 &&
		(options->force ? rename(*written, options->save) : renameat2(AT_FDCWD, *written, AT_FDCWD, options->save, RENAME_NOREPLACE)) < 0) {
		code = -errno;
		/* A file system that cannot do that at once. */
		if (!options->force && (code == -EINVAL || code == -ENOSYS))
			code = link(*written, options->save) < 0 ? -errno : 0;
		if (code == 0)
			(void)unlink(*written);
	}
	return code < 0 ? pl_fail(err, code, "--save %s: %s", options->save, strerror(-code)) : 0;
}

int pl_heap_save(const struct pl_options *options, struct pl_space *noting, struct pl_heap_copy *copy,
	const struct pl_core_facts *facts, struct pl_error *err)
{
	pl_autofree struct pl_memory_piece *runs = NULL;
	pl_autofree char *path = NULL;
	pl_autoclose int fd = -1;
	struct pl_error why = { 0 };
	char size[PL_SIZE_TEXT];
	struct stat status;
	size_t count = 0;
	int code = pl_heap_copy_runs(copy, &runs, &count);

	if (code < 0)
		return pl_fail(err, -ENOMEM, "out of memory");
	fd = open_unnamed(options->save, &path);
	if (fd < 0)
		return pl_fail(err, fd, "--save %s: %s", options->save, strerror(-fd));
	code = pl_core_write(fd, noting, runs, count, facts, &why);
	if (code == 0 && fsync(fd) < 0 && errno != EINVAL)
		code = pl_fail(&why, -errno, "%s", strerror(errno));
	if (code < 0)
		(void)pl_fail(err, code, "--save %s: %s", options->save, why.text);
	if (code == 0)
		code = publish(options, fd, &path, err);
	if (code < 0) {
		if (path)
			(void)unlink(path);
		return code;
	}
	if (fstat(fd, &status) == 0) {
		pl_format_size(status.st_size, false, size);
		pl_log_note("%s: %s written, with whatever secrets the process has in memory", options->save, size);
	}
	return 0;
}
