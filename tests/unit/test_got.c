/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pyleak/arch.h"
#include "pyleak/got.h"
#include "pyleak/memory.h"
#include "spaces.h"

/* The words of programs that were linked in each of the usual ways, read while they run. */

static const char *const names[] = {"malloc", "calloc", "no_such_function"};
enum { MALLOC, CALLOC, NAMES = 3 };

struct victim {
	pid_t pid;
	int input;
	uint64_t malloc_address;
	struct pl_maps maps;
	struct pl_got got;
	int code; /* of pl_got_add() for the program */
};

/* Called before it is looked at. */
static void (*spoil)(const struct victim *victim, const struct pl_map *map);

static struct victim look_at(const char *program)
{
	struct victim victim = {0};
	int input[2], output[2];
	void *address = NULL;
	FILE *stream;

	cr_assert_eq(pipe2(input, O_CLOEXEC), 0);
	cr_assert_eq(pipe2(output, O_CLOEXEC), 0);
	victim.pid = fork();
	if (victim.pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)dup2(input[0], STDIN_FILENO);
		(void)dup2(output[1], STDOUT_FILENO);
		(void)execl(program, program, (char *)NULL);
		_exit(127);
	}
	(void)close(input[0]);
	(void)close(output[1]);
	victim.input = input[1];
	stream = fdopen(output[0], "r");
	cr_assert_eq(fscanf(stream, "%p", &address), 1, "%s", program);
	(void)fclose(stream);
	victim.malloc_address = (uint64_t)(uintptr_t)address;
	cr_assert_eq(pl_maps_read(victim.pid, &victim.maps), 0);
	victim.code = -ENOENT;
	for (size_t i = 0; i < victim.maps.count && victim.code == -ENOENT; i++)
		if (pl_got_object_start(&victim.maps.items[i]) && strcmp(victim.maps.items[i].path, program) == 0) {
			if (spoil)
				spoil(&victim, &victim.maps.items[i]);
			victim.code = pl_got_add(space_of(victim.pid), &victim.maps, &victim.maps.items[i], names, NAMES, &victim.got);
		}
	return victim;
}

static void end(struct victim *victim)
{
	int status;

	(void)close(victim->input);
	cr_assert_eq(waitpid(victim->pid, &status, 0), victim->pid);
	cr_assert_eq(status, 0);
	pl_got_free(&victim->got);
	pl_maps_free(&victim->maps);
}

/* Some linkers make two words for a name that is called, and whose address is taken: one for the PLT, which is not meant if
 * `loaded`, and one for all else. */
static const struct pl_got_word *find_word(const struct victim *victim, uint32_t name, bool loaded)
{
	const struct pl_got_word *found = NULL;

	for (size_t i = 0; i < victim->got.word_count; i++) {
		uint64_t value;

		cr_assert_eq(pl_memory_read_u64(victim->pid, victim->got.words[i].address, &value), 0);
		cr_assert_eq(value, victim->got.words[i].value);
		if (victim->got.words[i].name != name || (loaded && victim->got.words[i].kind == PL_GOT_JUMPED))
			continue;
		cr_assert_null(found, "two words for one name");
		found = &victim->got.words[i];
	}
	return found;
}

static const struct pl_got_word *word_of(const struct victim *victim, uint32_t name)
{
	return find_word(victim, name, false);
}

/* `kind`: of the words that it calls through. */
static void expect_bound(const char *program, enum pl_got_kind kind)
{
	struct victim victim = look_at(program);
	const struct pl_got_word *word = word_of(&victim, MALLOC);

	cr_assert_eq(victim.code, 0, "%s: %d", program, victim.code);
	cr_assert_not_null(word, "%s", program);
	cr_assert(word->bound);
	cr_assert_eq(word->value, victim.malloc_address, "%s", program);
	cr_assert_eq(word->kind, kind, "%s", program);
	cr_assert_eq(word->stub, 0);
	cr_assert_eq(victim.got.objects[0].unready, 0);
	cr_assert_geq(word->address, victim.got.objects[0].start);
	cr_assert_lt(word->address, victim.got.objects[0].end);
	word = word_of(&victim, CALLOC);
	cr_assert_not_null(word);
	end(&victim);
}

