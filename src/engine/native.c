/* SPDX-License-Identifier: MIT */
#include "native.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"
#include "pyleak/elf.h"
#include "pyleak/log.h"

enum { LOOKS_AGAIN = 50 };

enum interface { C_LIBRARY, OPERATOR, MAPPING };

/* Names of the Itanium C++ ABI: size_t is unsigned long here. */
#define NOTHROW "RKSt9nothrow_t"
#define ALIGN "St11align_val_t"
#define KIND(name) PL_INLINE_NATIVE_##name
static const struct {
	const char *name;
	enum pl_inline_native kind;
	enum interface interface;
} functions[] = {
	{"malloc", KIND(ALLOC), C_LIBRARY},
	{"free", KIND(FREE), C_LIBRARY},
	{"realloc", KIND(REALLOC), C_LIBRARY},
	{"calloc", KIND(CALLOC), C_LIBRARY},
	{"reallocarray", KIND(REALLOCARRAY), C_LIBRARY},
	{"posix_memalign", KIND(POSIX_MEMALIGN), C_LIBRARY},
	{"aligned_alloc", KIND(ALIGNED), C_LIBRARY},
	{"memalign", KIND(ALIGNED), C_LIBRARY},
	{"valloc", KIND(ALLOC), C_LIBRARY},
	{"pvalloc", KIND(ALLOC), C_LIBRARY},
	{"cfree", KIND(FREE), C_LIBRARY},
	{"mmap", KIND(MMAP), MAPPING},
	{"mmap64", KIND(MMAP), MAPPING},
	{"munmap", KIND(MUNMAP), MAPPING},
	{"mremap", KIND(MREMAP), MAPPING},
	{"_Znwm", KIND(ALLOC), OPERATOR},
	{"_Znam", KIND(ALLOC), OPERATOR},
	{"_Znwm" NOTHROW, KIND(ALLOC), OPERATOR},
	{"_Znam" NOTHROW, KIND(ALLOC), OPERATOR},
	{"_Znwm" ALIGN, KIND(ALLOC), OPERATOR},
	{"_Znam" ALIGN, KIND(ALLOC), OPERATOR},
	{"_Znwm" ALIGN NOTHROW, KIND(ALLOC), OPERATOR},
	{"_Znam" ALIGN NOTHROW, KIND(ALLOC), OPERATOR},
	{"_ZdlPv", KIND(FREE), OPERATOR},
	{"_ZdaPv", KIND(FREE), OPERATOR},
	{"_ZdlPvm", KIND(FREE), OPERATOR},
	{"_ZdaPvm", KIND(FREE), OPERATOR},
	{"_ZdlPv" NOTHROW, KIND(FREE), OPERATOR},
	{"_ZdaPv" NOTHROW, KIND(FREE), OPERATOR},
	{"_ZdlPv" ALIGN, KIND(FREE), OPERATOR},
	{"_ZdaPv" ALIGN, KIND(FREE), OPERATOR},
	{"_ZdlPvm" ALIGN, KIND(FREE), OPERATOR},
	{"_ZdaPvm" ALIGN, KIND(FREE), OPERATOR},
};
enum { FUNCTIONS = sizeof(functions) / sizeof(functions[0]), FUNCTION_MALLOC = 0 };
_Static_assert((int)FUNCTIONS <= (int)PL_GOT_NAMES_MAX, "they can be asked for");

struct native_object {
	uint64_t start;
	uint32_t identity;
	bool open; /* some of its words could not be hooked yet */
};

void native_init(struct native *native, const struct pl_python *python)
{
	*native = (struct native){.python = python, .looks_left = LOOKS_AGAIN};
}

void native_free(struct native *native)
{
	free(native->objects);
	native->objects = NULL;
	native->object_count = 0;
}

void native_adopt(struct native *native, const struct pl_probe *probe, const struct pl_inline_config *config)
{
	memcpy(native->original, config->original, sizeof(native->original));
	memcpy(native->flags, config->flags, sizeof(native->flags));
	memcpy(native->quiet + PL_INLINE_FIRST_ALLOC, config->quiet, sizeof(config->quiet));
	native->code = probe->base;
	native->code_end = probe->base + probe->header.code_size;
}

void native_look_again(struct native *native)
{
	for (size_t i = 0; i < native->object_count; i++)
		native->objects[i].open = true;
	native->looks_left = LOOKS_AGAIN;
}

