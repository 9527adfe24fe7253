/* SPDX-License-Identifier: MIT */
#include "gzip.h"

#include <errno.h>
#include <zlib.h>

#include "pyleak/cleanup.h"

enum { GZIP_WINDOW = 15 + 16, MEMORY_LEVEL = 8 }; /* zlib.h: 16 more asks for a gzip header */

int gzip_write(FILE *out, const void *bytes, size_t size)
{
	z_stream stream = {0};
	pl_autofree unsigned char *packed = NULL;
	size_t room;
	int code;

	if (size > UINT_MAX / 2)
		return -EFBIG;
	if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, GZIP_WINDOW, MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK)
		return -ENOMEM;
	room = deflateBound(&stream, size);
	packed = malloc(room);
	if (!packed) {
		(void)deflateEnd(&stream);
		return -ENOMEM;
	}
	stream.next_in = (z_const Bytef *)bytes;
	stream.avail_in = (uInt)size;
	stream.next_out = packed;
	stream.avail_out = (uInt)room;
	code = deflate(&stream, Z_FINISH);
	room = stream.total_out;
	(void)deflateEnd(&stream);
	if (code != Z_STREAM_END)
		return -EIO;
	errno = 0;
	if (fwrite(packed, 1, room, out) == room && fflush(out) == 0)
		return 0;
	return errno ? -errno : -EIO;
}
