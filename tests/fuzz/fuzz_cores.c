/* SPDX-License-Identifier: MIT */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pyleak/core.h"
#include "pyleak/graph.h"
#include "pyleak/holders.h"
#include "random.h"

/*
 * Damages core files and asks who holds their memory; makes graphs that are none. Built with sanitizers: whatever is wrong
 * ends a child by a signal or its status; one that takes too long is killed.
 *
 *   fuzz_cores SECONDS SEED FILE...     0, or 1 and what was found in ./fuzz-found-N (a core file, as it was damaged)
 *   fuzz_cores --one FILE               the same of one file, as it is
 */

enum { TIME_MAX = 20, CHANGES_MAX = 64 };

static uint64_t *whole; /* how many were read to the end in spite of it */

/* 0, or what no input may do. */
static int ask(const char *path)
{
	struct pl_holders_options options = { .limit = 10, .type = next() % 8 ? NULL : "dict" };
	struct pl_space *space = NULL;
	struct pl_python *python = NULL;
	struct pl_heap_copy *copy = NULL;
	struct pl_holders holders = { 0 };
	struct pl_error err = { 0 };
	int code = pl_space_of_core(path, NULL, &space, &err);

	if (code == 0)
		code = pl_python_open(space, next() % 2, &python, &err);
	if (code == 0)
		code = pl_heap_copy_take(python, &copy, &err);
	if (code == 0)
		code = pl_holders_find(copy, &options, &holders, &err);
	if (code == 0 && whole)
		++*whole;
	pl_holders_free(&holders);
	pl_heap_copy_free(copy);
	pl_python_close(python);
	pl_space_close(space);
	/* An error has a text, and only an error has. */
	return (code < 0) == (err.code != 0) && (code == 0 || err.text[0]) ? 0 : 1;
}

static uint64_t interesting(const uint8_t *bytes, size_t size)
{
	static const uint64_t words[] = { 0, 1, 2, 7, 8, 0x7fffffff, 0x80000000, 0xffffffff, UINT64_C(1) << 32, UINT64_C(1) << 40,
		UINT64_C(1) << 47, INT64_MAX, UINT64_MAX, UINT64_MAX - 7, 4096, 0xfff, 512 };
	uint64_t word;

	switch (below(4)) {
	case 0:
		return words[below(sizeof(words) / sizeof(words[0]))];
	case 1: /* a word from elsewhere: an address, as often as not */
		memcpy(&word, bytes + below(size / 8) * 8, 8);
		return word;
	case 2:
		memcpy(&word, bytes + below(size / 8) * 8, 8);
		return word + (next() % 3 - 1) * 8 * below(1 << 12);
	default:
		return next() >> below(64);
	}
}

/* Where a change hurts: headers and notes, or memory, more often where there is something. */
static size_t place(const uint8_t *bytes, size_t size, uint64_t notes)
{
	uint64_t word = 0;
	size_t at = 0;

	if (below(8) == 0)
		return below(notes < size ? notes : size);
	for (int i = 0; i < 64 && !word; i++) {
		at = below(size / 8) * 8;
		memcpy(&word, bytes + at, 8);
	}
	return at;
}

static size_t damage(uint8_t *bytes, size_t size)
{
	const Elf64_Ehdr *header = (const Elf64_Ehdr *)bytes;
	const Elf64_Phdr *segments = (const Elf64_Phdr *)(bytes + sizeof(*header));
	uint64_t notes = segments[0].p_offset + segments[0].p_filesz;
	uint64_t changes = 1 + below(below(4) ? CHANGES_MAX : 4096);

	if (below(16) == 0)
		return below(size);
	for (uint64_t i = 0; i < changes; i++) {
		size_t at = place(bytes, size, notes);
		uint64_t word = interesting(bytes, size);

		switch (below(5)) {
		case 0:
			bytes[at < size ? at : 0] ^= (uint8_t)(1 << below(8));
			break;
		case 1: /* a stretch of something else */
			if (at + 256 <= size)
				memmove(bytes + at, bytes + below((size - 256) / 8) * 8, 8 + below(31) * 8);
			break;
		case 2: /* one and the same word, wherever it stands nearby */
			for (uint64_t j = 0, old; j < 512 && at + 8 * j + 8 <= size; j++) {
				if (j == 0)
					memcpy(&old, bytes + at, 8);
				if (memcmp(bytes + at + 8 * j, &old, 8) == 0)
					memcpy(bytes + at + 8 * j, &word, 8);
			}
			break;
		default:
			if (at + 8 <= size)
				memcpy(bytes + at, &word, below(4) ? 8 : 4);
			break;
		}
	}
	return size;
}

