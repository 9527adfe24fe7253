/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/hook.h"
#include "pyleak/memory.h"

enum { INSIDE_WORDS_MAX = 16, RESERVED_MAX = 16 << 20 };

static bool is_probe_place(struct pl_probe_places places, uint64_t address)
{
	return address >= places.base && (address - places.base) % PL_PROBE_STRIDE == 0 &&
	       (address - places.base) / PL_PROBE_STRIDE < places.count;
}

/* Mappings without a gap from map[i] on belong together: code, data, and what an engine adds. */
static uint64_t extent(const struct pl_maps *maps, size_t i)
{
	uint64_t end = maps->items[i].end;

	for (size_t next = i + 1; next < maps->count && maps->items[next].start == end && !maps->items[next].inode; next++)
		end = maps->items[next].end;
	return end - maps->items[i].start;
}

static bool is_own(const struct pl_map *map)
{
	return !map->inode && !(map->flags & PL_MAP_SHARED);
}

static void find_tables(struct pl_probe *probe, const struct pl_maps *maps)
{
	uint64_t start = pl_probe_tables_place(probe->base);

	for (size_t i = 0; i < maps->count; i++)
		if (maps->items[i].start == start && !maps->items[i].inode) {
			probe->tables = start;
			probe->tables_mapped_size = extent(maps, i);
		}
}

/* Rows that a dead pyleak was about to count are beyond the count: their words were never redirected. */
static int read_words(struct pl_probe *probe)
{
	const struct pl_probe_header *header = &probe->header;
	uint64_t size = header->word_capacity * sizeof(struct pl_probe_hook);

	if (header->word_count > header->word_capacity || header->words != probe->base + header->code_size ||
		size > probe->mapped_size - header->code_size)
		return -EPROTO;
	probe->words = calloc(header->word_capacity, sizeof(*probe->words));
	return probe->words ? pl_memory_read(probe->pid, header->words, probe->words,
				      header->word_count * sizeof(*probe->words)) :
			      -ENOMEM;
}

/* Where a thread would be sent is the process's to forge: nowhere but into the code, with what it is told in the tables. */
static bool errand_is_within(const struct pl_probe *probe)
{
	const struct pl_probe_header *header = &probe->header;

	return !header->errand_entry ||
	       (header->errand_entry >= probe->base + PL_PROBE_CODE_OFFSET && header->errand_entry < header->errand_end &&
		       header->errand_end <= probe->base + header->code_size && header->errand % 8 == 0 &&
		       (!probe->tables || (header->errand >= probe->tables && header->errand - probe->tables <=
							probe->tables_mapped_size - sizeof(struct pl_probe_errand))));
}

static int read_header(struct pl_probe *probe)
{
	static const char unwritten[sizeof(probe->header.magic)];
	struct pl_probe_header *header = &probe->header;
	int code = pl_memory_read(probe->pid, probe->base, header, sizeof(*header));

	if (code < 0)
		return code;
	if (memcmp(header->magic, unwritten, sizeof(unwritten)) == 0)
		return 0; /* mapped, and its pyleak died before it was filled */
	if (memcmp(header->magic, PL_PROBE_MAGIC, sizeof(header->magic)) != 0)
		return -ENOENT;
	if (header->abi != PL_PROBE_ABI)
		return -EPROTO;
	/* The process can write anything there: what a loop goes by is bounded. */
	if (header->inside_words > INSIDE_WORDS_MAX || header->hook_count > PL_PROBE_MAX_HOOKS || header->code_size < PL_PROBE_CODE_OFFSET ||
		header->code_size > probe->mapped_size || !errand_is_within(probe))
		return -EPROTO;
	code = pl_memory_read(probe->pid, probe->base + PL_PROBE_HOOKS_OFFSET, probe->hooks,
		header->hook_count * sizeof(probe->hooks[0]));
	if (code == 0 && header->words)
		code = read_words(probe);
	if (code < 0)
		return code;
	probe->filled = true;
	return 0;
}

/* In a process that locks what it maps a probe is mapped without access at first (pages.c), and its pyleak died then: of the
 * size of a probe, since whatever else reserves addresses takes more of them. */
static bool is_without_access(const struct pl_map *map, struct pl_probe *probe)
{
	if (map->flags & (PL_MAP_READ | PL_MAP_WRITE | PL_MAP_EXEC) || probe->mapped_size > RESERVED_MAX)
		return false;
	probe->header = (struct pl_probe_header){0};
	return true;
}

void pl_probe_free(struct pl_probe *probe)
{
	free(probe->words);
	*probe = (struct pl_probe){0};
}

int pl_probe_find(pid_t pid, struct pl_probe *ret)
{
	struct pl_probe_places places;
	struct pl_maps maps;
	int code = pl_maps_read(pid, &maps);

	*ret = (struct pl_probe){.pid = pid};
	if (code < 0)
		goto out;
	places = pl_probe_places(&maps);
	code = -ENOENT;
	for (size_t i = 0; i < maps.count; i++) {
		const struct pl_map *map = &maps.items[i];

		if (!is_probe_place(places, map->start) || !is_own(map))
			continue;
		*ret = (struct pl_probe){.pid = pid, .base = map->start, .mapped_size = extent(&maps, i)};
		find_tables(ret, &maps);
		code = read_header(ret);
		if (code == -EFAULT && is_without_access(map, ret))
			code = 0;
		if (code != -ENOENT)
			break;
		pl_probe_free(ret);
	}
	/* A thread that carried a call of a dead pyleak may have mapped the tables after the rest was removed. */
	for (uint64_t i = 0; code == -ENOENT && i < places.count; i++) {
		struct pl_probe late = {.pid = pid, .base = places.base + i * PL_PROBE_STRIDE};
		const struct pl_map *map = pl_maps_find(&maps, pl_probe_tables_place(late.base));

		if (!map || !is_own(map))
			continue;
		find_tables(&late, &maps);
		if (late.tables) {
			*ret = late;
			code = 0;
		}
	}
out:
	pl_maps_free(&maps);
	return code;
}

bool pl_probe_present(pid_t pid)
{
	struct pl_probe probe;
	int code = pl_probe_find(pid, &probe);

	pl_probe_free(&probe);
	return code == 0 || code == -EPROTO;
}

int pl_probe_disarm(const struct pl_probe *probe)
{
	const uint32_t zero = 0;

	return probe->filled && probe->header.armed_address ?
		       pl_memory_write(probe->pid, probe->header.armed_address, &zero, sizeof(zero)) :
		       -ENOENT;
}

bool pl_probe_is_kept(const struct pl_probe *probe)
{
	uint8_t armed = 0; /* the rest of the word is the engine's, and may be written when it is disarmed */

	/* Arming comes after the last word: an armed probe is a complete one. */
	return probe->filled && probe->header.kept && probe->header.armed_address &&
	       pl_memory_read(probe->pid, probe->header.armed_address, &armed, sizeof(armed)) == 0 && armed;
}