Test(got, lazy)
{
	struct victim victim;

	expect_bound(GOT_VICTIM_LAZY, PL_GOT_JUMPED);
	victim = look_at(GOT_VICTIM_LAZY);

	/* Nobody has called it: it leads into the program's own PLT. */
	const struct pl_got_word *word = word_of(&victim, CALLOC);

	cr_assert(!word->bound);
	cr_assert(word->value >= victim.got.objects[0].start && word->value < victim.got.objects[0].end);
	end(&victim);
}

Test(got, now_and_read_only)
{
	struct victim victim;

	expect_bound(GOT_VICTIM_NOW, PL_GOT_JUMPED);
	victim = look_at(GOT_VICTIM_NOW);
	cr_assert(word_of(&victim, CALLOC)->bound);
	cr_assert(!(pl_maps_find(&victim.maps, word_of(&victim, MALLOC)->address)->flags & PL_MAP_WRITE));
	end(&victim);
}

Test(got, not_position_independent)
{
	expect_bound(GOT_VICTIM_FIXED, PL_GOT_JUMPED);
}

Test(got, calls_without_a_plt)
{
	expect_bound(GOT_VICTIM_NOPLT, PL_ARCH_TELLS_REFERENCES ? PL_GOT_JUMPED : PL_GOT_LOADED);
}

/* The program calls malloc, and takes its address: on x86-64 the linker makes one word for both. Two pointers in its data hold it
 * too, one by a relocation, the other since the program has stored it. */
Test(got, a_word_that_was_copied)
{
	struct victim victim = look_at(GOT_VICTIM_TAKEN);
	const struct pl_got_value value = {victim.malloc_address, MALLOC};
	size_t before = victim.got.word_count;

	cr_assert_eq(victim.code, 0);
	cr_assert_not_null(find_word(&victim, MALLOC, true));
	cr_assert_eq(find_word(&victim, MALLOC, true)->kind, PL_GOT_LOADED);
	cr_assert_eq(find_word(&victim, MALLOC, true)->value, victim.malloc_address);
	cr_assert_eq(word_of(&victim, CALLOC)->kind, PL_GOT_JUMPED);
	cr_assert_eq(pl_got_add_pointers(victim.pid, &victim.maps, 0, &value, 1, &victim.got), 0);
	cr_assert_eq(victim.got.word_count, before + 2, "%zu", victim.got.word_count - before);
	for (size_t i = before; i < victim.got.word_count; i++) {
		const struct pl_got_word *word = &victim.got.words[i];

		cr_assert_eq(word->kind, PL_GOT_DATA);
		cr_assert_eq(word->name, MALLOC);
		cr_assert_eq(word->value, victim.malloc_address);
		cr_assert(word->address >= victim.got.objects[0].start && word->address < victim.got.objects[0].end);
	}
	end(&victim);
}

static size_t pointers_in(const char *program)
{
	struct victim victim = look_at(program);
	const struct pl_got_value value = {victim.malloc_address, MALLOC};
	size_t before = victim.got.word_count, found;

	cr_assert_eq(victim.code, 0);
	cr_assert_eq(pl_got_add_pointers(victim.pid, &victim.maps, 0, &value, 1, &victim.got), 0);
	found = victim.got.word_count - before;
	end(&victim);
	return found;
}

/* 24 MiB of .bss: the pointer that stands early in it, and if the program loads the address itself the one at its end too. */
Test(got, a_large_table)
{
	size_t found = pointers_in(GOT_VICTIM_TABLE), taken = pointers_in(GOT_VICTIM_TABLE_TAKEN);

	cr_assert_eq(found, 1, "%zu", found);
	cr_assert_eq(taken, 4, "%zu", taken);
}

