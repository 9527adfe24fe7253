/* SPDX-License-Identifier: MIT */
#include "frozen.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pyleak/cleanup.h"
#include "pyleak/maps.h"
#include "pyleak/process.h"

static const char frozen[] = "<frozen ";
enum { FROZEN_LENGTH = sizeof(frozen) - 1 };

bool is_frozen(const char *filename)
{
	return strncmp(filename, frozen, FROZEN_LENGTH) == 0;
}

static bool exists(pid_t pid, const char *path)
{
	pl_autoclose int fd = pl_process_open_file_as(pid, path);

	return fd >= 0;
}

static char *take_library(pid_t pid, const char *folder, int length)
{
	pl_autofree char *probe = NULL;
	char *text;

	if (asprintf(&probe, "%.*s/abc.py", length, folder) < 0) {
		probe = NULL; /* asprintf leaves it undefined */
		return NULL;
	}
	if (!exists(pid, probe))
		return NULL;
	text = strndup(folder, (size_t)length);
	return text;
}

/* "/usr/lib/python3.11/lib-dynload/_json.so" has it in its name; of "/opt/bin/python3.11" and
 * "/opt/lib/x86_64-linux-gnu/libpython3.11.so.1.0" it is "/opt/lib/python3.11". */
static char *library_beside(pid_t pid, const char *path)
{
	const char *dynload = strstr(path, "/lib-dynload/"), *name = strrchr(path, '/'), *version;
	char folder[PATH_MAX];
	size_t digits;

	if (dynload)
		return take_library(pid, path, (int)(dynload - path));
	if (!name || (strncmp(name, "/python3.", 9) != 0 && strncmp(name, "/libpython3.", 12) != 0))
		return NULL;
	version = strchr(name, '3');
	digits = 2 + strspn(version + 2, "0123456789");
	if (version[digits] == 't')
		digits++; /* without a GIL */
	for (const char *end = name; end > path; end = memrchr(path, '/', (size_t)(end - path))) {
		int length = snprintf(folder, sizeof(folder), "%.*s/lib/python%.*s", (int)(end - path), path, (int)digits, version);
		char *found = length < (int)sizeof(folder) ? take_library(pid, folder, length) : NULL;

		if (found)
			return found;
	}
	return NULL;
}

/* The kernel names files as they are seen from our root: what the process calls them is what is left without its own. */
static const char *without_root(const char *path, const char *root)
{
	size_t length = strlen(root);

	return length > 1 && strncmp(path, root, length) == 0 && path[length] == '/' ? path + length : path;
}

/* Of the process that was asked about last. */
static const char *standard_library(pid_t pid)
{
	static pid_t known;
	static char *folder;
	struct pl_maps maps = {0};
	char root[PATH_MAX] = "", link[48];

	if (known == pid)
		return folder;
	free(folder);
	folder = NULL;
	known = pid;
	(void)snprintf(link, sizeof(link), "/proc/%d/root", (int)pid);
	if (readlink(link, root, sizeof(root) - 1) < 0)
		root[0] = '\0';
	if (pl_maps_read(pid, &maps) == 0)
		for (size_t i = 0; i < maps.count && !folder; i++)
			if (i == 0 || strcmp(maps.items[i].path, maps.items[i - 1].path) != 0)
				folder = library_beside(pid, without_root(maps.items[i].path, root));
	pl_maps_free(&maps);
	return folder;
}

char *frozen_file(pid_t pid, const char *filename)
{
	const char *module = filename + FROZEN_LENGTH, *folder;
	size_t length = strspn(module, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.");
	pl_autofree char *name = strndup(module, length);
	char *path = NULL;

	if (!name || !length || strcmp(module + length, ">") != 0 || *name == '.' || strstr(name, ".."))
		return NULL;
	folder = standard_library(pid);
	for (char *c = name; *c; c++)
		if (*c == '.')
			*c = '/';
	if (!folder || asprintf(&path, "%s/%s.py", folder, name) < 0)
		return NULL;
	if (exists(pid, path))
		return path;
	free(path);
	return asprintf(&path, "%s/%s/__init__.py", folder, name) < 0 ? NULL : path;
}