static struct native_object *find_object(const struct native *native, const struct pl_map *map)
{
	for (size_t i = 0; i < native->object_count; i++)
		if (native->objects[i].start == map->start && native->objects[i].identity == pl_map_identity(map))
			return &native->objects[i];
	return NULL;
}

/* FNV-1a over what is loaded where. */
static uint64_t count_loaded(const struct pl_maps *maps, size_t *ret_count)
{
	uint64_t hash = 0xcbf29ce484222325;

	*ret_count = 0;
	for (size_t i = 0; i < maps->count; i++) {
		uint64_t start = pl_got_object_start(&maps->items[i]);

		if (!start)
			continue;
		hash = (hash ^ start) * 0x100000001b3;
		hash = (hash ^ pl_map_identity(&maps->items[i])) * 0x100000001b3;
		++*ret_count;
	}
	return hash;
}

/* Whether the function at `address` is defined by this object. */
static bool holds(const struct pl_got_object *object, uint64_t address)
{
	return address >= object->start && address < object->end;
}

static bool is_glibc(const struct pl_maps *maps, uint64_t address)
{
	const struct pl_map *map = pl_maps_find(maps, address);
	const char *slash = map ? strrchr(map->path, '/') : NULL;

	return slash && (strcmp(slash + 1, "libc.so.6") == 0 || strncmp(slash + 1, "libc-2.", 7) == 0);
}

/* The function that a word leads to, where it leads to a hook of ours (of a probe that was adopted, any may). 0: none
 * that is known. */
static uint64_t behind_hook(const struct native *native, const struct pl_inline_image *image, uint64_t value)
{
	if (value < native->code || value >= native->code_end)
		return value;
	for (uint32_t entry = PL_INLINE_ENTRY_NATIVE; entry < PL_INLINE_ENTRY_COUNT; entry++)
		if (native->code + image->entry[entry] == value)
			return native->original[entry];
	return 0;
}

/*
 * Words that nobody has called through yet lead to the dynamic linker. What they would be bound to is what
 * others are bound to; if there are none, what the only object that defines the name has.
 */
static uint64_t find_real(struct native *native, const struct pl_inline_image *image, const struct pl_maps *maps,
	const struct pl_got *got, uint32_t name)
{
	uint64_t found = 0;

	for (size_t i = 0; i < got->word_count && !native->real[name]; i++)
		if (got->words[i].name == name && got->words[i].bound && got->words[i].kind != PL_GOT_DATA)
			native->real[name] = behind_hook(native, image, got->words[i].value);
	if (native->real[name])
		return native->real[name];
	for (size_t i = 0; i < maps->count; i++) {
		struct pl_elf *elf;
		uint64_t address;

		if (!pl_got_object_start(&maps->items[i]) ||
			pl_elf_open(native->python->space, maps, &maps->items[i], &elf, NULL) < 0)
			continue;

		bool defines = pl_elf_symbol(elf, functions[name].name, &address, NULL) == 0;

		pl_elf_close(elf);
		if (defines && found)
			return 0;
		if (defines)
			found = address;
	}
	native->real[name] = found;
	return found;
}

static bool throws(uint32_t name)
{
	size_t length = strlen(functions[name].name);

	return functions[name].interface == OPERATOR && functions[name].kind == PL_INLINE_NATIVE_ALLOC &&
	       strcmp(functions[name].name + length - strlen(NOTHROW), NOTHROW) != 0;
}

/* The allocator's own form of this operator new that does not throw; 1: it has none. */
static uint64_t find_quiet(const struct native *native, const struct pl_maps *maps, uint32_t name)
{
	const struct pl_map *map = pl_maps_find(maps, native->allocator);
	uint64_t address = 0;
	struct pl_elf *elf;
	char quiet[64];

	(void)snprintf(quiet, sizeof(quiet), "%s%s", functions[name].name, NOTHROW);
	if (!map || pl_elf_open(native->python->space, maps, map, &elf, NULL) < 0)
		return 1;
	if (pl_elf_symbol(elf, quiet, &address, NULL) < 0)
		address = 0;
	pl_elf_close(elf);
	return address >= native->allocator && address < native->allocator_end ? address : 1;
}

/* The entry for calls of this kind to this function; 0: none is free. */
static uint32_t give_entry(
	struct native *native, enum pl_inline_native kind, uint64_t original, uint64_t quiet, uint8_t flags)
{
	uint32_t first = pl_inline_native_first(kind), end = first + pl_inline_native_count(kind);

