/* SPDX-License-Identifier: MIT */
#include "pyleak/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "pyleak/arch.h"
#include "pyleak/cleanup.h"
#include "pyleak/text.h"
#include "pyleak/units.h"
#include "process_private.h"
#include "rights.h"

enum { MAX_COMMAND_LINE = 4096, MAX_LINK = 4096, LOOKS_AT_THREADS = 4 };

char *pl_proc_link(pid_t pid, const char *name)
{
	static const char deleted[] = " (deleted)";
	pl_autofree char *target = malloc(MAX_LINK);
	char path[64];
	ssize_t length;

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	if (!target)
		return NULL;
	length = readlink(path, target, MAX_LINK - 1);
	if (length < 0)
		return NULL;
	target[length] = '\0';
	if ((size_t)length >= sizeof(deleted) && strcmp(target + length - (sizeof(deleted) - 1), deleted) == 0)
		target[length - (ssize_t)(sizeof(deleted) - 1)] = '\0';
	return PL_TAKE(target);
}

/* What a process calls itself may hold anything; it is shown on terminals and in tables. */
static void make_printable(char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (text[i] == '\0')
			text[i] = ' ';
	pl_text_blank(text, length);
}

static char *read_command_line(pid_t pid)
{
	pl_autofree char *text = malloc(MAX_COMMAND_LINE);
	ssize_t length;

	if (!text)
		return NULL;
	length = pl_proc_read(pid, "cmdline", text, MAX_COMMAND_LINE);
	if (length < 0)
		length = 0; /* it ended, or hides (hidepid) */
	while (length > 0 && (text[length - 1] == '\0' || text[length - 1] == ' '))
		length--; /* setproctitle() pads */
	make_printable(text, (size_t)length);
	text[length] = '\0';
	return PL_TAKE(text);
}

static int parse_stat(char *text, struct pl_process *process)
{
	/* The name may hold spaces and brackets of its own: the last bracket ends it. */
	char *open_bracket = strchr(text, '('), *close_bracket = strrchr(text, ')');
	unsigned long long start_time;
	int ppid, threads;
	size_t length;

	if (!open_bracket || !close_bracket || close_bracket < open_bracket)
		return -EPROTO;
	if (sscanf(close_bracket + 1, " %c %d %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %d %*s %llu",
		    &process->state, &ppid, &threads, &start_time) != 4)
		return -EPROTO;
	process->ppid = ppid;
	process->threads = threads;
	process->start_time = start_time;
	length = (size_t)(close_bracket - open_bracket - 1);
	if (length >= sizeof(process->comm))
		length = sizeof(process->comm) - 1;
	memcpy(process->comm, open_bracket + 1, length);
	process->comm[length] = '\0';
	make_printable(process->comm, length);
	return 0;
}

void pl_proc_parse_status(const char *status, struct pl_process *process)
{
	const char *ids = pl_proc_field(status, "Uid");
	const char *features = pl_proc_field(status, PL_ARCH_SHADOW_STACK_LINE);
	const char *shadow = features ? strstr(features, PL_ARCH_SHADOW_STACK_WORD) : NULL;

	process->tracer = (pid_t)pl_proc_number(status, "TracerPid", 10);
	process->seccomp = (int)pl_proc_number(status, "Seccomp", 10);
	process->sig_blocked = pl_proc_number(status, "SigBlk", 16);
	process->sig_caught = pl_proc_number(status, "SigCgt", 16);
	process->sig_ignored = pl_proc_number(status, "SigIgn", 16);
	process->shadow_stack = shadow && shadow < features + strcspn(features, "\n");
	if (ids)
		(void)sscanf(ids, "%u %u", &process->uid, &process->euid);
	ids = pl_proc_field(status, "Gid");
	if (ids)
		(void)sscanf(ids, "%u %u", &process->gid, &process->egid);
}

/* NSpid lists its pid in each namespace from ours inwards: one number means ours. Readable by everybody, unlike ns/. */
static void parse_namespaces(const char *status, struct pl_process *process)
{
	const char *ids = pl_proc_field(status, "NSpid");

	process->same_pid_namespace = true;
	process->own_pid = process->pid;
	while (ids) {
		size_t length = strcspn(ids, "\t \n");

		process->own_pid = (pid_t)strtol(ids, NULL, 10);
		if (ids[length] == '\n' || ids[length] == '\0')
			break;
		process->same_pid_namespace = false;
		ids += length + 1;
	}
}

