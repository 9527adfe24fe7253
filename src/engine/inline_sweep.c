/* SPDX-License-Identifier: MIT */
#include "inline_sweep.h"

uint64_t sweep_bounded(uint64_t count, uint64_t first, uint64_t limit)
{
	return count < limit - first ? first + count : limit;
}

int sweep_write_hash(const struct sweep *sweep, uint64_t at, uint64_t hash)
{
	/* The lowest byte of it, which is one store. */
	const uint8_t byte = (uint8_t)hash;

	return inline_memory_write(sweep->memory, at, &byte, 1);
}

/* So many rows from `at` on are in the set. */
uint64_t sweep_run(const uint8_t *set, uint64_t at, uint64_t count)
{
	uint64_t length = 0;

	while (length < SWEEP_RUN && at + length < count && set[at + length])
		length++;
	return length;
}

/*
 * Clears the lowest bit of the hash, which each row begins with. Runs of rows are written at once: of what is written the one
 * byte of each row is all that changes, since nobody but us changes a row that is ready.
 */
int sweep_set_aside(const struct sweep *sweep, const uint8_t *aside, uint64_t count, uint64_t table, void *rows, size_t size)
{
	int code = 0;

	for (uint64_t at = 0, length; code == 0 && at < count; at += length ? length : 1) {
		uint8_t *first = (uint8_t *)rows + at * size;

		length = sweep_run(aside, at, count);
		for (uint64_t i = 0; i < length; i++)
			first[i * size] &= (uint8_t)~1;
		if (length)
			code = inline_memory_write(sweep->memory, table + at * size, first, length * size);
	}
	return code;
}

/* The head of a list, if nobody has one there. */
int sweep_publish(const struct sweep *sweep, uint64_t at, uint32_t number)
{
	const uint64_t head = pl_inline_spare(number);

	return number ? inline_memory_write(sweep->memory, sweep->config->control + at, &head, sizeof(head)) : 0;
}
