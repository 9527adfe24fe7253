/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pyleak/inline_config.h"

/*
 * Plants the recorder in the process that loads this library (with ctypes): to measure it and to
 * check its figures without a tracer. A test tool: the process is not stopped, so load it while no
 * other thread runs.
 */

int selfload_plant(int frames, unsigned long sample);
void selfload_mode(int mode);
int selfload_remove(void);
const struct pl_inline_config *selfload_config(void);
const char *selfload_error(void);
int selfload_line(int minor, const uint8_t *table, size_t size, int first_line, int offset);

static unsigned char *code;
static struct pl_inline_config *config;
static struct pl_error error;
static uint64_t slots[PL_INLINE_ENTRIES];

const struct pl_inline_config *selfload_config(void)
{
	return config;
}

const char *selfload_error(void)
{
	return error.text;
}

int selfload_line(int minor, const uint8_t *table, size_t size, int first_line, int offset)
{
	return pl_line_lookup(minor, table, size, first_line, offset);
}

/* The TLS slot of the running thread state: the word below the thread pointer that holds it while we
 * hold the GIL, and 0 while we do not. */
static int64_t find_tls(void)
{
	void *(*get)(void) = (void *(*)(void))dlsym(RTLD_DEFAULT, "PyThreadState_Get");
	void *(*save)(void) = (void *(*)(void))dlsym(RTLD_DEFAULT, "PyEval_SaveThread");
	void (*restore)(void *) = (void (*)(void *))dlsym(RTLD_DEFAULT, "PyEval_RestoreThread");
	uint64_t self, thread = (uint64_t)get();

	__asm__("mov %%fs:0, %0" : "=r"(self));
	for (int64_t offset = -8; offset > -4096; offset -= 8) {
		volatile uint64_t *word = (volatile uint64_t *)(self + (uint64_t)offset);
		uint64_t without;

		if (*word != thread)
			continue;
		save();
		without = *word;
		restore((void *)thread);
		if (!without)
			return offset;
	}
	return 0;
}

int selfload_plant(int frames, unsigned long sample)
{
	struct pl_inline_options options = {.frames = (uint32_t)frames, .sample = sample};
	const struct pl_inline_image *image = (const void *)(pl_inline_bytes + PL_INLINE_IMAGE_OFFSET);
	struct pl_space *space;
	struct pl_python *python;
	uint64_t size = (pl_inline_bytes_size + 4095) & ~(uint64_t)4095, data_size = pl_inline_data_size(&options);
	int result;

	result = pl_space_of_process(getpid(), &space);
	if (result == 0)
		result = pl_python_open(space, false, &python, &error);
	if (result < 0)
		return result;
	code = mmap((void *)0x70796c000000, size + data_size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (code == MAP_FAILED)
		return -errno;
	if (madvise(code + size, data_size, MADV_WIPEONFORK) < 0 || madvise(code + size, data_size, MADV_DONTDUMP) < 0)
		return -errno;
	memcpy(code, pl_inline_bytes, pl_inline_bytes_size);
	config = (void *)(code + PL_INLINE_CONFIG_OFFSET);
	pl_inline_configure(&options, python, (uint64_t)(code + size), config);
	if (!config->thread_current) {
		config->thread_tls = find_tls();
		if (!config->thread_tls)
			return -ENOENT;
	}
	for (int i = 0; i < PL_INLINE_ENTRIES; i++) {
		slots[i] = pl_python_slot(python, i / PL_INLINE_FUNCTIONS, i % PL_INLINE_FUNCTIONS);
		config->slot[i] = slots[i];
		config->original[i] = *(uint64_t *)slots[i];
	}
	if (config->layout.interpreter_gil >= 0) {
		uint64_t interpreter = *(uint64_t *)python->interpreters_head;
		config->gil = *(uint64_t *)(interpreter + (uint64_t)config->layout.interpreter_gil);
	}
	if (mprotect(code, size, PROT_READ | PROT_EXEC) < 0)
		return -errno;
	for (int i = PL_INLINE_ENTRIES - 1; i >= 0; i--)
		*(volatile uint64_t *)slots[i] = (uint64_t)code + image->entry[i];
	pl_python_close(python);
	return 0;
}

void selfload_mode(int mode)
{
	((struct pl_inline_control *)config->control)->mode = (uint32_t)mode;
}

/* Puts the words back; the memory stays. */
int selfload_remove(void)
{
	const struct pl_inline_image *image = (const void *)(code + PL_INLINE_IMAGE_OFFSET);
	int ours = 0;

	for (int i = 0; i < PL_INLINE_ENTRIES; i++) {
		if (*(volatile uint64_t *)slots[i] != (uint64_t)code + image->entry[i])
			continue;
		*(volatile uint64_t *)slots[i] = config->original[i];
		ours++;
	}
	selfload_mode(PL_INLINE_OFF);
	return ours;
}
