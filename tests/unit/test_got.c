/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

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
		if (pl_got_object_start(&victim.maps.items[i]) && strcmp(victim.maps.items[i].path, program) == 0)
			victim.code = pl_got_add(space_of(victim.pid), &victim.maps, &victim.maps.items[i], names, NAMES, &victim.got);
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

static const struct pl_got_word *word_of(const struct victim *victim, uint32_t name)
{
	const struct pl_got_word *found = NULL;

	for (size_t i = 0; i < victim->got.word_count; i++) {
		uint64_t value;

		cr_assert_eq(pl_memory_read_u64(victim->pid, victim->got.words[i].address, &value), 0);
		cr_assert_eq(value, victim->got.words[i].value);
		if (victim->got.words[i].name != name)
			continue;
		cr_assert_null(found, "two words for one name");
		found = &victim->got.words[i];
	}
	return found;
}

static void expect_bound(const char *program)
{
	struct victim victim = look_at(program);
	const struct pl_got_word *word = word_of(&victim, MALLOC);

	cr_assert_eq(victim.code, 0, "%s: %d", program, victim.code);
	cr_assert_not_null(word, "%s", program);
	cr_assert(word->bound);
	cr_assert_eq(word->value, victim.malloc_address, "%s", program);
	cr_assert_eq(word->kind, PL_GOT_JUMPED, "%s", program);
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

	expect_bound(GOT_VICTIM_LAZY);
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

	expect_bound(GOT_VICTIM_NOW);
	victim = look_at(GOT_VICTIM_NOW);
	cr_assert(word_of(&victim, CALLOC)->bound);
	cr_assert(!(pl_maps_find(&victim.maps, word_of(&victim, MALLOC)->address)->flags & PL_MAP_WRITE));
	end(&victim);
}

Test(got, not_position_independent)
{
	expect_bound(GOT_VICTIM_FIXED);
}

Test(got, calls_without_a_plt)
{
	expect_bound(GOT_VICTIM_NOPLT);
}

/* The program calls malloc, and takes its address: the linker makes one word for both. Two pointers in its data hold it
 * too, one by a relocation, the other since the program has stored it. */
Test(got, a_word_that_was_copied)
{
	struct victim victim = look_at(GOT_VICTIM_TAKEN);
	const struct pl_got_value value = {victim.malloc_address, MALLOC};
	size_t before = victim.got.word_count;

	cr_assert_eq(victim.code, 0);
	cr_assert_eq(word_of(&victim, MALLOC)->kind, PL_GOT_LOADED);
	cr_assert_eq(word_of(&victim, MALLOC)->value, victim.malloc_address);
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
	cr_assert_eq(kept, 2);
	end(&victim);
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