/* What a program that is not position-independent takes for the address of malloc is an entry in its own PLT. */
Test(got, an_entry_in_the_plt_that_stands_for_the_function)
{
	struct victim victim = look_at(GOT_VICTIM_FIXED_TAKEN);
	const struct pl_got_word *word = word_of(&victim, MALLOC);
	uint64_t stub = word->stub, kept = 0;

	cr_assert_eq(victim.code, 0);
	cr_assert_eq(word->kind, PL_GOT_JUMPED);
	/* dlsym() takes it for the function too. */
	cr_assert_eq(stub, victim.malloc_address);
	cr_assert_neq(word->value, stub);
	cr_assert_eq(word_of(&victim, CALLOC)->stub, 0);
	cr_assert_eq(pl_got_add_pointers(victim.pid, &victim.maps, 0, &(struct pl_got_value){stub, MALLOC}, 1, &victim.got), 0);
	for (size_t i = 0; i < victim.got.word_count; i++)
		kept += victim.got.words[i].kind == PL_GOT_DATA;
	cr_assert_eq(kept, 2, "%lu", kept);
	end(&victim);
}

static char cache[64], folder[80];

static void begin(void)
{
	(void)strcpy(cache, "/tmp/pyleak-test-XXXXXX");
	cr_assert_not_null(mkdtemp(cache));
	cr_assert_eq(setenv("XDG_CACHE_HOME", cache, 1), 0);
	(void)snprintf(folder, sizeof(folder), "%s/pyleak", cache);
}

/* How many files are remembered; none is from then on. */
static int forget(void)
{
	DIR *entries = opendir(folder);
	const struct dirent *entry;
	int count = 0;

	while (entries && (entry = readdir(entries)))
		count += unlinkat(dirfd(entries), entry->d_name, 0) == 0;
	if (entries)
		(void)closedir(entries);
	return count;
}

static void finish(void)
{
	(void)forget();
	(void)rmdir(folder);
	(void)rmdir(cache);
}

/* A file that has changed a moment ago is not remembered. */
static void wait_until_settled(const char *path)
{
	struct stat status;

	cr_assert_eq(stat(path, &status), 0);
	while (time(NULL) - status.st_ctim.tv_sec < 3)
		(void)usleep(100000);
}

static void expect_taken(const struct victim *victim)
{
	const struct pl_got_word *word = find_word(victim, MALLOC, true);

	cr_assert_eq(victim->code, 0);
	cr_assert_not_null(word);
	cr_assert_eq(word->kind, PL_GOT_LOADED);
	cr_assert_eq(word->value, victim->malloc_address);
	cr_assert(word->bound);
	cr_assert_eq(word_of(victim, CALLOC)->kind, PL_GOT_JUMPED);
	cr_assert_eq(victim->got.objects[0].unready, 0);
}

Test(got, what_is_remembered, .init = begin, .fini = finish)
{
	struct victim first, second;

	wait_until_settled(GOT_VICTIM_LARGE);
	first = look_at(GOT_VICTIM_LARGE);
	expect_taken(&first);
	second = look_at(GOT_VICTIM_LARGE);
	expect_taken(&second);
	cr_assert_eq(first.got.word_count, second.got.word_count);
	for (size_t i = 0; i < first.got.word_count; i++) {
		cr_assert_eq(first.got.words[i].address - first.got.objects[0].start,
			second.got.words[i].address - second.got.objects[0].start);
		cr_assert_eq(first.got.words[i].name, second.got.words[i].name);
		cr_assert_eq(first.got.words[i].kind, second.got.words[i].kind);
	}
	end(&first);
	end(&second);
	cr_assert_eq(forget(), 1);
}

static void write_over(const struct victim *victim, uint64_t address, const void *bytes, size_t size)
{
	char path[64];
	int memory;

	(void)snprintf(path, sizeof(path), "/proc/%d/mem", (int)victim->pid);
	memory = open(path, O_RDWR | O_CLOEXEC);
	cr_assert_eq(pwrite(memory, bytes, size, (off_t)address), (ssize_t)size);
	(void)close(memory);
}

/* Its text is said to be elsewhere in the file, where nothing is loaded. */
static void spoil_header(const struct victim *victim, const struct pl_map *map)
{
	Elf64_Ehdr header;
	Elf64_Phdr segment;

	cr_assert_eq(pl_memory_read(victim->pid, map->start, &header, sizeof(header)), 0);
	for (uint64_t i = 0; i < header.e_phnum; i++) {
		uint64_t address = map->start + header.e_phoff + i * sizeof(segment);

		cr_assert_eq(pl_memory_read(victim->pid, address, &segment, sizeof(segment)), 0);
		if (segment.p_type != PT_LOAD || !(segment.p_flags & PF_X))
			continue;
		segment.p_filesz -= 0x2000;
		segment.p_memsz -= 0x2000;
		write_over(victim, address, &segment, sizeof(segment));
	}
}

