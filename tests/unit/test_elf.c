/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../src/elf/elf_private.h"
#include "pyleak/arch.h"
#include "pyleak/cleanup.h"
#include "pyleak/elf.h"
#include "spaces.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const uid_t nobody = 65534;

struct victim {
	pid_t pid;
	int input; /* closed: it ends */
	uint64_t exported, hidden, section, whole;
};

static struct victim start(const char *program)
{
	struct victim victim;
	int input[2], output[2];
	void *addresses[4];
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
	cr_assert_eq(fscanf(stream, "%p %p %p %p", &addresses[0], &addresses[1], &addresses[2], &addresses[3]), 4, "%s",
		program);
	(void)fclose(stream);
	victim.exported = (uint64_t)(uintptr_t)addresses[0];
	victim.hidden = (uint64_t)(uintptr_t)addresses[1];
	victim.section = (uint64_t)(uintptr_t)addresses[2];
	victim.whole = (uint64_t)(uintptr_t)addresses[3];
	return victim;
}

static void stop(const struct victim *victim)
{
	int status;

	(void)close(victim->input);
	cr_assert_eq(waitpid(victim->pid, &status, 0), victim->pid);
	cr_assert_eq(status, 0);
}

/* A copy of a file for the caller to unlink, also after become_nobody(). */
static void copy_file(const char *from, char path[64])
{
	int in = open(from, O_RDONLY | O_CLOEXEC), out;
	struct stat status;

	(void)strcpy(path, "/tmp/pyleak-elf-XXXXXX");
	out = mkstemp(path);
	cr_assert_geq(in, 0);
	cr_assert_geq(out, 0);
	cr_assert_eq(fstat(in, &status), 0);
	cr_assert_eq(sendfile(out, in, NULL, (size_t)status.st_size), status.st_size);
	cr_assert_eq(fchmod(out, 0755), 0);
	if (getuid() == 0)
		cr_assert_eq(fchown(out, nobody, nobody), 0);
	(void)close(in);
	(void)close(out);
}

