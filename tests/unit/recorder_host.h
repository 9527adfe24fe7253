/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_TESTS_RECORDER_HOST_H
#define PYLEAK_TESTS_RECORDER_HOST_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pyleak/inline_config.h"

/*
 * The recorder's image in the test process, with a made-up interpreter around it: frames, code
 * objects, strings, and allocators that hand out whatever addresses a test wants (the recorder never
 * looks into a block that is not a code object).
 */

struct host_frame {
	struct host_frame *previous;
	struct host_code *code;
	uint64_t instruction;
	uint8_t owner;
};

struct host_string {
	uint64_t length;
	uint32_t state; /* kind 1, compact, ascii */
	char data[100];
};

struct host_bytes {
	uint64_t size;
	uint8_t data[40];
};

struct host_code {
	const void *type;
	struct host_string *filename, *name;
	struct host_bytes *lines;
	int32_t first_line, first_traceable;
	uint8_t bytecode[64];
} __attribute__((aligned(16)));

struct host_interpreter {
	uint64_t gil;
};

struct host_thread {
	struct host_interpreter *interpreter;
	uint64_t id;
	struct host_frame *frame;
};

static unsigned char *host_code_base;
static struct pl_inline_config *host_config;
static struct host_thread *host_current; /* the word with the GIL holder's state */
static const int host_code_type;
/* What the next call of an original returns; 0: it fails. Where raw is entered below obj, both. */
static __thread uint64_t host_next, host_next_raw;
static __thread unsigned int host_original_calls;
static __thread bool host_marker_seen;
static bool host_obj_enters_raw;
static uint64_t host_debug_gap; /* as with PYTHONMALLOC=debug: outer = inner + gap */

static inline void *host_entry(int domain, int function)
{
	const struct pl_inline_image *image = (const void *)(host_code_base + PL_INLINE_IMAGE_OFFSET);

	return host_code_base + image->entry[domain * PL_INLINE_FUNCTIONS + function];
}

static inline uint64_t host_malloc(int domain, uint64_t size)
{
	return ((uint64_t(*)(void *, uint64_t))host_entry(domain, PL_INLINE_MALLOC))(NULL, size);
}

static inline uint64_t host_calloc(int domain, uint64_t count, uint64_t size)
{
	return ((uint64_t(*)(void *, uint64_t, uint64_t))host_entry(domain, PL_INLINE_CALLOC))(NULL, count, size);
}

static inline uint64_t host_realloc(int domain, uint64_t block, uint64_t size)
{
	return ((uint64_t(*)(void *, uint64_t, uint64_t))host_entry(domain, PL_INLINE_REALLOC))(NULL, block, size);
}

static inline void host_free(int domain, uint64_t block)
{
	((void (*)(void *, uint64_t))host_entry(domain, PL_INLINE_FREE))(NULL, block);
}

/* Called by an original: a return address into the probe is only allowed under a marker. */
#define host_enter()                                                                                                   \
	do {                                                                                                           \
		uint64_t to = (uint64_t)__builtin_return_address(0) - (uint64_t)host_code_base;                        \
                                                                                                                       \
		host_original_calls++;                                                                                 \
		host_look_for_marker();                                                                                \
		if (to < pl_inline_bytes_size && !host_marker_seen)                                                    \
			abort();                                                                                       \
	} while (0)

/* As the tracer looks for a thread that will return into the probe. */
__attribute__((no_sanitize_address)) static inline void host_look_for_marker(void)
{
	uint64_t *word = __builtin_frame_address(0);

	host_marker_seen = false;
	for (int i = 0; i < 64; i++, word++)
		host_marker_seen |= *word == (PL_INLINE_MARKER ^ (uint64_t)word);
}

static uint64_t original_raw(void *context, uint64_t a, uint64_t b)
{
	host_enter();
	return host_next_raw ? host_next_raw : host_next;
}