/* No name in it is one that is asked for. */
static void spoil_names(const struct victim *victim, const struct pl_map *map)
{
	char bytes[4096];

	cr_assert_eq(pl_memory_read(victim->pid, map->start, bytes, sizeof(bytes)), 0);
	for (size_t i = 0; i + 6 <= sizeof(bytes); i++)
		if (memcmp(bytes + i, "malloc", 6) == 0)
			write_over(victim, map->start + i, "nalloc", 6);
}

/* Whether or not one process has written over its own, and what is remembered is the file's. */
static void expect_names_from_file(const char *path)
{
	struct victim victim;

	spoil = spoil_names;
	victim = look_at(path);
	expect_taken(&victim);
	end(&victim);
	spoil = NULL;
	victim = look_at(path);
	expect_taken(&victim);
	end(&victim);
	cr_assert_eq(forget(), 1);
}

/* What one process makes of its memory is not believed of the file, which others have loaded too. */
Test(got, what_a_process_makes_of_its_memory_is_not_remembered, .init = begin, .fini = finish)
{
	struct victim victim;

	wait_until_settled(GOT_VICTIM_LARGE);
	spoil = spoil_header;
	victim = look_at(GOT_VICTIM_LARGE);
	end(&victim);
	cr_assert_eq(forget(), 0);
	expect_names_from_file(GOT_VICTIM_LARGE);
}

/* As patchelf leaves them: names and symbols lie in a segment that the program may write to. */
static void copy_with_writable_names(const char *path, const char *copy)
{
	char *bytes = NULL;
	Elf64_Ehdr header;
	struct stat status;
	int from = open(path, O_RDONLY | O_CLOEXEC), to = open(copy, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);

	cr_assert(from >= 0 && to >= 0 && fstat(from, &status) == 0);
	bytes = malloc((size_t)status.st_size);
	cr_assert_eq(pread(from, bytes, (size_t)status.st_size, 0), status.st_size);
	memcpy(&header, bytes, sizeof(header));
	for (uint64_t i = 0; i < header.e_phnum; i++) {
		Elf64_Phdr *segment = (Elf64_Phdr *)(void *)(bytes + header.e_phoff) + i;

		if (segment->p_type == PT_LOAD && !(segment->p_flags & PF_X))
			segment->p_flags |= PF_W;
	}
	cr_assert_eq(pwrite(to, bytes, (size_t)status.st_size, 0), status.st_size);
	free(bytes);
	(void)close(from);
	(void)close(to);
}

Test(got, names_that_the_process_may_write_to, .init = begin, .fini = finish)
{
	char path[96];

	(void)snprintf(path, sizeof(path), "%s/victim", cache);
	copy_with_writable_names(GOT_VICTIM_LARGE, path);
	wait_until_settled(path);
	expect_names_from_file(path);
	cr_assert_eq(unlink(path), 0);
}

Test(got, a_static_program_has_none)
{
	struct victim victim = look_at(GOT_VICTIM_STATIC);

	cr_assert_eq(victim.code, -ENOEXEC, "%d", victim.code);
	cr_assert_eq(victim.got.object_count, 0);
	end(&victim);
}

Test(got, a_file_that_is_mapped_to_be_read)
{
	struct pl_maps maps = {0};
	struct pl_got got = {0};
	int fd = open(GOT_VICTIM_NOW, O_RDONLY | O_CLOEXEC);
	void *image = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);

	cr_assert_neq(image, MAP_FAILED);
	cr_assert_eq(pl_maps_read(getpid(), &maps), 0);
	cr_assert_eq(pl_got_add(space_of(getpid()), &maps, pl_maps_find(&maps, (uint64_t)image), names, NAMES, &got), -EAGAIN);
	cr_assert_eq(got.object_count, 0);
	pl_got_free(&got);
	pl_maps_free(&maps);
	(void)munmap(image, 65536);
	(void)close(fd);
}
