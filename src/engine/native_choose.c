/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "native_private.h"
#include "pyleak/cleanup.h"
#include "pyleak/elf.h"
#include "pyleak/log.h"

/* Which of the words that were found are hooked, and which entry serves each. */

enum interface { C_LIBRARY, OPERATOR, MAPPING, POOL };

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
	/* No symbols, and the last: see arrow_pools.h. */
	{"arrow::MemoryPool::Allocate", KIND(POOL_ALLOCATE), POOL},
	{"arrow::MemoryPool::Reallocate", KIND(POOL_REALLOCATE), POOL},
	{"arrow::MemoryPool::Free", KIND(POOL_FREE), POOL},
};
enum { VALUES_MAX = 128 };
enum { FUNCTIONS = sizeof(functions) / sizeof(functions[0]), FUNCTION_MALLOC = 0 };
_Static_assert((int)FUNCTIONS <= (int)PL_GOT_NAMES_MAX, "they can be asked for");

size_t native_names(const char *names[PL_GOT_NAMES_MAX])
{
	for (size_t i = 0; i < FUNCTIONS; i++)
		names[i] = functions[i].name;
	return FUNCTIONS;
}

bool native_maps(uint32_t name)
{
	return functions[name].kind == PL_INLINE_NATIVE_MMAP;
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
	uint32_t row = pl_landing_row_at(&native->landing, value);

	if (row < PL_LANDING_CAPACITY)
		return native->landing.rows[row].original;
	if (value < native->code || value >= native->code_end)
		return value;
	for (uint32_t entry = PL_INLINE_ENTRY_NATIVE; entry < PL_INLINE_ENTRY_COUNT; entry++)
		if (native->code + image->entry[entry] == value)
			return native->original[entry];
	return 0;
}