	for (uint32_t entry = first; entry < end; entry++) {
		if (!native->original[entry]) {
			native->original[entry] = original;
			native->flags[entry] = flags;
			native->quiet[entry] = quiet;
		}
		if (native->original[entry] == original && native->flags[entry] == flags)
			return entry;
	}
	if (!native->full)
		pl_log_note("process %d has more allocators than pyleak can tell apart: some are not recorded",
			(int)native->python->pid);
	native->full = true;
	return 0;
}

static bool takes(enum pl_inline_native kind)
{
	return kind == PL_INLINE_NATIVE_FREE || kind == PL_INLINE_NATIVE_MUNMAP;
}

/*
 * Whether this object frees blocks in a way that cannot be seen: through a word that is not hooked, because it is also
 * loaded as a value. Where the object has a word in its PLT too, and jumps through the other nowhere, all its own calls
 * go through that of the PLT; what is loaded is handed on to somebody else, to free something rare (std::function in
 * libc10, pthread_key_create() in libgfortran). operator delete of the C++ library ends in a call of free() that can be
 * seen, from wherever it is called.
 */
static bool hides_frees(const struct pl_got *got, uint32_t object, enum interface interface)
{
	uint64_t hidden = 0, slots = 0;

	for (size_t i = 0; i < got->word_count; i++) {
		const struct pl_got_word *word = &got->words[i];

		if (word->object != object || functions[word->name].interface != interface || !takes(functions[word->name].kind))
			continue;
		if (word->kind == PL_GOT_DATA || (word->kind == PL_GOT_LOADED && word->called))
			return true;
		if (word->slot)
			slots |= 1ULL << word->name;
		else if (word->kind == PL_GOT_LOADED)
			hidden |= 1ULL << word->name;
	}
	return (hidden & ~slots) != 0;
}

/* Whether a word is to be hooked, and how. */
static bool is_wanted(struct native *native, const struct pl_got *got, const struct pl_got_word *word, uint64_t real,
	uint8_t *ret_flags)
{
	const struct pl_got_object *object = &got->objects[word->object];
	enum pl_inline_native kind = functions[word->name].kind;
	enum interface interface = functions[word->name].interface;

	*ret_flags = 0;
	if (word->value >= native->code && word->value < native->code_end)
		return false;
	if (interface == MAPPING && (holds(object, native->python->allocators[0]) || object->start == native->allocator))
		return false;
	if (interface == OPERATOR && (real < native->allocator || real >= native->allocator_end))
		return false;
	if (word->kind != PL_GOT_JUMPED)
		return false;
	if (takes(kind) || !hides_frees(got, word->object, interface))
		return true;
	*ret_flags = PL_INLINE_NATIVE_FORGET;
	return kind == PL_INLINE_NATIVE_REALLOC || kind == PL_INLINE_NATIVE_REALLOCARRAY;
}

/* Frees first, then what frees and gives, then what gives: nothing is recorded whose free would go by. */
static int rank(uint32_t entry)
{
	static const uint8_t ranks[PL_INLINE_NATIVE_KINDS] = {
		[PL_INLINE_NATIVE_ALLOC] = 2,
		[PL_INLINE_NATIVE_CALLOC] = 2,
		[PL_INLINE_NATIVE_ALIGNED] = 2,
		[PL_INLINE_NATIVE_POSIX_MEMALIGN] = 2,
		[PL_INLINE_NATIVE_MMAP] = 2,
		[PL_INLINE_NATIVE_REALLOC] = 1,
		[PL_INLINE_NATIVE_REALLOCARRAY] = 1,
		[PL_INLINE_NATIVE_MREMAP] = 1,
	};
	int kind = 0;

	while (kind + 1 < PL_INLINE_NATIVE_KINDS && entry >= pl_inline_native_first((enum pl_inline_native)(kind + 1)))
		kind++;
	return ranks[kind];
}

struct choice {
	struct pl_probe_word word;
	int rank;
};

static int by_rank(const void *a, const void *b)
{
	const struct choice *left = a, *right = b;

	if (left->rank != right->rank)
		return left->rank - right->rank;
	return left->word.address < right->word.address ? -1 : left->word.address > right->word.address;
}

