/* SPDX-License-Identifier: MIT */
#include "inline_read.h"

/*
 * Rows of sites. The recorder stores the hash of a row last (probe/inline/trace.c, with RELEASE), but a copy may load the
 * words of a row in any order: what a row says is what it says after its hash was seen. So is what is read after this.
 */
int inline_rows_read(const struct pl_inline_reader *reader, uint64_t first, size_t count,
	struct pl_inline_site rows[INLINE_ROWS_AT_ONCE])
{
	const uint64_t address = reader->config.sites + first * sizeof(rows[0]);
	bool ready[INLINE_ROWS_AT_ONCE];
	int code = reader->read(reader->context, address, rows, count * sizeof(rows[0]));

	for (size_t i = 0; code == 0 && i < count; i++)
		ready[i] = rows[i].hash != 0;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (code == 0)
		code = reader->read(reader->context, address, rows, count * sizeof(rows[0]));
	for (size_t i = 0; code == 0 && i < count; i++)
		if (!ready[i])
			rows[i].hash = 0;
	return code;
}