/* Any edges, also such as lead nowhere. */
static int make_graph(void)
{
	uint32_t count = 1 + (uint32_t)below(2000), edges = (uint32_t)below(8000), at = 0;
	struct pl_graph graph = { count, malloc((count + 1) * sizeof(uint32_t)), malloc((edges + 1) * sizeof(uint32_t)) }, tree = { 0 };
	uint32_t *idom = malloc(count * sizeof(uint32_t)), *sizes = calloc(count, sizeof(uint32_t)), *counts = malloc(count * sizeof(uint32_t));
	uint64_t *retained = malloc(count * sizeof(uint64_t)), sum = 0;
	bool wild = below(4) == 0;
	int bad = 0;

	if (!graph.offsets || !graph.targets || !idom || !sizes || !counts || !retained)
		abort();
	for (uint32_t v = 0; v <= count; v++) {
		graph.offsets[v] = at;
		at = v < count && edges > at ? at + (uint32_t)below(below(2) ? 4 : edges - at) : at;
		at = at < edges ? at : edges;
	}
	for (uint32_t e = 0; e < edges; e++)
		graph.targets[e] = (uint32_t)below(wild && below(50) == 0 ? UINT32_MAX : count);
	for (uint32_t v = 0; v < count; v++)
		sizes[v] = (uint32_t)below(1000);
	if (pl_graph_dominators(&graph, idom) == 0) {
		bad |= pl_graph_retained(idom, sizes, count, retained, counts) != 0;
		bad |= pl_graph_children(idom, count, &tree) != 0;
		for (uint32_t v = 0; v < count; v++)
			sum += idom[v] == PL_GRAPH_NONE ? 0 : sizes[v];
		bad |= retained[0] != sum;
	}
	/* What is no tree is refused. */
	for (int i = 0; i < 10; i++)
		idom[below(count)] = (uint32_t)below(wild ? UINT32_MAX : count);
	(void)pl_graph_retained(idom, sizes, count, retained, counts);
	pl_graph_free(&tree);
	pl_graph_free(&graph);
	free(idom);
	free(sizes);
	free(counts);
	free(retained);
	return bad;
}

static int one(uint64_t seed, const uint8_t *original, size_t size)
{
	char path[64];
	uint8_t *bytes;
	size_t length;
	int fd;

	state = seed;
	if (below(8) == 0) {
		for (int i = 0; i < 50; i++)
			if (make_graph())
				return 1;
		return 0;
	}
	fd = memfd_create("core", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		return 2;
	bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (bytes == MAP_FAILED)
		return 2;
	memcpy(bytes, original, size);
	length = damage(bytes, size);
	(void)munmap(bytes, size);
	if (ftruncate(fd, (off_t)length) < 0)
		return 2;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return ask(path);
}

static void keep(uint64_t seed, const uint8_t *original, size_t size, unsigned int number)
{
	char path[64];
	uint8_t *bytes = malloc(size);
	FILE *file;

	(void)snprintf(path, sizeof(path), "fuzz-found-%u", number);
	file = fopen(path, "we");
	if (!bytes || !file)
		abort();
	memcpy(bytes, original, size);
	state = seed;
	(void)below(8);
	size = damage(bytes, size);
	(void)fwrite(bytes, size, 1, file);
	(void)fclose(file);
	free(bytes);
}

static uint8_t *load(const char *path, size_t *ret_size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat status;
	uint8_t *bytes;

	if (fd < 0 || fstat(fd, &status) < 0)
		return NULL;
	*ret_size = (size_t)status.st_size;
	bytes = mmap(NULL, *ret_size, PROT_READ, MAP_PRIVATE, fd, 0);
	(void)close(fd);
	return bytes == MAP_FAILED ? NULL : bytes;
}

int main(int argc, char **argv)
{
	uint64_t seed, runs = 0;
	unsigned int found = 0;
	time_t end;

	if (argc == 3 && strcmp(argv[1], "--one") == 0) {
		state = 1;
		return ask(argv[2]);
	}
	if (argc < 4)
		return 2;
	end = time(NULL) + atol(argv[1]);
	whole = mmap(NULL, sizeof(*whole), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (whole == MAP_FAILED)
		return 2;
	seed = strtoull(argv[2], NULL, 0);
	while (time(NULL) < end && found < 10) {
		const uint64_t own = (++seed * UINT64_C(0x9e3779b97f4a7c15)) | 1;
		const char *path = argv[3 + (size_t)(seed % (uint64_t)(argc - 3))];
		size_t size;
		uint8_t *original = load(path, &size);
		struct rusage usage;
		int status;
		pid_t pid;

		if (!original || size < 4096) {
			(void)fprintf(stderr, "%s: no core file\n", path);
			return 2;
		}
		pid = fork();
		if (pid == 0) {
			(void)alarm(TIME_MAX);
			_exit(one(own, original, size));
		}
		if (pid < 0 || wait4(pid, &status, 0, &usage) < 0)
			return 2;
		runs++;
		if (status) {
			(void)fprintf(stderr, "run %" PRIu64 " of %s: %s %d; see fuzz-found-%u\n", own, path,
				WIFSIGNALED(status) ? WTERMSIG(status) == SIGALRM ? "took too long," : "signal" : "status",
				WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), found);
			keep(own, original, size, found++);
		}
		(void)munmap(original, size);
	}
	printf("%" PRIu64 " runs, %" PRIu64 " of them read to the end, %u found\n", runs, *whole, found);
	return found ? 1 : 0;
}