/* Whether this is an entry in the PLT of the program, which stands for the function in the words of others. */
static bool is_stub(const struct native *native, uint64_t address)
{
	for (size_t i = 0; i < FUNCTIONS; i++)
		if (native->stub[i] && native->stub[i] == address)
			return true;
	return false;
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
		if (got->words[i].name == name && got->words[i].bound && !is_stub(native, got->words[i].value))
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

static const char full[] = "more allocators than pyleak can tell apart";

static void note_full(struct native *native)
{
	if (!native->full)
		pl_log_note("process %d has %s: some are not recorded", (int)native->python->pid, full);
	native->full = true;
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
	note_full(native);
	return 0;
}

static bool is_allocators(const struct native *native, uint64_t address)
{
	return address >= native->allocator && address < native->allocator_end;
}

/*
 * What is special about a word because of whose it is. Of what the interpreter itself maps, the recorder leaves out what its
 * allocators divide; what an allocator maps that is linked into the object is of no line.
 */
static uint8_t flags_of(const struct native *native, const struct pl_got *got, const struct pl_got_word *word)
{
	const struct pl_got_object *object = &got->objects[word->object];

	if (!native_maps(word->name))
		return 0;
	if (holds(object, native->python->allocators[0]))
		return PL_INLINE_NATIVE_PYTHON;
	return native_find_object(native, object->map)->allocator ? PL_INLINE_NATIVE_POOL : 0;
}

enum treatment { WANTED, HOOKED, COVERED };

/* What is to be done with a word that leads to `real`. */
static enum treatment treatment_of(
	const struct native *native, const struct pl_got *got, const struct pl_got_word *word, uint64_t real)
{
	const struct pl_got_object *object = &got->objects[word->object];
	enum interface interface = functions[word->name].interface;

	if (native_leads_to_us(native, word->value))
		return HOOKED;
	if (is_stub(native, real) || (interface == OPERATOR && !is_allocators(native, real)))
		return COVERED;
	if (interface == MAPPING && object->start == native->allocator)
		return COVERED;
	/* One row of the landing page stands for a function wherever it is loaded: its entry is nobody's own. */
	if (flags_of(native, got, word) && word->kind != PL_GOT_JUMPED)
		return COVERED;
	return WANTED;
}

/* The entry for calls of the function at `real` by this name; 0: it must not be hooked, or none is free. */
static uint32_t find_entry(struct native *native, const struct pl_maps *maps, uint32_t name, uint64_t real, uint8_t flags)
{
	uint64_t quiet = 0;

	if (functions[name].interface == C_LIBRARY && is_glibc(maps, real))
		flags |= PL_INLINE_NATIVE_GLIBC;
	if (throws(name)) {
		if (!native->quiet_of[name])
			native->quiet_of[name] = find_quiet(native, maps, name);
		quiet = native->quiet_of[name];
		if (quiet == 1)
			return 0;
		flags |= PL_INLINE_NATIVE_THROWS;
	}
	return give_entry(native, functions[name].kind, real, quiet, flags);
}

static int add_value(struct native *native, uint64_t address, uint32_t name)
{
	struct pl_got_value *values;

	for (size_t i = 0; i < native->value_count; i++)
		if (native->values[i].address == address)
			return 0;
	if (native->value_count == VALUES_MAX)
		return 0;
	values = reallocarray(native->values, native->value_count + 1, sizeof(*values));
	if (!values)
		return -ENOMEM;
	native->values = values;
	values[native->value_count++] = (struct pl_got_value){.address = address, .name = name};
	return 0;
}

/* The functions that words lead to, and what else may stand for them. */
static int learn(struct native *native, const struct pl_inline_image *image, const struct pl_maps *maps,
	const struct pl_got *got)
{
	int code = 0;

	for (size_t i = 0; i < got->word_count; i++)
		if (got->words[i].stub)
			native->stub[got->words[i].name] = got->words[i].stub;
	(void)find_real(native, image, maps, got, FUNCTION_MALLOC);
	for (size_t i = 0; i < got->object_count && !native->allocator; i++)
		if (holds(&got->objects[i], native->real[FUNCTION_MALLOC])) {
			native->allocator = got->objects[i].start;
			native->allocator_end = got->objects[i].end;
		}
	for (size_t i = 0; code == 0 && i < got->word_count; i++) {
		uint64_t value = got->words[i].bound ? behind_hook(native, image, got->words[i].value) : 0;

		if (value && !is_stub(native, value) && functions[got->words[i].name].interface != POOL &&
			(functions[got->words[i].name].interface != OPERATOR || is_allocators(native, value)))
			code = add_value(native, value, got->words[i].name);
	}
	/* And what they lead to when they are hooked. */
	for (uint32_t row = 0; code == 0 && row < native->landing.there; row++)
		for (uint32_t name = 0; name < FUNCTIONS; name++)
			if ((uint32_t)functions[name].kind == native->landing.rows[row].kind) {
				code = add_value(native, pl_landing_stub(&native->landing, row), name);
				break;
			}
	return code;
}

/* What the dynamic linker has is its own; an allocator calls its own functions, and knows which. */
static bool is_linker(const struct pl_got_object *object)
{
	const char *slash = strrchr(object->map->path, '/');

	return slash && (strncmp(slash, "/ld-linux", 9) == 0 || strncmp(slash, "/ld-2.", 6) == 0);
}

static bool may_point(const struct native *native, const struct pl_maps *maps, const struct pl_got_object *object)
{
	if (object->start == native->allocator)
		return is_glibc(maps, native->real[FUNCTION_MALLOC]);
	return !is_linker(object);
}

int native_add_pointers(
	struct native *native, const struct pl_inline_image *image, const struct pl_maps *maps, struct pl_got *got)
{
	int code = learn(native, image, maps, got);

	for (uint32_t i = 0; code == 0 && native->value_count && i < got->object_count; i++)
		if (may_point(native, maps, &got->objects[i]))
			code = pl_got_add_pointers(
				native->python->pid, maps, i, native->values, native->value_count, got);
	return code;
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
		[PL_INLINE_NATIVE_POOL_REALLOCATE] = 1,
		[PL_INLINE_NATIVE_POOL_ALLOCATE] = 2,
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

struct choices {
	struct choice *items;
	uint32_t count;
};

static int by_rank(const void *a, const void *b)
{
	const struct choice *left = a, *right = b;

	if (left->rank != right->rank)
		return left->rank - right->rank;
	return left->word.address < right->word.address ? -1 : left->word.address > right->word.address;
}

/* A row of the landing page goes on to the recorder; before the words that lead there. */
static void choose_landing(struct native *native, const struct pl_inline_image *image, uint32_t row, uint32_t entry,
	struct choices *choices)
{
	if (native->landed[row])
		return;
	native->landed[row] = true;
	choices->items[choices->count++] = (struct choice){
		.word = {.address = pl_landing_word(&native->landing, row),
			.original = native->landing.rows[row].original,
			.entry = image->entry[entry],
			.kind = PL_PROBE_HOOK_LANDING},
		.rank = 2 * rank(entry),
	};
}

/* NULL, or why it is not to be had. */
static const char *choose_word(struct native *native, const struct pl_maps *maps, const struct pl_got *got,
	const struct pl_got_word *word, uint64_t real, const struct pl_inline_image *image, struct choices *choices)
{
	uint32_t entry = find_entry(native, maps, word->name, real, flags_of(native, got, word)), row;
	struct choice choice = {
		.word = {.address = word->address, .original = word->value, .object = got->objects[word->object].identity},
		.rank = 2 * rank(entry) + 1,
	};

	if (!entry)
		return native->quiet_of[word->name] == 1 ? "an operator new that throws, in an allocator that has no other" :
							   full;
	choice.word.kind = PL_PROBE_HOOK_GOT;
	choice.word.entry = image->entry[entry];
	if (word->kind != PL_GOT_JUMPED) {
		row = pl_landing_row(&native->landing, real, functions[word->name].kind);
		if (row == PL_LANDING_CAPACITY) {
			note_full(native);
			return full;
		}
		choose_landing(native, image, row, entry, choices);
		choice.word.kind = PL_PROBE_HOOK_LOADED;
		choice.word.entry = pl_landing_stub(&native->landing, row);
	}
	choices->items[choices->count++] = choice;
	return NULL;
}

static void count_word(struct pl_engine_library *library, enum pl_got_kind kind)
{
	library->jumped += kind == PL_GOT_JUMPED;
	library->loaded += kind == PL_GOT_LOADED;
	library->pointers += kind == PL_GOT_DATA;
}

/* Pointers that the program keeps from an earlier recording. */
static void choose_kept(struct native *native, const struct pl_maps *maps, const struct pl_inline_image *image,
	struct choices *choices)
{
	for (uint32_t row = 0; row < native->landing.there; row++)
		for (size_t i = 0; i < native->value_count; i++) {
			const struct pl_got_value *value = &native->values[i];
			uint32_t entry = 0;

			if (value->address == native->landing.rows[row].original &&
				(uint32_t)functions[value->name].kind == native->landing.rows[row].kind)
				entry = find_entry(native, maps, value->name, value->address, 0);
			if (entry)
				choose_landing(native, image, row, entry, choices);
		}
}

int native_choose(struct native *native, const struct pl_maps *maps, const struct pl_got *got,
	const struct pl_inline_image *image, struct pl_engine_library *libraries, struct pl_probe_word **ret,
	uint32_t *ret_count)
{
	pl_autofree struct choice *items = calloc(got->word_count + PL_LANDING_CAPACITY + 1, sizeof(*items));
	struct choices choices = {.items = items};

	_Static_assert(sizeof(((struct pl_inline_config *)0)->quiet) / 8 == PL_INLINE_FIRST_CALLOC - PL_INLINE_FIRST_ALLOC,
		"one for each entry of the kind ALLOC");
	if (!items)
		return -ENOMEM;
	choose_kept(native, maps, image, &choices);
	for (size_t i = 0; i < got->object_count; i++)
		if (is_linker(&got->objects[i])) {
			libraries[i].left++;
			libraries[i].why = "the dynamic linker's own";
		} else if (got->objects[i].unready) {
			native_find_object(native, got->objects[i].map)->open = true;
			libraries[i].left += got->objects[i].unready;
			libraries[i].why = "not relocated yet, or not there";
		}
	for (size_t i = 0; i < got->word_count; i++) {
		const struct pl_got_word *word = &got->words[i];
		uint64_t real = word->bound ? word->value : find_real(native, image, maps, got, word->name);
		enum treatment treatment = real ? treatment_of(native, got, word, real) : WANTED;
		struct pl_engine_library *library = &libraries[word->object];
		const char *why = "not called yet, and nobody says what it is";

		if (!real)
			native_find_object(native, got->objects[word->object].map)->open = true;
		else
			why = treatment == WANTED ? choose_word(native, maps, got, word, real, image, &choices) : NULL;
		library->left += why != NULL;
		library->why = why ? why : library->why;
		library->covered += treatment == COVERED;
		if (!why && treatment != COVERED)
			count_word(library, word->kind);
	}
	qsort(items, choices.count, sizeof(*items), by_rank);
	*ret = calloc(choices.count + 1, sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	for (uint32_t i = 0; i < choices.count; i++)
		(*ret)[i] = items[i].word;
	*ret_count = choices.count;
	return 0;
}
