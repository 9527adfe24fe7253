/* SPDX-License-Identifier: MIT */
#include "resolver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FRAMES 128

struct resolved_code {
	struct pl_code code;
	const char *filename, *function; /* interned in the sites */
	uint32_t number;                 /* never used again, unlike the address */
};

void pl_resolver_init(struct pl_resolver *resolver, const struct pl_python *python, struct pl_sites *sites)
{
	const char *unknown = sites ? pl_sites_string(sites, "<unknown>") : NULL;

	*resolver = (struct pl_resolver){.python = python, .sites = sites, .nowhere = {unknown, unknown, 0}};
}

static void resolved_code_free(struct resolved_code *code)
{
	pl_code_free(&code->code);
	free(code);
}

void pl_resolver_free(struct pl_resolver *resolver)
{
	for (size_t i = 0; resolver->codes.entries && i <= resolver->codes.mask; i++)
		if (resolver->codes.entries[i].key)
			resolved_code_free((struct resolved_code *)resolver->codes.entries[i].value[0]);
	for (size_t i = 0; resolver->frames.entries && i <= resolver->frames.mask; i++)
		if (resolver->frames.entries[i].key)
			free((void *)resolver->frames.entries[i].value[0]);
	pl_table_free(&resolver->codes);
	pl_table_free(&resolver->frames);
}

static struct resolved_code *read_code(struct pl_resolver *resolver, uint64_t address)
{
	struct resolved_code *code = calloc(1, sizeof(*code));

	if (!code)
		return NULL;
	if (pl_python_code_read(resolver->python, address, &code->code) < 0)
		memset(&code->code, 0, sizeof(code->code)); /* not a code object: an unknown place */
	code->filename = pl_sites_string(resolver->sites, code->code.filename ? code->code.filename : "<unknown>");
	code->function = pl_sites_string(resolver->sites, code->code.name ? code->code.name : "<unknown>");
	code->number = ++resolver->next_code;
	if (code->filename && code->function)
		return code;
	resolved_code_free(code);
	return NULL;
}

static struct resolved_code *find_code(struct pl_resolver *resolver, uint64_t address)
{
	struct pl_table_entry *entry = pl_table_insert(&resolver->codes, address);

	if (!entry)
		return NULL;
	if (!entry->value[0]) {
		struct resolved_code *code = read_code(resolver, address);

		if (!code) {
			(void)pl_table_remove(&resolver->codes, address, NULL);
			return NULL;
		}
		entry->value[0] = (uint64_t)code;
	}
	return (struct resolved_code *)entry->value[0];
}

static const struct pl_frame *find_frame(struct pl_resolver *resolver, const struct pl_frame_ref *ref)
{
	struct resolved_code *code = ref->code ? find_code(resolver, ref->code) : NULL;

	if (!code)
		return &resolver->nowhere;

	uint64_t key = (uint64_t)code->number << 32 | (uint32_t)ref->offset;
	struct pl_table_entry *entry = pl_table_insert(&resolver->frames, key);

	if (!entry)
		return &resolver->nowhere;
	if (!entry->value[0]) {
		struct pl_frame *frame = malloc(sizeof(*frame));

		if (!frame) {
			(void)pl_table_remove(&resolver->frames, key, NULL);
			return &resolver->nowhere;
		}
		*frame = (struct pl_frame){
			.filename = code->filename,
			.function = code->function,
			.line = pl_line_lookup(resolver->python->minor, code->code.line_table,
				code->code.line_table_size, code->code.first_line, ref->offset),
		};
		entry->value[0] = (uint64_t)frame;
	}
	return (const struct pl_frame *)entry->value[0];
}

uint32_t pl_resolver_site(struct pl_resolver *resolver, const struct pl_frame_ref *stack, size_t count, bool more)
{
	struct pl_frame frames[MAX_FRAMES];

	if (count > MAX_FRAMES)
		count = MAX_FRAMES;
	for (size_t i = 0; i < count; i++)
		frames[i] = *find_frame(resolver, &stack[i]);
	return pl_sites_intern(resolver->sites, PL_SITE_PYTHON, frames, count, more);
}

void pl_resolver_forget(struct pl_resolver *resolver, uint64_t address)
{
	struct pl_table_entry entry;

	/* The frames stay: their key has a number that no other code object will get. */
	if (pl_table_remove(&resolver->codes, address, &entry))
		resolved_code_free((struct resolved_code *)entry.value[0]);
}
