/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <unistd.h>

#include "core_private.h"

/* What is in the file. */

size_t core_segment_at(const struct core *core, uint64_t address)
{
	size_t low = 0, high = core->segment_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (core->segments[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

size_t core_read_file(int fd, uint64_t offset, void *buffer, size_t length)
{
	size_t done = 0;

	while (done < length) {
		ssize_t got = pread(fd, (char *)buffer + done, length - done, (off_t)(offset + done));

		if (got > 0)
			done += (size_t)got;
		else if (got == 0 || errno != EINTR)
			break;
	}
	return done;
}

ssize_t core_read_own(struct core *core, uint64_t address, void *buffer, size_t length)
{
	size_t done = 0;

	while (done < length) {
		size_t at = core_segment_at(core, address + done), got, wanted;
		const struct core_segment *segment = &core->segments[at];

		if (at == core->segment_count || address + done < segment->start || address + done >= segment->file_end)
			break;
		wanted = length - done < segment->file_end - address - done ? length - done : segment->file_end - address - done;
		got = core_read_file(core->fd, segment->offset + (address + done - segment->start), (char *)buffer + done, wanted);
		done += got;
		if (got < wanted)
			break;
	}
	return (ssize_t)done;
}
