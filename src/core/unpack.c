/* SPDX-License-Identifier: MIT */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "core_private.h"
#include "pyleak/cleanup.h"
#include "pyleak/log.h"
#include "pyleak/units.h"

/* Unpacks into a file without a name, so that it is gone with us. Its headers say how long it has to be: no more is unpacked. */

enum { PIECE = 1 << 20, HEADERS_MAX = 1 << 26 };
#define UNPACKED_MAX (UINT64_C(1) << 40)

struct unpacking {
	const char *path;
	int in, out;
	uint64_t size, wanted; /* bytes so far; and that are to come, 0 while it is not known */
	uint8_t *bytes;        /* PIECE */
	struct pl_error *err;
};

/* How much of the file its program headers speak of. 0: they are not there yet. */
static int find_wanted(struct unpacking *unpacking)
{
	pl_autofree Elf64_Phdr *segments = NULL;
	uint64_t count, end = 0;
	Elf64_Ehdr header;

	if (unpacking->size < sizeof(header) || pread(unpacking->out, &header, sizeof(header), 0) != sizeof(header))
		return 0;
	if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_type != ET_CORE)
		return pl_fail(unpacking->err, -ENOEXEC, "%s is packed, and no core file", unpacking->path);
	count = header.e_phnum;
	end = header.e_shoff ? header.e_shoff + (uint64_t)header.e_shnum * header.e_shentsize : 0;
	/* More than fit into the header: then all of it is unpacked, up to the limit. */
	if (count == PN_XNUM) {
		unpacking->wanted = UNPACKED_MAX;
		return 0;
	}
	if (header.e_phentsize != sizeof(*segments) || header.e_phoff > HEADERS_MAX)
		return pl_fail(unpacking->err, -EBADMSG, "%s is damaged: its program headers are none", unpacking->path);
	if (unpacking->size < header.e_phoff + count * sizeof(*segments))
		return 0;
	segments = calloc(count + 1, sizeof(*segments));
	if (!segments)
		return pl_fail(unpacking->err, -ENOMEM, "out of memory");
	if (pread(unpacking->out, segments, count * sizeof(*segments), (off_t)header.e_phoff) != (ssize_t)(count * sizeof(*segments)))
		return pl_fail(unpacking->err, -EIO, "%s: what was unpacked cannot be read", unpacking->path);
	for (uint64_t i = 0; i < count; i++)
		if (segments[i].p_offset + segments[i].p_filesz > end)
			end = segments[i].p_offset + segments[i].p_filesz;
	if (end > UNPACKED_MAX)
		return pl_fail(unpacking->err, -E2BIG, "%s says that it is larger than 1 TiB", unpacking->path);
	unpacking->wanted = end > unpacking->size ? end : unpacking->size;
	return 0;
}

static bool is_zero(const uint8_t *bytes, size_t length)
{
	return length && bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0;
}

/* 1: that is all. Pages of zeros become holes. */
static int put(struct unpacking *unpacking, size_t length)
{
	for (size_t at = 0, part; at < length; at += part) {
		part = length - at < PL_PAGE ? length - at : PL_PAGE;
		if (!is_zero(unpacking->bytes + at, part) &&
			pwrite(unpacking->out, unpacking->bytes + at, part, (off_t)(unpacking->size + at)) != (ssize_t)part)
			return pl_fail(unpacking->err, errno ? -errno : -ENOSPC,
				"%s cannot be unpacked: %s (TMPDIR says where to)", unpacking->path, strerror(errno ? errno : ENOSPC));
	}
	unpacking->size += length;
	if (ftruncate(unpacking->out, (off_t)unpacking->size) < 0)
		return pl_fail(unpacking->err, -errno, "%s cannot be unpacked: %s", unpacking->path, strerror(errno));
	if (!unpacking->wanted) {
		int code = find_wanted(unpacking);

		if (code < 0)
			return code;
		if (!unpacking->wanted && unpacking->size > HEADERS_MAX * UINT64_C(2))
			return pl_fail(unpacking->err, -EBADMSG, "%s is damaged: it has no program headers", unpacking->path);
	}
	return unpacking->wanted && unpacking->size >= unpacking->wanted;
}

static int broken(const struct unpacking *unpacking, const char *why)
{
	return pl_fail(unpacking->err, -EBADMSG, "%s cannot be unpacked: %s", unpacking->path, why);
}

