/* SPDX-License-Identifier: MIT */
#include "pyleak/heap_layout.h"

#include <errno.h>

enum { FIRST_MINOR = 6, LAST_MINOR = 15, HEADER_GROWTH = 16 };

/* Offsets as with a GIL. */
#define TYPES(size, heap, keys, module, spec) \
	.type_size = (size), .heap_type_size = (heap), .type_cached_keys = (keys), .type_module = (module), \
	.type_spec_cache = (spec)
#define OLD_FRAMES(locals, top, depth, generator) \
	.frame_locals = (locals), .frame_stack = 64, .frame_stack_top = (top), .frame_stack_depth = (depth), \
	.frame_generator = (generator), .generator_frame = 16, .old_keys = true, .weak_size = 56, .tuple_items = 24
#define OLD_CODE(locals, names) \
	.code_locals_count = (locals), .code_names = (names), .code_free_names = (names) + 8, .code_cell_names = (names) + 16
#define FRAMES(function, mapping, object, slots, data, generator, state) \
	.frame_function = (function), .frame_mapping = (mapping), .frame_object = (object), .frame_slots = (slots), \
	.frame_top = 64, .frame_inner = 24, .frame_data = (data), .generator_frame = (generator), \
	.generator_state = (state), .code_slots_names = 96, .weak_size = 64
#define STATES(interpreter, thread, dict, enabled) \
	.interpreter_size = (interpreter), .thread_size = (thread), .thread_dict = (dict), .collector_enabled = (enabled)

static const struct pl_heap_layout layouts[LAST_MINOR - FIRST_MINOR + 1] = {
	[6 - FIRST_MINOR] = { .collector = 32, TYPES(400, 864, 856, 0, 0), OLD_FRAMES(376, 72, 0, 112), OLD_CODE(24, 64),
		STATES(120, 2272, 128, 0) },
	[7 - FIRST_MINOR] = { .collector = 32, TYPES(400, 864, 856, 0, 0), OLD_FRAMES(360, 72, 0, 96), OLD_CODE(24, 64),
		STATES(2568, 280, 152, 332), .collector_in_runtime = true },
	[8 - FIRST_MINOR] = { .collector = 16, TYPES(416, 880, 872, 0, 0), OLD_FRAMES(360, 72, 0, 96), OLD_CODE(28, 72),
		STATES(2720, 264, 152, 356), .collector_in_runtime = true },
	[9 - FIRST_MINOR] = { .collector = 16, TYPES(408, 880, 864, 872, 0), OLD_FRAMES(360, 72, 0, 96), OLD_CODE(28, 72),
		STATES(5656, 264, 152, 628) },
	[10 - FIRST_MINOR] = { .collector = 16, TYPES(408, 888, 872, 880, 0), OLD_FRAMES(352, 0, 80, 88), OLD_CODE(28, 72),
		STATES(113528, 280, 152, 628) },
	[11 - FIRST_MINOR] = { .collector = 16, .generator_done = 1, TYPES(408, 904, 872, 880, 896), FRAMES(0, 24, 40, 72, 48, 80, 75),
		.managed_dict = -24, .managed_values = -32, .tuple_items = 24, .code_slots_count = 76,
		STATES(107752, 360, 128, 660) },
	[12 - FIRST_MINOR] = { .collector = 16, .generator_done = 1, TYPES(416, 920, 880, 888, 904), FRAMES(16, 40, 48, 72, 48, 72, 67),
		.managed_dict = -24, .tuple_items = 24, .code_slots_count = 72, STATES(383552, 288, 112, 124) },
	[13 - FIRST_MINOR] = { .collector = 16, .generator_done = 1, TYPES(416, 928, 880, 888, 904), FRAMES(16, 40, 48, 72, 64, 72, 67),
		.managed_dict = -24, .inline_values = true, .values_head = 8, .tuple_items = 24, .code_slots_count = 72,
		STATES(194968, 304, 128, 7412) },
	[14 - FIRST_MINOR] = { .collector = 16, .generator_done = 1, TYPES(416, 936, 880, 888, 912), FRAMES(16, 40, 48, 80, 72, 72, 67),
		.managed_dict = -24, .inline_values = true, .values_head = 8, .tuple_items = 32, .code_slots_count = 72,
		.frame_top_is_pointer = true, .frame_tagged = true, STATES(225864, 832, 128, 7420) },
	[15 - FIRST_MINOR] = { .collector = 16, .generator_done = 5, TYPES(424, 944, 888, 896, 920), FRAMES(16, 40, 48, 80, 72, 72, 67),
		.managed_dict = -24, .inline_values = true, .values_head = 8, .tuple_items = 32, .code_slots_count = 72,
		.frame_top_is_pointer = true, .frame_tagged = true, STATES(226232, 888, 152, 7400) },
};

/* Without a GIL all objects begin with 32 bytes, and the collector's header is in them. */
static void free_threaded(int minor, struct pl_heap_layout *layout)
{
	static const int32_t heap_types[] = { [13] = 944, [14] = 960, [15] = 968 };
	static const int32_t interpreters[] = { [13] = 215616, [14] = 249976, [15] = 250328 };
	int32_t *const moved[] = { &layout->type_size, &layout->type_cached_keys, &layout->type_module, &layout->type_spec_cache,
		&layout->tuple_items, &layout->frame_inner, &layout->frame_data, &layout->generator_frame,
		&layout->generator_state, &layout->code_slots_count, &layout->code_slots_names };

	for (size_t i = 0; i < sizeof(moved) / sizeof(moved[0]); i++)
		*moved[i] += HEADER_GROWTH;
	layout->head += HEADER_GROWTH;
	layout->collector = 0;
	layout->managed_dict = -8;
	layout->heap_type_size = heap_types[minor];
	layout->interpreter_size = interpreters[minor];
	layout->weak_size = 88; /* with a pointer to a lock */
}

int pl_heap_layout(const struct pl_python *python, struct pl_heap_layout *ret)
{
	if (python->minor < FIRST_MINOR || python->minor > LAST_MINOR)
		return -ENOTSUP;
	*ret = layouts[python->minor - FIRST_MINOR];
	ret->head = 16;
	if (python->free_threaded)
		free_threaded(python->minor, ret);
	return 0;
}