static uint64_t original_obj(void *context, uint64_t size, uint64_t b)
{
	host_enter();
	if (host_obj_enters_raw && host_next) {
		host_next_raw = host_next - host_debug_gap;
		(void)host_malloc(PL_INLINE_RAW, size + host_debug_gap);
		host_next_raw = 0;
	}
	return host_next;
}

static uint64_t original_obj_realloc(void *context, uint64_t block, uint64_t size)
{
	host_enter();
	if (host_obj_enters_raw && host_next) {
		host_next_raw = host_next - host_debug_gap;
		(void)host_realloc(PL_INLINE_RAW, block - host_debug_gap, size + host_debug_gap);
		host_next_raw = 0;
	}
	return host_next;
}

static void original_raw_free(void *context, uint64_t block)
{
	host_enter();
}

static void original_obj_free(void *context, uint64_t block)
{
	host_enter();
	if (host_obj_enters_raw)
		host_free(PL_INLINE_RAW, block - host_debug_gap);
}

static inline struct pl_inline_control *host_control(void)
{
	return (struct pl_inline_control *)host_config->control;
}

static struct host_code *host_codes[8]; /* made since the recorder was planted */
static unsigned int host_code_count;

static inline void host_unplant(void)
{
	while (host_code_count) {
		struct host_code *code = host_codes[--host_code_count];

		free(code->filename);
		free(code->lines);
		free(code);
	}
	(void)munmap((void *)host_config->data_start, host_config->data_size);
	(void)munmap(host_code_base, (pl_inline_bytes_size + 4095) & ~4095UL);
}

