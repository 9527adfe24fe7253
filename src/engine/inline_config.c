/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "pyleak/inline_config.h"
#include "pyleak/page.h"

/*
 * Sizes: address space, not memory; a page counts when the recorder first touches it. What a full
 * table costs is in inline_abi.h.
 */
enum {
	SLOTS = 1024,
	CHUNKS = 1024, /* 64 GiB of heap */
	ODD = 1 << 18,
	SITES = 1 << 18,
	FRAMES = 1 << 23,
	CODES = 1 << 17,
	CODE_MAP = 1 << 18,
	ARENA = 128 << 20,
};

static uint64_t carve(uint64_t *at, uint64_t size)
{
	uint64_t start = *at;

	*at += pl_page_end(size);
	return start;
}

/* Lays the tables out from `at` on and returns the end. */
static uint64_t lay_out(const struct pl_inline_options *options, uint64_t at, struct pl_inline_config *config)
{
	config->frame_limit = options->frames;
	config->sample = options->sample;
	config->nested_size = 512;
	config->slot_count = SLOTS;
	config->slot_stride = PL_INLINE_SLOT_BYTES;
	config->window_power = 1;
	for (uint64_t i = 1; i < config->frame_limit; i++)
		config->window_power *= PL_INLINE_WINDOW_BASE;
	config->chunk_count = options->chunk_count ? options->chunk_count : CHUNKS;
	config->odd_mask = ODD - 1;
	config->site_limit = SITES;
	config->index_mask = 2 * SITES - 1;
	config->frames_limit = FRAMES;
	config->code_limit = CODES;
	config->code_index_mask = 2 * CODES - 1;
	config->code_map_mask = CODE_MAP - 1;
	config->arena_size = ARENA;

	/* What a child does not keep ends where any kernel's page does. */
	config->control = carve(&at, PL_PAGE_MAX);
	config->slots = carve(&at, (1 + config->slot_count) * config->slot_stride);
	config->directory = carve(&at, (uint64_t)PL_INLINE_DIRECTORY_ENTRIES * sizeof(uint64_t));
	config->odd = carve(&at, (uint64_t)ODD * sizeof(struct pl_inline_odd));
	config->totals = carve(&at, (uint64_t)SITES * sizeof(struct pl_inline_totals));
	config->sites = carve(&at, (uint64_t)SITES * sizeof(struct pl_inline_site));
	config->index = carve(&at, 2 * (uint64_t)SITES * sizeof(uint32_t));
	config->frames = carve(&at, (uint64_t)FRAMES * sizeof(uint64_t));
	config->codes = carve(&at, (uint64_t)CODES * sizeof(struct pl_inline_code));
	config->code_index = carve(&at, 2 * (uint64_t)CODES * sizeof(uint32_t));
	config->code_map = carve(&at, (uint64_t)CODE_MAP * sizeof(struct pl_inline_code_entry));
	config->arena = carve(&at, ARENA);
	config->stacks = carve(&at, PL_INLINE_STACKS * sizeof(struct pl_inline_stack));
	config->bounds = carve(&at, (1 + config->slot_count) * sizeof(struct pl_inline_bounds));
	config->skips = carve(&at, SITES * sizeof(uint16_t));
	config->reading = carve(&at, 1 + config->slot_count);
	/* Of which parts are given back. */
	at = pl_page_max_end(at);
	config->pool = carve(&at, config->chunk_count * PL_INLINE_CHUNK_BYTES);
	/* The last one: what a child keeps. */
	at = pl_page_max_end(at);
	config->free_lists.inside = carve(&at, PL_INLINE_KEPT_SIZE);
	return at;
}

uint64_t pl_inline_data_size(const struct pl_inline_options *options)
{
	struct pl_inline_config config;

	return lay_out(options, 0, &config);
}

static void copy_layout(const struct pl_python *python, struct pl_inline_layout *ret)
{
	const struct pl_python_layout *from = &python->layout;

	*ret = (struct pl_inline_layout){
		.object_type = from->object_type,
		.thread_interpreter = from->thread_interpreter,
		.thread_id = from->thread_id,
		.thread_frame = from->thread_frame,
		.cframe_frame = from->cframe_frame,
		.interpreter_gil = from->interpreter_gil,
		.frame_previous = from->frame_previous,
		.frame_code = from->frame_code,
		.frame_instruction = from->frame_instruction,
		.frame_owner = from->frame_owner,
		.frame_tlbc_index = from->frame_tlbc_index,
		.code_filename = from->code_filename,
		.code_name = from->code_qualname != PL_NO_FIELD ? from->code_qualname : from->code_name,
		.code_first_line = from->code_first_line,
		.code_line_table = from->code_line_table,
		.code_first_traceable = from->code_first_traceable,
		.code_bytecode = from->code_bytecode,
		.code_tlbc = from->code_tlbc,
		.string_length = from->string_length,
		.string_state = from->string_state,
		.string_ascii_data = from->string_ascii_data,
		.string_compact_data = from->string_compact_data,
		.string_data_pointer = from->string_data_pointer,
		.bytes_size = from->bytes_size,
		.bytes_data = from->bytes_data,
		.owner_skip_min = from->owner_skip_min,
		.owner_generator = 1,
		.instruction_is_index = from->frame_instruction_is_index,
		.instruction_scale = python->minor == 10 ? 2 : 1,
		.string_state_wide = from->string_state_wide,
		.type_flags = from->type_flags,
		.code_mask = from->frame_code_tagged ? ~(uint64_t)3 : ~(uint64_t)0,
	};
}

void pl_inline_configure(const struct pl_inline_options *options, const struct pl_python *python, uint64_t data_base,
	struct pl_inline_config *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->data_start = data_base;
	ret->data_size = lay_out(options, data_base, ret) - data_base;
	ret->tables = options->tables;
	ret->code_size = pl_inline_bytes_size;
	ret->page_bytes = pl_page_size();
	copy_layout(python, &ret->layout);
	ret->thread_current = python->thread_current;
	ret->code_type = python->code_type;
	ret->free_threaded = python->free_threaded;
	/* POOL_BITS of Objects/obmalloc.c and, from 3.12 on, pycore_obmalloc.h. */
	ret->pool_bytes = python->free_threaded ? 0 : python->minor < 10 ? 4096 : 16384;
	ret->pid = (uint64_t)python->pid;
	ret->python_hex = python->version_hex;
}

bool pl_inline_is_glibcs(const struct pl_inline_config *config)
{
	bool any = false;

	for (uint32_t entry = PL_INLINE_ENTRY_NATIVE; entry < PL_INLINE_FIRST_MMAP; entry++) {
		if (config->original[entry] && !(config->flags[entry] & PL_INLINE_NATIVE_GLIBC))
			return false;
		any |= config->original[entry] != 0;
	}
	return any;
}