int pl_process_read(pid_t pid, struct pl_process *process)
{
	char stat_text[1024];
	pl_autofree char *status = malloc(PL_PROC_STATUS_BYTES);
	ssize_t length;
	int r;

	*process = (struct pl_process){.pid = pid};
	if (!status)
		return -ENOMEM;
	if (pid <= 0)
		return -ESRCH;
	length = pl_proc_read(pid, "stat", stat_text, sizeof(stat_text));
	if (length < 0)
		return (int)length;
	r = parse_stat(stat_text, process);
	if (r < 0)
		return r;
	length = pl_proc_read(pid, "status", status, PL_PROC_STATUS_BYTES);
	if (length < 0)
		return (int)length;
	pl_proc_parse_status(status, process);
	parse_namespaces(status, process);
	process->rss = pl_process_rss(pid);
	process->executable = pl_proc_link(pid, "exe");
	process->command_line = read_command_line(pid);
	return process->command_line ? 0 : -ENOMEM;
}

const char *pl_process_title(const struct pl_process *process)
{
	return process->command_line && *process->command_line ? process->command_line : process->comm;
}

void pl_process_free(struct pl_process *process)
{
	free(process->command_line);
	free(process->executable);
	process->command_line = NULL;
	process->executable = NULL;
}

uint64_t pl_process_rss(pid_t pid)
{
	char text[128];
	unsigned long long pages;

	if (pl_proc_read(pid, "statm", text, sizeof(text)) < 0 || sscanf(text, "%*s %llu", &pages) != 1)
		return 0;
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

int pl_process_memory(pid_t pid, struct pl_process_memory *ret)
{
	static const struct {
		const char *name;
		size_t field;
	} fields[] = {
		{"VmRSS", offsetof(struct pl_process_memory, rss)},
		{"RssAnon", offsetof(struct pl_process_memory, anonymous)},
		{"RssFile", offsetof(struct pl_process_memory, files)},
		{"RssShmem", offsetof(struct pl_process_memory, shared)},
	};
	pl_autofree char *status = malloc(PL_PROC_STATUS_BYTES);
	ssize_t length;

	if (!status)
		return -ENOMEM;
	length = pl_proc_read(pid, "status", status, PL_PROC_STATUS_BYTES);
	if (length < 0)
		return (int)length;
	if (!pl_proc_field(status, "VmSize"))
		return -ESRCH; /* a zombie has no memory */
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		uint64_t bytes = pl_proc_number(status, fields[i].name, 10) * 1024;

		if (!pl_proc_field(status, fields[i].name))
			return -ENODATA;
		memcpy((char *)ret + fields[i].field, &bytes, sizeof(bytes));
	}
	return 0;
}

static bool read_locked(pid_t tid, uint64_t *ret)
{
	pl_autofree char *status = malloc(PL_PROC_STATUS_BYTES);

	if (!status || pl_proc_read(tid, "status", status, PL_PROC_STATUS_BYTES) < 0 || !pl_proc_field(status, "VmLck"))
		return false;
	*ret = pl_proc_number(status, "VmLck", 10) * 1024;
	return true;
}

uint64_t pl_process_locked(pid_t pid)
{
	pl_autofree pid_t *tids = NULL;
	uint64_t locked = 0;
	size_t count;

	/* A leader that has ended says nothing: then another thread is asked. */
	if (read_locked(pid, &locked) || pl_process_threads(pid, &tids, &count) < 0)
		return locked;
	for (size_t i = 0; i < count && !read_locked(tids[i], &locked); i++)
		;
	return locked;
}

int pl_process_start_time(pid_t pid, uint64_t *ret_start_time)
{
	struct pl_process process = {0};
	char text[1024];
	ssize_t length = pl_proc_read(pid, "stat", text, sizeof(text));
	int r;

	if (length < 0)
		return (int)length;
	r = parse_stat(text, &process);
	if (r == 0)
		*ret_start_time = process.start_time;
	return r;
}

bool pl_process_is_alive(pid_t pid, uint64_t start_time)
{
	struct pl_process process = {0};
	char text[1024];

	if (pl_proc_read(pid, "stat", text, sizeof(text)) < 0 || parse_stat(text, &process) < 0)
		return false;
	if (process.start_time != start_time || strchr("Xx", process.state))
		return false;
	/* A leader that called pthread_exit() is a zombie too, but its threads live on. On its way to be one, a process
	 * loses its memory first. */
	if (process.state == 'Z')
		return process.threads > 1;
	return pl_proc_read(pid, "statm", text, sizeof(text)) > 0 && strncmp(text, "0 ", 2) != 0;
}

