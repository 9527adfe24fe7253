/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "inline_sweep.h"
#include "pyleak/cleanup.h"
#include "pyleak/resident.h"

/* The half of a sweep that is about code objects: see inline_abi.h. */

static uint64_t code_at(const struct sweep *sweep, uint64_t number)
{
	return sweep->config->codes + number * sizeof(struct pl_inline_code);
}

int sweep_read_cursor(const struct sweep *sweep, size_t offset, uint64_t first, uint64_t limit, uint64_t *ret)
{
	int code = inline_memory_read(sweep->memory, sweep->config->control + offset, ret, sizeof(*ret));

	*ret = sweep_bounded(*ret, first, limit);
	return code;
}

static int mark_living(const struct sweep *sweep, uint8_t *unused)
{
	enum { ENTRIES = PL_PAGE / sizeof(struct pl_inline_code_entry) };
	const uint64_t count = sweep->config->code_map_mask + 1;
	pl_autofree struct pl_inline_code_entry *entries = malloc(ENTRIES * sizeof(*entries));
	pl_autoclose int fd = pl_resident_open(sweep->memory->pid);
	int code = entries ? 0 : -ENOMEM;

	for (uint64_t at = 0; code == 0 && at < count; at += ENTRIES) {
		const uint64_t part = count - at < ENTRIES ? count - at : ENTRIES;
		const uint64_t place = sweep->config->code_map + at * sizeof(*entries);
		uint8_t page = PL_RESIDENT;

		/* One page: what was never touched need not be read, which would make page tables for it. */
		if (fd >= 0 && pl_resident_pages(fd, (struct pl_range){place, place + PL_PAGE}, &page) == 0 && !page)
			continue;
		code = inline_memory_read(sweep->memory, sweep->config->code_map + at * sizeof(*entries), entries,
			part * sizeof(*entries));
		for (uint64_t i = 0; code == 0 && i < part; i++)
			if (entries[i].address > 1 && entries[i].code < sweep->code_count)
				unused[entries[i].code] = 0;
	}
	return code;
}

static int mark_named(const struct sweep *sweep, uint8_t *unused)
{
	uint64_t frames = 0, sites = 0;
	int code = sweep_read_cursor(sweep, offsetof(struct pl_inline_control, next_site), PL_INLINE_SITE_FIRST,
		sweep->config->site_limit, &sites);

	if (code < 0)
		return code;

	pl_autofree struct pl_inline_site *rows = calloc(sites + 1, sizeof(*rows));

	code = rows ? inline_memory_read(sweep->memory, sweep->config->sites, rows, sites * sizeof(*rows)) : -ENOMEM;
	if (code == 0)
		code = sweep_read_cursor(sweep, offsetof(struct pl_inline_control, next_frame), 0, sweep->config->frames_limit, &frames);
	if (code < 0)
		return code;

	pl_autofree uint64_t *words = calloc(frames + 1, sizeof(*words));

	code = words ? inline_memory_read(sweep->memory, sweep->config->frames, words, frames * sizeof(*words)) : -ENOMEM;
	for (uint64_t i = PL_INLINE_SITE_FIRST; code == 0 && i < sites; i++)
		for (uint32_t k = 0; rows[i].hash && k < rows[i].count && (uint64_t)rows[i].frames + k < frames; k++) {
			const uint32_t number = pl_inline_frame_code(words[rows[i].frames + k]);

			if (number < sweep->code_count)
				unused[number] = 0;
			if (number == PL_INLINE_CODE_LOST && i < sweep->site_count)
				sweep->sites_lost[i] = 1;
		}
	return code;
}

/* Clears `unused` of each code object that is alive, or that a row of a site names. The living first: one that dies in
 * between is named by now, or never. */
static int mark_codes(const struct sweep *sweep, uint8_t *unused)
{
	int code = mark_living(sweep, unused);

	return code < 0 ? code : mark_named(sweep, unused);
}

int sweep_codes_aside(struct sweep *sweep)
{
	int code = inline_memory_read(
		sweep->memory, sweep->config->codes, sweep->codes, sweep->code_count * sizeof(*sweep->codes));

	for (uint64_t i = PL_INLINE_CODE_FIRST; code == 0 && i < sweep->code_count; i++)
		sweep->codes_aside[i] = sweep->codes[i].hash && sweep->codes[i].room < PL_INLINE_TEXT_ROOMS;
	if (code == 0)
		code = mark_codes(sweep, sweep->codes_aside);
	return code < 0 ? code : sweep_set_aside(sweep, sweep->codes_aside, sweep->code_count, sweep->config->codes, sweep->codes,
					 sizeof(*sweep->codes));
}

int sweep_codes_revive(struct sweep *sweep)
{
	pl_autofree uint8_t *unused = malloc(sweep->code_count);
	int code;

	if (!unused)
		return -ENOMEM;
	memcpy(unused, sweep->codes_aside, sweep->code_count);
	code = mark_codes(sweep, unused);
	for (uint64_t i = PL_INLINE_CODE_FIRST; code == 0 && i < sweep->code_count; i++)
		if (sweep->codes_aside[i] && !unused[i]) {
			sweep->codes_aside[i] = 0;
			code = sweep_write_hash(sweep, code_at(sweep, i), sweep->codes[i].hash | 1);
		}
	return code;
}

static int give_codes_run(struct sweep *sweep, uint32_t first, size_t length, uint32_t heads[PL_INLINE_TEXT_ROOMS])
{
	for (size_t i = length; i-- > 0;) {
		struct pl_inline_code *row = &sweep->codes[first + i];

		row->hash = 0;
		row->next = heads[row->room];
		heads[row->room] = first + (uint32_t)i;
		pl_inline_reader_forget_code(sweep->reader, first + (uint32_t)i);
	}
	sweep->reuse->codes += length;
	return inline_memory_write(sweep->memory, code_at(sweep, first), &sweep->codes[first], length * sizeof(*sweep->codes));
}

int sweep_codes_give(struct sweep *sweep)
{
	uint32_t heads[PL_INLINE_TEXT_ROOMS] = {0};
	int code = 0;

	for (uint64_t i = PL_INLINE_CODE_FIRST; i < sweep->code_count; i++)
		if (sweep->codes_aside[i] && sweep->control.spare_codes[sweep->codes[i].room])
			sweep->codes_aside[i] = 0;
	for (uint64_t at = 0, length; code == 0 && at < sweep->code_count; at += length ? length : 1) {
		length = sweep_run(sweep->codes_aside, at, sweep->code_count);
		if (length)
			code = give_codes_run(sweep, (uint32_t)at, length, heads);
	}
	for (size_t room = 0; code == 0 && room < PL_INLINE_TEXT_ROOMS; room++)
		code = sweep_publish(sweep, offsetof(struct pl_inline_control, spare_codes) + room * sizeof(uint64_t), heads[room]);
	return code;
}
