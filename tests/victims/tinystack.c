/* SPDX-License-Identifier: MIT */
/* A thread whose stack pointer is a few bytes above an unmapped page: nothing may be laid below it. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "victim.h"

#define ROOM 136 /* the red zone and one word */

/* Spins with the stack pointer at `stack`. */
void tinystack_spin(void *stack, unsigned long iterations);

__asm__(".text\n"
	".type tinystack_spin, @function\n"
	"tinystack_spin:\n"
	"	mov %rsp, %rax\n"
	"	mov %rdi, %rsp\n"
	"1:	dec %rsi\n"
	"	jnz 1b\n"
	"	mov %rax, %rsp\n"
	"	ret\n"
	".size tinystack_spin, . - tinystack_spin\n");

static void *body(void *argument)
{
	unsigned char *page = argument, expected[4096];
	sigset_t mask;

	/* No handler could run here; SIGTRAP stays open, as pyleak's breakpoints need it. */
	sigfillset(&mask);
	sigdelset(&mask, SIGTRAP);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	memset(expected, 0xa5, sizeof(expected));
	memset(page, 0xa5, 4096);
	for (;;) {
		tinystack_spin(page + ROOM, 200000);
		if (memcmp(page, expected, sizeof(expected)) != 0)
			victim_break("something was written on a stack that has no room");
		victim_round();
	}
	return NULL;
}

int victim_start(void)
{
	int r = 0;

	for (int i = 0; i < 2 && !r; i++) {
		unsigned char *area = mmap(NULL, 3 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (area == MAP_FAILED || mprotect(area + 4096, 4096, PROT_READ | PROT_WRITE))
			return errno;
		r = victim_thread(body, area + 4096);
	}
	return r;
}