/* The entries of a directory of /proc that are numbers. */
static int list_numbers(const char *path, pid_t **ret_ids, size_t *ret_count)
{
	pl_autofree pid_t *ids = NULL;
	size_t count = 0, capacity = 0;
	DIR *directory = opendir(path);
	struct dirent *entry;
	int r = 0;

	if (!directory)
		return errno == ENOENT ? -ESRCH : -errno;
	while ((errno = 0, entry = readdir(directory))) {
		int64_t id;

		if (pl_parse_number(entry->d_name, 1, INT32_MAX, &id) < 0)
			continue;
		if (count == capacity) {
			pid_t *grown;

			capacity = capacity ? 2 * capacity : 64;
			grown = reallocarray(ids, capacity, sizeof(*ids));
			if (!grown) {
				r = -ENOMEM;
				break;
			}
			ids = grown;
		}
		ids[count++] = (pid_t)id;
	}
	if (r == 0 && errno)
		r = errno == ENOENT ? -ESRCH : -errno; /* the process ended while we read */
	(void)closedir(directory);
	if (r < 0)
		return r;
	*ret_ids = PL_TAKE(ids);
	*ret_count = count;
	return 0;
}

/* Whether one of these threads has ended. */
static bool any_ended(pid_t pid, const pid_t *tids, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (syscall(SYS_tgkill, pid, tids[i], 0) < 0 && errno == ESRCH)
			return true;
	return false;
}

static bool contains(const pid_t *ids, size_t count, pid_t id)
{
	for (size_t i = 0; i < count; i++)
		if (ids[i] == id)
			return true;
	return false;
}

/* Adds those of `more` that are not among them yet. */
static int merge(pid_t **ids, size_t *count, const pid_t *more, size_t more_count)
{
	pid_t *grown = reallocarray(*ids, *count + more_count, sizeof(*grown));
	const size_t before = *count;

	if (!grown)
		return -ENOMEM;
	*ids = grown;
	for (size_t i = 0; i < more_count; i++)
		if (!contains(grown, before, more[i]))
			grown[(*count)++] = more[i];
	return 0;
}

/*
 * If a thread ends while the kernel stands at it in its list, the list breaks off there, and goes on behind as many of the
 * living as have ended of those that were given out (fs/proc/base.c: next_tid(), first_tid()): the ones in between are
 * missing. So a list during which a thread has ended is only a part, and others are added to it.
 */
int pl_process_threads(pid_t pid, pid_t **ret_tids, size_t *ret_count)
{
	pl_autofree pid_t *tids = NULL;
	size_t count = 0;
	char path[64];
	bool ended = true;

	(void)snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	for (int looks = 0; looks < LOOKS_AT_THREADS && ended; looks++) {
		pl_autofree pid_t *more = NULL;
		size_t more_count = 0;
		int r = list_numbers(path, &more, &more_count);

		if (r < 0)
			return r;
		ended = any_ended(pid, more, more_count);
		r = merge(&tids, &count, more, more_count);
		if (r < 0)
			return r;
	}
	if (count == 0)
		return -ESRCH;
	*ret_tids = PL_TAKE(tids);
	*ret_count = count;
	return 0;
}

static int compare_pids(const void *a, const void *b)
{
	pid_t first = *(const pid_t *)a, second = *(const pid_t *)b;

	return (first > second) - (first < second);
}

int pl_process_list(pid_t **ret_pids, size_t *ret_count)
{
	int r = list_numbers("/proc", ret_pids, ret_count);

	if (r == 0 && *ret_count > 0)
		qsort(*ret_pids, *ret_count, sizeof(**ret_pids), compare_pids);
	return r;
}

/* The tracee names the file: to open a device may already do something (/dev/watchdog), so it is
 * looked at first and only then opened for reading. */
static int reopen_regular(int found)
{
	char path[48];
	struct stat status;
	int fd;

	if (fstat(found, &status) < 0)
		return -errno;
	if (!S_ISREG(status.st_mode))
		return -EINVAL;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", found);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	return fd < 0 ? -errno : fd;
}

static int open_root(pid_t pid)
{
	char path[48];
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/root", (int)pid);
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return fd >= 0 ? fd : errno == ENOENT ? -ESRCH : -errno;
}

static int open_in(int root, const char *path)
{
	struct open_how how = {
		.flags = O_PATH | O_CLOEXEC,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};
	pl_autoclose int found = -1;

	/* An absolute symbolic link in a container must not lead out of it into our own files. */
	found = (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
	if (found < 0 && (errno == ENOSYS || errno == EPERM)) {
		/* Before Linux 5.6, or a seccomp filter that predates it. Links are then followed as ours. */
		path += strspn(path, "/");
		found = openat(root, *path ? path : ".", (int)how.flags);
	}
	return found < 0 ? -errno : reopen_regular(found);
}

int pl_process_open_file(pid_t pid, const char *path)
{
	pl_autoclose int root = open_root(pid);

	return root < 0 ? root : open_in(root, path);
}

int pl_process_open_file_as(pid_t pid, const char *path)
{
	/* To look into another process takes more rights than it has. */
	pl_autoclose int root = open_root(pid);
	struct pl_rights own;
	int fd = root < 0 ? root : pl_rights_put_on(pid, &own);

	if (fd < 0)
		return fd;
	fd = open_in(root, path);
	pl_rights_take_off(&own);
	return fd;
}
