/* SPDX-License-Identifier: MIT */
/* A call through a hooked allocator keeps what the ABI says a call keeps, and errno. */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include "victim.h"

/* Calls function(a, b) with known values in the callee-saved registers; *ret gets the result.
 * Returns 0, or the number of what came back changed. */
long hooked_call(const void *function, void *a, size_t b, void **ret);

#define LOAD(n, reg) "	movabs $0x" #n "bad5eed0cafe" #n ", %" #reg "\n"
#define COMPARE(n, reg)                                                                                                \
	"	movabs $0x" #n "bad5eed0cafe" #n ", %rcx\n"                                                            \
	"	cmp %rcx, %" #reg "\n"                                                                                 \
	"	mov $0x" #n ", %edx\n"                                                                                 \
	"	jne 1f\n"

__asm__(".text\n"
	".type hooked_call, @function\n"
	"hooked_call:\n"
	"	push %rbx\n	push %rbp\n	push %r12\n	push %r13\n	push %r14\n	push %r15\n"
	"	push %rcx\n"
	"	movabs $0x5ca1ab1e5ca1ab1e, %rax\n"
	"	push %rax\n"
	"	push %rax\n" /* two words of the caller's, and the 16 bytes that the call needs aligned */
	"	mov %rdi, %rax\n"
	"	mov %rsi, %rdi\n"
	"	mov %rdx, %rsi\n" LOAD(12, rbx) LOAD(16, rbp) LOAD(22, r12) LOAD(23, r13) LOAD(24, r14) LOAD(25, r15)
	"	call *%rax\n"
	"	mov 16(%rsp), %rcx\n"
	"	mov %rax, (%rcx)\n"
	"	movabs $0x5ca1ab1e5ca1ab1e, %rcx\n"
	"	mov $0x77, %edx\n"
	"	cmp %rcx, (%rsp)\n"
	"	jne 1f\n"
	"	cmp %rcx, 8(%rsp)\n"
	"	jne 1f\n" COMPARE(12, rbx) COMPARE(16, rbp) COMPARE(22, r12) COMPARE(23, r13) COMPARE(24, r14)
		COMPARE(25, r15)
	"	pushfq\n"
	"	pop %rcx\n"
	"	mov $0x99, %edx\n"
	"	test $0x400, %ecx\n" /* DF is clear at every call and return */
	"	jnz 1f\n"
	"	xor %edx, %edx\n"
	"1:	cld\n"
	"	mov %rdx, %rax\n"
	"	add $24, %rsp\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbp\n	pop %rbx\n"
	"	ret\n"
	".size hooked_call, . - hooked_call\n");

static struct victim_allocator allocator;

static void control_words(uint32_t *mxcsr, uint16_t *x87)
{
	__asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(*mxcsr), "=m"(*x87));
}

static void *call(const char *name, const void *function, void *a, size_t b)
{
	uint32_t mxcsr, mxcsr_after;
	uint16_t x87, x87_after;
	void *result;
	long which;

	control_words(&mxcsr, &x87);
	errno = 4242;
	which = hooked_call(function, a, b, &result);
	if (errno != 4242)
		victim_break("%s changed errno to %d", name, errno);
	control_words(&mxcsr_after, &x87_after);
	if (mxcsr != mxcsr_after || x87 != x87_after)
		victim_break("%s changed a control word", name);
	if (which)
		victim_break("%s changed register %lx", name, which);
	return result;
}

static bool filled(const unsigned char *block, unsigned char value, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (block[i] != value)
			return false;
	return true;
}

static void *body(void *argument)
{
	/* A pause keeps four such threads from taking the whole of a slow machine's tracer. */
	struct timespec pause = {.tv_nsec = 200000};

	for (size_t round = 1;; round++) {
		size_t size = 16 + round * 37 % 2000;
		unsigned char value = (unsigned char)round;
		unsigned char *block = call("malloc", *(void **)&allocator.allocate, (void *)size, 0);

		if (!block || (uintptr_t)block % 16)
			victim_break("malloc gave %p", (void *)block);
		memset(block, value, size);
		block = call("realloc", *(void **)&allocator.reallocate, block, size * 3);
		if (!block || !filled(block, value, size))
			victim_break("realloc lost what was in the block");
		call("free", *(void **)&allocator.release, block, 0);
		victim_round();
		nanosleep(&pause, NULL);
	}
	return NULL;
}

int victim_start(void)
{
	int r = 0;

	if (!victim_allocator(&allocator))
		return ENOSYS;
	for (int i = 0; i < 4 && !r; i++)
		r = victim_thread(body, NULL);
	return r;
}
