/* SPDX-License-Identifier: MIT */
#include "elf_private.h"

#include <errno.h>

#include "pyleak/page.h"

bool pl_elf_extent(const struct pl_elf_header *header, uint64_t *ret_start, uint64_t *ret_end)
{
	uint64_t start = UINT64_MAX, end = 0;

	for (size_t i = 0; i < header->count; i++) {
		const GElf_Phdr *segment = &header->segments[i];
		uint64_t segment_end;

		if (segment->p_type != PT_LOAD)
			continue;
		if (__builtin_add_overflow(segment->p_vaddr, segment->p_memsz, &segment_end))
			return false;
		if (segment->p_vaddr < start)
			start = segment->p_vaddr;
		if (segment_end > end)
			end = segment_end;
	}
	if (start >= end)
		return false;
	*ret_start = pl_page_start(start);
	*ret_end = end;
	return true;
}

/* Whether at address this byte of the file is to be seen that `object` shows. */
static bool shows(const struct pl_maps *maps, const struct pl_map *object, uint64_t address, uint64_t offset)
{
	const struct pl_map *map = pl_maps_find(maps, address);

	return map && (map == object || pl_map_same_file(map, object)) &&
	       map->offset + (address - map->start) == offset;
}

/*
 * With one file mapped several times (loaded, and read as data; or twice by dlmopen) an offset alone tells nothing:
 * small objects even have two segments with the same page of the file. So a place counts only if every segment is
 * found where it would be from there. `strict` false leaves out what programs do to themselves: text moved to huge
 * pages is no longer a mapping of the file.
 * How large the kernel's pages are is not asked: of a core file it is another kernel's.
 */
static bool fits(const struct pl_elf_header *header, const struct pl_maps *maps, const struct pl_map *map,
	uint64_t bias, bool strict)
{
	bool holds_map = false;

	for (size_t i = 0; i < header->count; i++) {
		const GElf_Phdr *segment = &header->segments[i];
		uint64_t address, offset;
		const struct pl_map *there;

		if (segment->p_type != PT_LOAD || segment->p_filesz == 0)
			continue;
		address = bias + segment->p_vaddr;
		offset = segment->p_offset;
		there = pl_maps_find(maps, address);
		if ((segment->p_flags & PF_X) && (!there || !(there->flags & PL_MAP_EXEC)))
			return false;
		if (strict && !shows(maps, map, address, offset))
			return false;
		if (map->start - map->offset == address - offset && map->end > address &&
			map->start < address + segment->p_memsz)
			holds_map = true;
	}
	return holds_map;
}

int pl_elf_place(
	const struct pl_elf_header *header, const struct pl_maps *maps, const struct pl_map *map, uint64_t *ret_bias)
{
	const GElf_Phdr *first = NULL;

	for (size_t i = 0; i < header->count && !first; i++) {
		if (header->segments[i].p_type == PT_LOAD)
			first = &header->segments[i];
	}
	if (!first || (first->p_vaddr - first->p_offset) % PL_PAGE)
		return -ENOENT;
	for (int strict = 1; strict >= 0; strict--) {
		for (size_t i = 0; i < maps->count && maps->items[i].start <= map->start; i++) {
			const struct pl_map *base = &maps->items[i];
			uint64_t bias = base->start - base->offset + first->p_offset - first->p_vaddr;

			if (base->start != map->start && !pl_map_same_file(base, map))
				continue;
			if (base->offset > first->p_offset || first->p_offset - base->offset >= base->end - base->start ||
				(header->type == ET_EXEC && bias != 0))
				continue;
			if (fits(header, maps, map, bias, strict)) {
				*ret_bias = bias;
				return 0;
			}
		}
	}
	return -ENOENT;
}
