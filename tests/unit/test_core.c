/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pyleak/arch.h"
#include "pyleak/core.h"

/* Core files of kernels that are not this one. */

#define BASE UINT64_C(0xffff80000000)
enum { FILE_BYTES = 0x2345, HEADERS = sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr), LARGE = 65536 };

static size_t put_note(uint8_t *at, uint32_t type, const void *bytes, size_t size)
{
	const Elf64_Nhdr header = {.n_namesz = 5, .n_descsz = (Elf64_Word)size, .n_type = type};

	memcpy(at, &header, sizeof(header));
	memcpy(at + sizeof(header), "CORE\0\0\0", 8);
	memcpy(at + sizeof(header) + 8, bytes, size);
	return (sizeof(header) + 8 + size + 3) & ~(size_t)3;
}

/* One that shows a file over two large pages, none of whose bytes are in the core, as for code; and has a page of its own. */
static void write_core(const char *path, const char *shown, uint64_t page_size)
{
	uint8_t bytes[4096 + LARGE] = {0};
	const uint64_t auxiliary[] = {AT_PAGESZ, page_size, AT_NULL, 0};
	uint64_t files[64] = {1, page_size, BASE, BASE + 2 * (uint64_t)LARGE, 0};
	Elf64_Ehdr header = {.e_type = ET_CORE, .e_machine = PL_ARCH_ELF_MACHINE, .e_version = EV_CURRENT,
		.e_phoff = sizeof(header), .e_ehsize = sizeof(header), .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 2};
	Elf64_Phdr segments[] = {
		{.p_type = PT_NOTE, .p_offset = HEADERS},
		{.p_type = PT_LOAD, .p_flags = PF_R | PF_W, .p_offset = 4096, .p_vaddr = BASE + 4 * (uint64_t)LARGE, .p_filesz = LARGE,
			.p_memsz = LARGE},
	};
	size_t size = put_note(bytes + HEADERS, NT_AUXV, auxiliary, sizeof(auxiliary));
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	memcpy(header.e_ident, ELFMAG, SELFMAG);
	header.e_ident[EI_CLASS] = ELFCLASS64;
	header.e_ident[EI_DATA] = ELFDATA2LSB;
	header.e_ident[EI_VERSION] = EV_CURRENT;
	(void)strcpy((char *)&files[5], shown);
	size += put_note(bytes + HEADERS + size, NT_FILE, files, 40 + strlen(shown) + 1);
	segments[0].p_filesz = size;
	memcpy(bytes, &header, sizeof(header));
	memcpy(bytes + sizeof(header), segments, sizeof(segments));
	cr_assert_eq(write(fd, bytes, sizeof(bytes)), (ssize_t)sizeof(bytes));
	(void)close(fd);
}

/* Behind the end of a file zeros are mapped up to the end of a page: of the kernel that the process had. */
Test(core, last_page_of_a_file)
{
	char folder[] = "/tmp/pyleak-core-XXXXXX", shown[64], path[64];
	uint8_t bytes[FILE_BYTES], page[4096], there[2 * LARGE / 4096];
	int fd;

	cr_assert_not_null(mkdtemp(folder));
	(void)snprintf(shown, sizeof(shown), "%s/shown", folder);
	(void)snprintf(path, sizeof(path), "%s/core", folder);
	memset(bytes, 0x5a, sizeof(bytes));
	fd = open(shown, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	cr_assert_eq(write(fd, bytes, sizeof(bytes)), FILE_BYTES);
	(void)close(fd);
	for (uint64_t page_size = 4096; page_size <= LARGE; page_size *= 4) {
		const uint64_t end = BASE + ((FILE_BYTES + page_size - 1) & ~(page_size - 1));
		struct pl_space *space;
		struct pl_error err = {0};

		write_core(path, shown, page_size);
		cr_assert_eq(pl_space_of_core(path, NULL, &space, &err), 0, "%s", err.text);
		cr_assert_eq(pl_space_read(space, BASE + 0x2000, page, sizeof(page)), 0);
		for (size_t i = 0; i < sizeof(page); i++)
			cr_assert_eq(page[i], i < 0x345 ? 0x5a : 0, "%#zx", 0x2000 + i);
		for (uint64_t at = BASE + 0x2000; at < BASE + 2 * (uint64_t)LARGE; at += 4096)
			cr_expect_eq(pl_space_read_some(space, at, page, sizeof(page)), at < end ? 4096 : 0,
				"pages of %lu: %#lx", page_size, at - BASE);
		cr_assert_eq(pl_space_pages(space, (struct pl_range){BASE, BASE + 2 * (uint64_t)LARGE}, there), 0);
		for (size_t i = 0; i < sizeof(there); i++)
			cr_expect_eq(there[i], BASE + i * 4096 < end, "pages of %lu: page %zu", page_size, i);
		pl_space_close(space);
	}
	(void)unlink(path);
	(void)unlink(shown);
	(void)rmdir(folder);
}
