/* SPDX-License-Identifier: MIT */
/* An extension that calls the allocator through each kind of word: one that the PLT jumps through, one that is loaded as a
 * value, a pointer in data that the linker has filled, one that the program has stored, and one that is compared. And what
 * keeps a pointer: an object of the heap; a register that a deeper frame has pushed. Driven by words.py. */
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "victim.h"

enum { PLT, LOADED, DATA, STORED, KEPT, WAYS };

VICTIM_API void *words_take(int way, size_t size);
VICTIM_API void words_drop(int way, void *block);
VICTIM_API void words_keep(void);
VICTIM_API int words_differ(void);
VICTIM_API int words_hold(int blocks);
VICTIM_API int words_release(void);

typedef void *(*taking)(size_t size);
typedef void (*dropping)(void *block);

struct table {
	taking take;
	dropping drop;
};

/* As curl and hiredis have it: in .data, by relocations of 64 bits. */
static volatile struct table data = {malloc, free};
/* .bss, filled when the library is loaded, as numba does. */
static struct table stored;
static struct table *kept; /* on the heap, since words_keep() */

__attribute__((constructor)) static void start(void)
{
	/* Not from a word of this library: only what it holds says what it is. */
	*(void **)&stored.take = dlsym(RTLD_DEFAULT, "malloc");
	*(void **)&stored.drop = dlsym(RTLD_DEFAULT, "free");
}

/* The address of a function that is loaded from the GOT: the compiler must not know what it is, or it calls it. */
static taking loaded_take(void)
{
	taking take = malloc;

	__asm__ volatile("" : "+r"(take));
	return take;
}

static dropping loaded_drop(void)
{
	dropping drop = free;

	__asm__ volatile("" : "+r"(drop));
	return drop;
}

void *words_take(int way, size_t size)
{
	switch (way) {
	case PLT:
		return calloc(1, size);
	case LOADED:
		return loaded_take()(size);
	case DATA:
		return data.take(size);
	case STORED:
		return stored.take(size);
	default:
		return kept ? kept->take(size) : NULL;
	}
}

void words_drop(int way, void *block)
{
	switch (way) {
	case LOADED:
		loaded_drop()(block);
		return;
	case DATA:
		data.drop(block);
		return;
	case STORED:
		stored.drop(block);
		return;
	case KEPT:
		kept->drop(block);
		return;
	default:
		/* No word of free() but those above; of glibc this frees. */
		(void)!realloc(block, 0);
	}
}

/* In an object of the heap, what the words hold now. */
void words_keep(void)
{
	if (!kept)
		kept = calloc(1, sizeof(*kept));
	*kept = (struct table){loaded_take(), loaded_drop()};
}

/* As MKL does with i_free: is it the C library's own? Anything but 0 changes what such a library does. */
int words_differ(void)
{
	return (data.drop != loaded_drop()) | (data.take != loaded_take()) << 1 | (stored.drop != data.drop) << 2;
}

/* -- a pointer in a callee-saved register, which a deeper frame has pushed: LLVM loads free() once for many calls ----- */

static sem_t begun, go_on;
static pthread_t holder;
static void **held;
static int held_count;

/* `deep` pushes what the register holds, and returns much later. */
void words_hold_in_register(void **blocks, long count, void (*deep)(void));
__asm__(".text\n"
	".type words_hold_in_register, @function\n"
	"words_hold_in_register:\n"
	"	push %rbx\n	push %r12\n	push %r13\n	push %r14\n	push %r14\n"
	"	mov %rdi, %rbx\n"
	"	mov %rsi, %r12\n"
	"	mov free@GOTPCREL(%rip), %r13\n"
	"	call *%rdx\n"
	"1:	test %r12, %r12\n"
	"	jz 2f\n"
	"	mov (%rbx), %rdi\n"
	"	call *%r13\n"
	"	add $8, %rbx\n"
	"	dec %r12\n"
	"	jmp 1b\n"
	"2:	pop %r14\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbx\n"
	"	ret\n"
	".size words_hold_in_register, . - words_hold_in_register\n");

__attribute__((noinline)) static void deep(void)
{
	/* Pushed here, and something else is in the register while this waits. */
	__asm__ volatile("xor %%r13d, %%r13d" ::: "r13", "memory");
	(void)sem_post(&begun);
	while (sem_wait(&go_on) != 0)
		continue;
	__asm__ volatile("xor %%r13d, %%r13d" ::: "r13", "memory");
}

static void *hold(void *argument)
{
	words_hold_in_register(held, held_count, deep);
	return argument;
}

int words_hold(int blocks)
{
	held = calloc((size_t)blocks, sizeof(*held));
	held_count = blocks;
	for (int i = 0; held && i < blocks; i++)
		held[i] = loaded_take()(3000);
	(void)sem_init(&begun, 0, 0);
	(void)sem_init(&go_on, 0, 0);
	if (!held || pthread_create(&holder, NULL, hold, NULL) != 0)
		return -1;
	while (sem_wait(&begun) != 0)
		continue;
	return 0;
}

int words_release(void)
{
	(void)sem_post(&go_on);
	(void)pthread_join(holder, NULL);
	free(held);
	return 0;
}