static int unpack_zstd(struct unpacking *unpacking)
{
	const size_t room = ZSTD_DStreamInSize();
	pl_autofree uint8_t *packed = malloc(room);
	ZSTD_DCtx *context = ZSTD_createDCtx();
	int code = packed && context ? 0 : pl_fail(unpacking->err, -ENOMEM, "out of memory");
	size_t left = 0;

	while (code == 0) {
		ssize_t got = read(unpacking->in, packed, room);
		ZSTD_inBuffer input = { packed, got > 0 ? (size_t)got : 0, 0 };

		if (got < 0)
			code = pl_fail(unpacking->err, -errno, "%s: %s", unpacking->path, strerror(errno));
		if (got == 0)
			code = left ? broken(unpacking, "its end is missing") : 1;
		/* Also while there is output left of what was taken in. */
		while (code == 0 && (input.pos < input.size || left == SIZE_MAX)) {
			ZSTD_outBuffer output = { unpacking->bytes, PIECE, 0 };

			left = ZSTD_decompressStream(context, &output, &input);
			if (ZSTD_isError(left))
				code = broken(unpacking, ZSTD_getErrorName(left));
			else if (output.pos)
				code = put(unpacking, output.pos);
			if (code == 0 && output.pos == output.size && left)
				left = SIZE_MAX;
		}
	}
	ZSTD_freeDCtx(context);
	return code < 0 ? code : 0;
}

static int unpack_gzip(struct unpacking *unpacking)
{
	int copy = dup(unpacking->in), code = 0;
	gzFile file = copy < 0 ? NULL : gzdopen(copy, "rb");

	if (!file) {
		if (copy >= 0)
			(void)close(copy);
		return pl_fail(unpacking->err, -ENOMEM, "out of memory");
	}
	while (code == 0) {
		int got = gzread(file, unpacking->bytes, PIECE), error = 0;

		if (got > 0) {
			code = put(unpacking, (size_t)got);
			continue;
		}
		(void)gzerror(file, &error);
		code = got < 0 || error != Z_OK ? broken(unpacking, "it is damaged, or its end is missing") : 1;
	}
	(void)gzclose(file);
	return code < 0 ? code : 0;
}

/* In memory there may be no room for it: /var/tmp is on a disk as a rule. */
static int open_unnamed(void)
{
	const char *folders[] = { getenv("TMPDIR"), "/var/tmp", "/tmp" };
	int fd = -1;

	for (size_t i = 0; fd < 0 && i < sizeof(folders) / sizeof(folders[0]); i++)
		if (folders[i] && folders[i][0])
			fd = open(folders[i], O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0) {
		FILE *file = tmpfile();

		fd = file ? dup(fileno(file)) : -1;
		if (file)
			(void)fclose(file);
	}
	return fd;
}

int core_unpack(int *fd, const char *path, struct pl_error *err)
{
	pl_autofree uint8_t *bytes = NULL;
	struct unpacking unpacking = { .path = path, .in = *fd, .err = err };
	uint8_t magic[4] = { 0 };
	bool zstd, gzip;
	int code;

	if (pread(*fd, magic, sizeof(magic), 0) < 0)
		return pl_fail(err, -errno, "%s: %s", path, strerror(errno));
	zstd = memcmp(magic, "\x28\xb5\x2f\xfd", 4) == 0;
	gzip = memcmp(magic, "\x1f\x8b", 2) == 0;
	if (memcmp(magic, "\x04\x22\x4d\x18", 4) == 0 || memcmp(magic, "\xfd" "7zX", 4) == 0)
		return pl_fail(err, -ENOTSUP, "%s is packed by %s: unpack it first", path, magic[0] == 4 ? "lz4" : "xz");
	if (!zstd && !gzip)
		return 0;
	unpacking.bytes = bytes = malloc(PIECE);
	unpacking.out = open_unnamed();
	if (!bytes || unpacking.out < 0)
		return pl_fail(err, -EIO, "%s cannot be unpacked: no temporary file can be made (TMPDIR says where)", path);
	pl_log_note("%s is unpacked", path);
	code = zstd ? unpack_zstd(&unpacking) : unpack_gzip(&unpacking);
	(void)close(*fd);
	*fd = unpacking.out;
	return code;
}
