/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "output.h"
#include "pyleak/cleanup.h"
#include "pyleak/log.h"
#include "pyleak/units.h"

/* A file that was there before. Opened first and looked at then, so that what is checked is what is
 * written to. */
static int open_existing(const char *path, bool force, struct pl_error *err)
{
	const int flags = O_WRONLY | O_CLOEXEC | O_NOCTTY;
	pl_autoclose int fd = open(path, flags | O_NOFOLLOW);
	bool link = fd < 0 && errno == ELOOP;
	struct stat status;
	int opened;

	if (link)
		fd = open(path, flags); /* /dev/stdout is one, and leads to no file */
	if (fd < 0 || fstat(fd, &status) < 0)
		return pl_fail(err, -errno, "--output %s: %s", path, strerror(errno));
	if (S_ISREG(status.st_mode)) {
		if (!force)
			return pl_fail(err, -EEXIST, "--output %s: the file exists; --force overwrites it", path);
		/* Where it leads is not what was named: in a folder of everybody's it may be another user's choice. */
		if (link)
			return pl_fail(err, -ELOOP, "--output %s: that is a symbolic link, which --force does not follow", path);
		if (ftruncate(fd, 0) < 0)
			return pl_fail(err, -errno, "--output %s: %s", path, strerror(errno));
	}
	opened = fd;
	fd = -1;
	return opened;
}

int pl_output_open(const struct pl_options *options, struct pl_output *output, struct pl_error *err)
{
	const char *path = options->output;
	int fd;

	*output = (struct pl_output){.format = pl_report_format(options->format)->name};
	if (!path || strcmp(path, "-") == 0) {
		if (pl_report_format(options->format)->binary && isatty(STDOUT_FILENO))
			return pl_fail(err, -EINVAL, "--format %s is not for a terminal: give --output FILE",
				pl_report_format(options->format)->name);
		output->stream = stdout;
		return 0;
	}
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOCTTY, 0666);
	output->created = fd >= 0;
	if (fd < 0 && errno != EEXIST)
		return pl_fail(err, -errno, "--output %s: %s", path, strerror(errno));
	if (fd < 0)
		fd = open_existing(path, options->force, err);
	if (fd < 0)
		return fd;
	output->stream = fdopen(fd, "w");
	if (!output->stream) {
		(void)close(fd);
		return pl_fail(err, -ENOMEM, "out of memory");
	}
	output->path = path;
	return 0;
}

static void note_written(const struct pl_output *output, int64_t bytes)
{
	char size[PL_SIZE_TEXT], length[PL_SIZE_TEXT];

	pl_format_size(bytes, false, size);
	pl_format_duration(output->length_ns, length);
	if (output->snapshots)
		pl_log_note("%s: %s written, %zu snapshot%s in %s; 'pyleak report %s' shows what grew", output->path, size,
			output->snapshots, output->snapshots == 1 ? "" : "s", length, output->path);
	else
		pl_log_note("%s: %s of %s written", output->path, size, output->format);
}

int pl_output_close(struct pl_output *output, struct pl_error *err)
{
	FILE *stream = PL_TAKE(output->stream);
	struct stat status;
	bool broken;

	if (!stream)
		return 0;
	broken = ferror(stream);
	errno = EIO; /* what an earlier failed write leaves no trace of */
	if (fflush(stream) != 0)
		broken = true;
	int error = errno;
	if (output->path) {
		bool known = fstat(fileno(stream), &status) == 0 && S_ISREG(status.st_mode);
		bool empty = output->created && known && status.st_size == 0;

		if (fclose(stream) != 0 && !broken) {
			error = errno;
			broken = true;
		}
		if (empty) {
			(void)unlink(output->path);
		} else if (known && !broken) {
			note_written(output, status.st_size);
		}
	}
	if (broken)
		return pl_fail(err, -error, "%s: %s", output->path ? output->path : "standard output", strerror(error));
	return 0;
}

int pl_output_write(
	struct pl_output *output, const char *text, size_t length, bool (*idle)(void *context), void *context)
{
	struct pollfd ready = {.fd = fileno(output->stream), .events = POLLOUT};
	ssize_t written;

	while (length) {
		/* A pipe that is ready takes PIPE_BUF bytes; what a terminal does not take it waits for. */
		while (idle && poll(&ready, 1, 0) == 0)
			if (!idle(context))
				idle = NULL;
		if (__fpending(output->stream)) {
			if (fflush(output->stream) != 0)
				return -errno;
			continue; /* that may have been the room there was */
		}
		written = write(ready.fd, text, idle && length > PIPE_BUF ? PIPE_BUF : length);
		/* A tick of the recording, or a signal that idle() will see; from when the write just waits, ^C. */
		if (written < 0 && errno == EINTR && idle)
			continue;
		if (written < 0)
			return -errno;
		text += written;
		length -= (size_t)written;
	}
	return 0;
}

bool pl_output_color(const struct pl_options *options, const struct pl_output *output)
{
	const char *no_color = getenv("NO_COLOR"), *terminal = getenv("TERM");

	if (options->color != PL_COLOR_AUTO)
		return options->color == PL_COLOR_ALWAYS;
	if ((no_color && *no_color) || (terminal && strcmp(terminal, "dumb") == 0))
		return false;
	return isatty(fileno(output->stream));
}

size_t pl_output_width(const struct pl_output *output)
{
	struct winsize size;

	if (ioctl(fileno(output->stream), TIOCGWINSZ, &size) < 0)
		return 0;
	return size.ws_col;
}

size_t pl_output_fitting(const char *text, size_t columns)
{
	size_t length = 0;

	while (text[length]) {
		if (((unsigned char)text[length] & 0xc0) != 0x80 && columns-- == 0)
			break;
		length++;
	}
	return length;
}