/* As somebody who may not open map_files, but may look at processes of its own. */
static void become_nobody(void)
{
	if (getuid() != 0)
		return;
	cr_assert_eq(setresgid(nobody, nobody, nobody), 0);
	cr_assert_eq(setresuid(nobody, nobody, nobody), 0);
	cr_assert_eq(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
}

static struct pl_elf *open_at(pid_t pid, uint64_t address)
{
	struct pl_elf *elf = NULL;
	struct pl_error err = {0};
	struct pl_maps maps;
	const struct pl_map *map;
	int r;

	cr_assert_eq(pl_maps_read(pid, &maps), 0);
	map = pl_maps_find(&maps, address);
	cr_assert_not_null(map);
	r = pl_elf_open(space_of(pid), &maps, map, &elf, &err);
	cr_assert_eq(r, 0, "%s", err.text);
	pl_maps_free(&maps);
	return elf;
}

static void expect(const struct pl_elf *elf, const char *name, uint64_t address)
{
	uint64_t found = 0, size;

	cr_assert_eq(pl_elf_symbol(elf, name, &found, &size), 0, "%s", name);
	cr_assert_eq(found, address, "%s: %#lx, not %#lx", name, found, address);
}

static void expect_at(struct pl_elf *elf, uint64_t address, const char *name, uint64_t offset)
{
	const char *found = NULL;
	uint64_t from = 0;

	cr_assert_eq(pl_elf_symbol_at(elf, address, &found, &from), 0, "%s", name);
	cr_assert_str_eq(found, name);
	cr_assert_eq(from, offset, "%s", name);
}

static void check_victim(const struct victim *victim, bool in_dynsym)
{
	const uint64_t places[] = {victim->exported, victim->section}; /* two mappings of one object */
	uint64_t address, size;
	const char *name;

	for (size_t i = 0; i < COUNT(places); i++) {
		struct pl_elf *elf = open_at(victim->pid, places[i]);

		cr_assert_eq(pl_elf_class(elf), ELFCLASS64);
		cr_assert_eq(pl_elf_machine(elf), PL_ARCH_ELF_MACHINE);
		expect(elf, "landmark_exported", victim->exported);
		expect(elf, "landmark_static", victim->hidden);
		cr_assert_eq(pl_elf_symbol(elf, "landmark_private", &address, NULL), -ENOENT);
		cr_assert_eq(pl_elf_symbol_prefix(elf, "landmark_private", &address, &size), 0);
		cr_assert_eq(address, victim->whole);
		cr_assert_eq(size, sizeof(int));
		cr_assert_eq(pl_elf_symbol_prefix(elf, "landmark_priv", &address, NULL), -ENOENT);
		/* The other way round, functions alone. */
		cr_assert_not(pl_elf_is_stripped(elf));
		expect_at(elf, victim->exported, "landmark_exported", 0);
		expect_at(elf, victim->exported + 2, "landmark_exported", 2);
		expect_at(elf, victim->hidden + 1, "landmark_static", 1);
		cr_assert_eq(pl_elf_symbol_at(elf, victim->whole, &name, &size), -ENOENT);
		cr_assert_eq(pl_elf_symbol_at(elf, 0, &name, &size), -ENOENT);
		cr_assert_eq(pl_elf_symbol_at(elf, UINT64_MAX, &name, &size), -ENOENT);
		cr_assert_eq(pl_elf_section(elf, ".landmark", &address, &size), 0);
		cr_assert_eq(address, victim->section);
		cr_assert_eq(size, 16 * sizeof(int));
		cr_assert_eq(pl_elf_section(elf, ".comment", &address, &size), -ENOENT, "it is not in memory");
		if (in_dynsym)
			cr_assert_eq(pl_elf_symbol(elf, "printf", &address, NULL), -ENOENT, "it is libc's");
		pl_elf_close(elf);
	}
}

/* No names but those of .dynsym: a library of a distribution. */
Test(elf, stripped)
{
	struct pl_elf *elf = open_at(getpid(), (uint64_t)(uintptr_t)dlsym(RTLD_DEFAULT, "qsort_r"));
	const char *name;
	uint64_t offset;

	cr_assert_eq(pl_elf_symbol_at(elf, (uint64_t)(uintptr_t)dlsym(RTLD_DEFAULT, "qsort_r") + 4, &name, &offset), 0);
	cr_assert_not_null(strstr(name, "qsort_r"), "%s", name);
	cr_assert_eq(offset, 4);
	pl_elf_close(elf);
}

Test(elf, position_independent)
{
	struct victim victim = start(ELF_VICTIM_PIE);
	struct pl_elf *elf = open_at(victim.pid, victim.exported);

	cr_assert_gt(pl_elf_bias(elf), 0);
	pl_elf_close(elf);
	check_victim(&victim, true);
	stop(&victim);
}

Test(elf, fixed)
{
	struct victim victim = start(ELF_VICTIM_FIXED);
	struct pl_elf *elf = open_at(victim.pid, victim.exported);

	cr_assert_eq(pl_elf_bias(elf), 0);
	pl_elf_close(elf);
	check_victim(&victim, true);
	stop(&victim);
}

Test(elf, static_program)
{
	struct victim victim = start(ELF_VICTIM_STATIC);

	check_victim(&victim, false);
	stop(&victim);
}

Test(elf, deleted)
{
	char path[64];
	struct victim victim;

	copy_file(ELF_VICTIM_PIE, path);
	victim = start(path);
	cr_assert_eq(unlink(path), 0);
	check_victim(&victim, true);
	stop(&victim);
}

/* Another file has taken the name, as after an upgrade. */
Test(elf, replaced)
{
	char path[64], other[64];
	struct victim victim;

	copy_file(ELF_VICTIM_PIE, path);
	copy_file(ELF_VICTIM_FIXED, other);
	become_nobody();
	victim = start(path);
	cr_assert_eq(rename(other, path), 0);
	check_victim(&victim, true);
	stop(&victim);
	cr_assert_eq(unlink(path), 0);
}

Test(elf, deleted_and_unprivileged)
{
	char path[64];
	struct victim victim;

	copy_file(ELF_VICTIM_PIE, path);
	become_nobody();
	victim = start(path);
	cr_assert_eq(unlink(path), 0);
	check_victim(&victim, true); /* through /proc/PID/exe */
	stop(&victim);
}

/* Nothing but what is in memory: a program whose file has lost its section headers. */
Test(elf, no_section_headers)
{
	const char zeros[8] = {0};
	uint64_t address;
	char path[64];
	struct victim victim;
	struct pl_elf *elf;
	int fd;

	copy_file(ELF_VICTIM_PIE, path);
	fd = open(path, O_RDWR | O_CLOEXEC);
	cr_assert_eq(pwrite(fd, zeros, 8, offsetof(Elf64_Ehdr, e_shoff)), 8);
	cr_assert_eq(pwrite(fd, zeros, 4, offsetof(Elf64_Ehdr, e_shnum)), 4);
	(void)close(fd);
	victim = start(path);
	elf = open_at(victim.pid, victim.exported);
	expect(elf, "landmark_exported", victim.exported);
	cr_assert_eq(pl_elf_symbol(elf, "landmark_static", &address, NULL), -ENOENT);
	cr_assert_eq(pl_elf_section(elf, ".landmark", &address, NULL), -ENOENT);
	pl_elf_close(elf);
	stop(&victim);
	cr_assert_eq(unlink(path), 0);
}

/* A deleted library, and no right to map_files: read from memory. */
Test(elf, deleted_library_from_memory)
{
	static const char *const names[] = {"elf_begin", "elf_version", "gelf_getsym", "elf_strptr"};
	char path[64];
	struct pl_elf *elf;
	Dl_info info;
	void *library;
	uint64_t address;

	become_nobody();
	cr_assert_neq(dladdr(dlsym(RTLD_DEFAULT, "elf_begin"), &info), 0);
	copy_file(info.dli_fname, path);
	library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	cr_assert_not_null(library, "%s", dlerror());
	cr_assert_eq(unlink(path), 0);
	elf = open_at(getpid(), (uint64_t)(uintptr_t)dlsym(library, "elf_begin"));
	cr_assert_neq(dlsym(library, "elf_begin"), dlsym(RTLD_DEFAULT, "elf_begin"));
	cr_assert_eq(pl_elf_machine(elf), PL_ARCH_ELF_MACHINE);
	for (size_t i = 0; i < COUNT(names); i++)
		expect(elf, names[i], (uint64_t)(uintptr_t)dlsym(library, names[i]));
	cr_assert_eq(pl_elf_symbol(elf, "malloc", &address, NULL), -ENOENT, "it is libc's");
	cr_assert_eq(pl_elf_section(elf, ".text", &address, NULL), -ENOENT, "memory shows no sections");
	pl_elf_close(elf);
	(void)dlclose(library);
}

/* maps may tell of another device and inode than stat(2): overlayfs, btrfs. */
Test(elf, file_known_by_its_first_page)
{
	const uint64_t places[] = {
		(uint64_t)(uintptr_t)&become_nobody, (uint64_t)(uintptr_t)dlsym(RTLD_DEFAULT, "elf_begin")};

	become_nobody();
	for (size_t i = 0; i < COUNT(places); i++) {
		struct pl_elf *elf;
		struct pl_maps maps;
		const struct pl_map *map;
		uint64_t address;

		cr_assert_eq(pl_maps_read(getpid(), &maps), 0);
		for (size_t k = 0; k < maps.count; k++)
			maps.items[k].dev_minor += 1000;
		map = pl_maps_find(&maps, places[i]);
		cr_assert_eq(pl_elf_open(space_of(getpid()), &maps, map, &elf, NULL), 0);
		cr_assert_eq(pl_elf_section(elf, ".text", &address, NULL), 0, "memory alone would not show it");
		cr_assert(address >= map->start && address < map->end);
		pl_elf_close(elf);
		pl_maps_free(&maps);
	}
}

Test(elf, libc_as_dlsym_sees_it)
{
	/* pthread_cond_wait has two versions, and only the newer one is meant. */
	static const char *const names[] = {"malloc", "calloc", "realloc", "free", "posix_memalign", "mmap", "munmap",
		"printf", "getpid", "pthread_cond_wait", "environ", "stdout"};
	void *libc = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
	struct pl_maps maps;
	const struct pl_map *home;
	int opened = 0;

	if (!libc)
		cr_skip_test("not glibc");
	cr_assert_eq(pl_maps_read(getpid(), &maps), 0);
	home = pl_maps_find(&maps, (uint64_t)(uintptr_t)dlsym(libc, "getpid"));
	for (size_t i = 0; i < maps.count; i++) {
		struct pl_elf *elf;

		/* On aarch64 the gap between its segments is a mapping of the file, which nobody can read. */
		if (!pl_map_same_file(&maps.items[i], home) || !(maps.items[i].flags & PL_MAP_READ))
			continue;
		cr_assert_eq(pl_elf_open(space_of(getpid()), &maps, &maps.items[i], &elf, NULL), 0);
		for (size_t k = 0; k < COUNT(names); k++)
			expect(elf, names[k], (uint64_t)(uintptr_t)dlsym(libc, names[k]));
		pl_elf_close(elf);
		opened++;
	}
	cr_assert_geq(opened, 3);
	pl_maps_free(&maps);
	(void)dlclose(libc);
}

/* A library of arm64's as kernels with pages of 4, 16 and 64 KiB map it: one of these wrote the core file that is read here,
 * under any other. */
Test(elf, pages_of_another_kernel)
{
	GElf_Phdr segments[] = {
		{.p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_filesz = 0x3bfa20, .p_memsz = 0x3bfa20},
		{.p_type = PT_LOAD, .p_flags = PF_R | PF_W, .p_offset = 0x3cfca8, .p_vaddr = 0x3dfca8, .p_filesz = 0x5c1f0,
			.p_memsz = 0x9b228},
	};
	const struct pl_elf_header header = {.type = ET_DYN, .machine = PL_ARCH_ELF_MACHINE, .class = ELFCLASS64,
		.segments = segments, .count = COUNT(segments)};

	for (uint64_t page = 4096; page <= 65536; page *= 4) {
		const uint64_t base = 0xffff80000000 + 3 * page, mask = ~(page - 1);
		const uint64_t data = base + (0x3dfca8 & mask), end = (base + 0x3dfca8 + 0x5c1f0 + page - 1) & mask;
		struct pl_map items[] = {
			/* As data, below; loaded: code, what was relocated, data, zeros. */
			{.start = 0x10000000, .end = 0x10500000, .inode = 7, .flags = PL_MAP_READ},
			{.start = base, .end = (base + 0x3bfa20 + page - 1) & mask, .inode = 7, .flags = PL_MAP_READ | PL_MAP_EXEC},
			{.start = data, .end = data + page, .offset = 0x3cfca8 & mask, .inode = 7, .flags = PL_MAP_READ},
			{.start = data + page, .end = end, .offset = (0x3cfca8 & mask) + page, .inode = 7,
				.flags = PL_MAP_READ | PL_MAP_WRITE},
			{.start = end, .end = end + 0x40000, .flags = PL_MAP_READ | PL_MAP_WRITE},
		};
		const struct pl_maps maps = {.items = items, .count = COUNT(items)};
		uint64_t bias;

		for (size_t i = 1; i < COUNT(items) - 1; i++) {
			bias = 0;
			cr_expect_eq(pl_elf_place(&header, &maps, &items[i], &bias), 0, "pages of %lu: mapping %zu", page, i);
			cr_expect_eq(bias, base, "pages of %lu: mapping %zu", page, i);
		}
		cr_expect_eq(pl_elf_place(&header, &maps, &items[0], &bias), -ENOENT);
	}
}

/* One file loaded, and mapped as plain data below and above: only the loaded one is an object. */
Test(elf, mapped_as_data)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct stat status;
	struct pl_error err = {0};
	struct pl_elf *elf;
	struct pl_maps maps;
	void *low, *high;

	cr_assert_eq(fstat(fd, &status), 0);
	low = mmap((void *)0x10000000, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	high = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	cr_assert_neq(low, MAP_FAILED);
	cr_assert_neq(high, MAP_FAILED);
	elf = open_at(getpid(), (uint64_t)(uintptr_t)&become_nobody);
	expect(elf, "become_nobody", (uint64_t)(uintptr_t)&become_nobody);
	pl_elf_close(elf);
	cr_assert_eq(pl_maps_read(getpid(), &maps), 0);
	cr_assert_eq(pl_elf_open(space_of(getpid()), &maps, pl_maps_find(&maps, (uint64_t)(uintptr_t)low), &elf, &err), -ENOEXEC);
	cr_assert_not_null(strstr(err.text, "not loaded"), "%s", err.text);
	cr_assert_eq(
		pl_elf_open(space_of(getpid()), &maps, pl_maps_find(&maps, (uint64_t)(uintptr_t)high), &elf, NULL), -ENOEXEC);
	pl_maps_free(&maps);
	(void)close(fd);
}

Test(elf, not_elf)
{
	char name[] = "/tmp/pyleak-elf-XXXXXX";
	int fd = mkstemp(name);
	struct pl_error err = {0};
	struct pl_elf *elf;
	struct pl_maps maps;
	void *memory;

	cr_assert_eq(write(fd, "#!/bin/sh\n", 10), 10);
	memory = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
	cr_assert_eq(unlink(name), 0);
	cr_assert_eq(pl_maps_read(getpid(), &maps), 0);
	cr_assert_eq(
		pl_elf_open(space_of(getpid()), &maps, pl_maps_find(&maps, (uint64_t)(uintptr_t)memory), &elf, &err), -ENOEXEC);
	cr_assert_not_null(strstr(err.text, name), "%s", err.text);
	pl_maps_free(&maps);
	(void)close(fd);
}

static void look_around(pid_t pid, const struct pl_maps *maps, const char *name)
{
	struct pl_elf *elf;
	uint64_t address, size;

	if (pl_elf_open(space_of(pid), maps, &maps->items[0], &elf, NULL) < 0)
		return;
	(void)pl_elf_symbol(elf, name, &address, &size);
	(void)pl_elf_symbol_prefix(elf, "landmark_private", &address, &size);
	(void)pl_elf_section(elf, ".landmark", &address, &size);
	pl_elf_close(elf);
}

/* An image in memory whose every byte may lie. */
Test(elf, hostile_memory)
{
	enum { SIZE = 8192 };
	const unsigned char *vdso = (const unsigned char *)getauxval(AT_SYSINFO_EHDR);
	unsigned char *image = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct pl_map map = {.start = (uint64_t)(uintptr_t)image,
		.end = (uint64_t)(uintptr_t)image + SIZE,
		.flags = PL_MAP_READ | PL_MAP_EXEC,
		.path = (char *)"[vdso]"};
	struct pl_maps maps = {&map, 1};
	struct pl_elf *elf;
	uint64_t address;

	if (!vdso)
		cr_skip_test("no vdso");
	memcpy(image, vdso, 4096);
	cr_assert_eq(pl_elf_open(space_of(getpid()), &maps, &map, &elf, NULL), 0);
	/* Its name is the one or (aarch64) the other. */
	cr_assert(pl_elf_symbol(elf, "__vdso_gettimeofday", &address, NULL) == 0 ||
		  pl_elf_symbol(elf, "__kernel_gettimeofday", &address, NULL) == 0);
	cr_assert(address > map.start && address < map.end);
	pl_elf_close(elf);
	srand(784);
	for (int round = 0; round < 20000; round++) {
		for (int i = rand() % 8; i >= 0; i--)
			image[rand() % 1536] = rand() % 2 ? (unsigned char)rand() : 0xff;
		look_around(getpid(), &maps, "__vdso_gettimeofday");
		memcpy(image, vdso, 1536);
	}
}

/* A file whose every byte may lie. */
Test(elf, hostile_file)
{
	char path[64];
	struct stat status;
	struct pl_maps maps;
	struct pl_map map = {.start = 0x400000, .end = 0x500000, .flags = PL_MAP_READ | PL_MAP_EXEC, .path = path};
	unsigned char *original;
	int fd;

	copy_file(ELF_VICTIM_FIXED, path);
	fd = open(path, O_RDWR | O_CLOEXEC);
	cr_assert_eq(fstat(fd, &status), 0);
	original = malloc((size_t)status.st_size);
	cr_assert_eq(pread(fd, original, (size_t)status.st_size, 0), status.st_size);
	map.inode = status.st_ino;
	map.dev_major = major(status.st_dev);
	map.dev_minor = minor(status.st_dev);
	maps = (struct pl_maps){&map, 1};
	srand(784);
	for (int round = 0; round < 2000; round++) {
		/* The headers are at both ends, the tables in between. */
		off_t places[8];
		int count = 1 + rand() % 8;

		for (int i = 0; i < count; i++) {
			unsigned char byte = rand() % 2 ? (unsigned char)rand() : 0xff;

			places[i] = rand() % 3 == 0 ? rand() % 1024
				    : rand() % 2    ? status.st_size - 1 - rand() % 2560
						    : rand() % status.st_size;
			cr_assert_eq(pwrite(fd, &byte, 1, places[i]), 1);
		}
		look_around(getpid(), &maps, "landmark_exported");
		for (int i = 0; i < count; i++)
			cr_assert_eq(pwrite(fd, original + places[i], 1, places[i]), 1);
	}
	free(original);
	(void)close(fd);
	cr_assert_eq(unlink(path), 0);
}