/* Maps image and tables and arms them. `adjust` may change the config before it is sealed. */
static inline void host_plant(
	uint32_t frames, uint64_t sample, uint32_t mode, void (*adjust)(struct pl_inline_config *))
{
	struct pl_inline_options options = {.frames = frames, .sample = sample, .chunk_count = 64};
	uint64_t code_size = (pl_inline_bytes_size + 4095) & ~4095UL, data_size = pl_inline_data_size(&options);
	struct pl_python python = {.pid = getpid(),
		.minor = 11,
		.thread_current = (uint64_t)&host_current,
		.code_type = (uint64_t)&host_code_type};
	void *data = mmap(NULL, data_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	python.layout = (struct pl_python_layout){
		.object_type = 0,
		.thread_interpreter = offsetof(struct host_thread, interpreter),
		.thread_id = offsetof(struct host_thread, id),
		.thread_frame = offsetof(struct host_thread, frame),
		.cframe_frame = PL_NO_FIELD,
		.frame_previous = offsetof(struct host_frame, previous),
		.frame_code = offsetof(struct host_frame, code),
		.frame_instruction = offsetof(struct host_frame, instruction),
		.frame_owner = offsetof(struct host_frame, owner),
		.frame_tlbc_index = PL_NO_FIELD,
		.code_filename = offsetof(struct host_code, filename),
		.code_name = offsetof(struct host_code, name),
		.code_qualname = PL_NO_FIELD,
		.code_line_table = offsetof(struct host_code, lines),
		.code_first_line = offsetof(struct host_code, first_line),
		.code_first_traceable = offsetof(struct host_code, first_traceable),
		.code_bytecode = offsetof(struct host_code, bytecode),
		.code_tlbc = PL_NO_FIELD,
		.string_length = offsetof(struct host_string, length),
		.string_state = offsetof(struct host_string, state),
		.string_ascii_data = offsetof(struct host_string, data),
		.string_compact_data = offsetof(struct host_string, data),
		.string_data_pointer = offsetof(struct host_string, data),
		.bytes_size = offsetof(struct host_bytes, size),
		.bytes_data = offsetof(struct host_bytes, data),
		.owner_skip_min = 3,
	};
	host_code_base = mmap(NULL, code_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (data == MAP_FAILED || host_code_base == MAP_FAILED || madvise(data, data_size, MADV_WIPEONFORK) < 0)
		abort();
	memcpy(host_code_base, pl_inline_bytes, pl_inline_bytes_size);
	host_config = (void *)(host_code_base + PL_INLINE_CONFIG_OFFSET);
	pl_inline_configure(&options, &python, (uint64_t)data, host_config);
	for (int i = 0; i < PL_INLINE_ENTRIES; i++) {
		bool raw = i < PL_INLINE_FUNCTIONS;

		host_config->original[i] = i % PL_INLINE_FUNCTIONS == PL_INLINE_FREE
						   ? (uint64_t)(raw ? original_raw_free : original_obj_free)
					   : i % PL_INLINE_FUNCTIONS == PL_INLINE_REALLOC && !raw
						   ? (uint64_t)original_obj_realloc
						   : (uint64_t)(raw ? original_raw : original_obj);
	}
	host_config->pool_bytes = 0; /* there is nothing at the addresses that are given out */
	if (adjust)
		adjust(host_config);
	if (mprotect(host_code_base, code_size, PROT_READ | PROT_EXEC) < 0)
		abort();
	host_obj_enters_raw = false;
	host_debug_gap = 0;
	host_next_raw = 0;
	host_control()->mode = mode | (sample ? PL_INLINE_SAMPLE_GIVEN << PL_INLINE_SAMPLE_SHIFT : 0);
}

/* Site of a block as a test sees it: totals summed over all kinds. */
struct host_totals {
	uint64_t allocated_size, allocated_count, freed_size, freed_count;
};

static inline struct host_totals host_site(uint32_t site)
{
	const struct pl_inline_totals *row = (const struct pl_inline_totals *)host_config->totals + site;

	return (struct host_totals){row->allocated_size + row->shared_allocated_size + row->first_allocated_size,
		row->allocated_count + row->shared_allocated_count + row->first_allocated_count, row->freed_size + row->shared_freed_size + row->first_freed_size,
		row->freed_count + row->shared_freed_count + row->first_freed_count};
}

static inline uint32_t host_site_count(void)
{
	return (uint32_t)(PL_INLINE_SITE_FIRST + host_control()->next_site);
}

/* Whether a row is about blocks from before the recorder. */
static inline bool host_is_older(uint32_t site)
{
	return ((const struct pl_inline_site *)host_config->sites)[site].kind >= PL_INLINE_KIND_OLDER;
}

static inline struct host_totals host_sum(void)
{
	struct host_totals sum = {0};

	for (uint32_t site = 0; site < host_site_count(); site++) {
		struct host_totals one = host_site(site);

		if (host_is_older(site))
			continue;
		sum.allocated_size += one.allocated_size;
		sum.allocated_count += one.allocated_count;
		sum.freed_size += one.freed_size;
		sum.freed_count += one.freed_count;
	}
	return sum;
}

static inline struct host_code *host_code_new(const char *filename, const char *name, int line)
{
	struct host_code *code = aligned_alloc(16, sizeof(*code));
	struct host_string *strings = calloc(2, sizeof(*strings));

	memset(code, 0, sizeof(*code));
	code->type = &host_code_type;
	for (int i = 0; i < 2; i++) {
		strings[i].length = strlen(i ? name : filename);
		strings[i].state = 1 << 2 | 1 << 5 | 1 << 6;
		memcpy(strings[i].data, i ? name : filename, strings[i].length);
	}
	code->filename = &strings[0];
	code->name = &strings[1];
	code->lines = calloc(1, sizeof(*code->lines));
	code->lines->size = 4;
	memcpy(code->lines->data, "\1\2\3", 4);
	code->first_line = line;
	host_codes[host_code_count++] = code;
	return code;
}

static inline struct host_frame host_frame(struct host_frame *previous, struct host_code *code, unsigned int offset)
{
	return (struct host_frame){previous, code, (uint64_t)code->bytecode + offset, 0};
}

#endif