/* Which of the words found are hooked, in order. An object with words left for later stays open. */
static int choose(struct native *native, const struct pl_maps *maps, const struct pl_got *got,
	const struct pl_inline_image *image, struct pl_probe_word **ret, uint32_t *ret_count)
{
	pl_autofree struct choice *choices = calloc(got->word_count + 1, sizeof(*choices));
	uint32_t count = 0;

	_Static_assert(sizeof(((struct pl_inline_config *)0)->quiet) / 8 == PL_INLINE_FIRST_CALLOC - PL_INLINE_FIRST_ALLOC,
		"one for each entry of the kind ALLOC");
	if (!choices)
		return -ENOMEM;
	(void)find_real(native, image, maps, got, FUNCTION_MALLOC);
	for (size_t i = 0; i < got->object_count && !native->allocator; i++)
		if (holds(&got->objects[i], native->real[FUNCTION_MALLOC])) {
			native->allocator = got->objects[i].start;
			native->allocator_end = got->objects[i].end;
		}
	for (size_t i = 0; i < got->object_count; i++)
		if (got->objects[i].unready)
			find_object(native, got->objects[i].map)->open = true;
	for (size_t i = 0; i < got->word_count; i++) {
		const struct pl_got_word *word = &got->words[i];
		const struct pl_got_object *object = &got->objects[word->object];
		uint64_t real = word->bound ? word->value : find_real(native, image, maps, got, word->name);
		uint8_t flags;

		if (!real) {
			find_object(native, object->map)->open = true;
			continue;
		}
		if (!is_wanted(native, got, word, real, &flags))
			continue;
		if (functions[word->name].interface == C_LIBRARY && is_glibc(maps, real))
			flags |= PL_INLINE_NATIVE_GLIBC;

		uint64_t quiet = 0;

		if (throws(word->name)) {
			if (!native->quiet_of[word->name])
				native->quiet_of[word->name] = find_quiet(native, maps, word->name);
			quiet = native->quiet_of[word->name];
			if (quiet == 1)
				continue;
			flags |= PL_INLINE_NATIVE_THROWS;
		}

		uint32_t entry = give_entry(native, functions[word->name].kind, real, quiet, flags);

		if (entry)
			choices[count++] = (struct choice){
				.word = {.address = word->address,
					.original = word->value,
					.entry_offset = image->entry[entry],
					.object = object->identity},
				.rank = rank(entry),
			};
	}
	qsort(choices, count, sizeof(*choices), by_rank);
	*ret = calloc(count + 1, sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++)
		(*ret)[i] = choices[i].word;
	*ret_count = count;
	return 0;
}

/* The objects that are loaded now: what is known of those that were looked at stays. */
static int update_objects(struct native *native, const struct pl_maps *maps, size_t count, struct pl_got *got)
{
	const char *names[FUNCTIONS];
	struct native_object *objects = calloc(count + 1, sizeof(*objects));
	size_t at = 0;
	int code = 0;

	if (!objects)
		return -ENOMEM;
	for (size_t i = 0; i < FUNCTIONS; i++)
		names[i] = functions[i].name;
	for (size_t i = 0; code == 0 && i < maps->count; i++) {
		const struct pl_map *map = &maps->items[i];
		const struct native_object *known = pl_got_object_start(map) ? find_object(native, map) : NULL;

		if (!pl_got_object_start(map))
			continue;
		objects[at++] = (struct native_object){map->start, pl_map_identity(map), false};
		if (known && !known->open)
			continue;
		code = pl_got_add(native->python->space, maps, map, names, FUNCTIONS, got);
		/* Being loaded at this moment, or a mapping of something else. */
		objects[at - 1].open = code == -EAGAIN;
		if (code == -EAGAIN || code == -ENOEXEC)
			code = 0;
	}
	free(native->objects);
	native->objects = objects;
	native->object_count = at;
	return code;
}

int native_look(
	struct native *native, const struct pl_inline_image *image, struct pl_probe_word **ret, uint32_t *ret_count)
{
	struct pl_maps maps = {0};
	struct pl_got got = {0};
	bool open = false;
	size_t count;
	int code = pl_maps_read(native->python->pid, &maps);

	*ret = NULL;
	*ret_count = 0;
	if (code < 0)
		goto out;

	uint64_t loaded = count_loaded(&maps, &count);

	for (size_t i = 0; i < native->object_count; i++)
		open |= native->objects[i].open;
	if (loaded != native->loaded)
		native->looks_left = LOOKS_AGAIN;
	else if (!open || native->looks_left-- <= 0)
		goto out;
	native->loaded = loaded;
	code = update_objects(native, &maps, count, &got);
	if (code == 0)
		code = choose(native, &maps, &got, image, ret, ret_count);
	if (code == 0 && *ret_count)
		pl_log_debug("native allocators: %u words of %zu objects", *ret_count, got.object_count);
out:
	pl_got_free(&got);
	pl_maps_free(&maps);
	return code;
}
