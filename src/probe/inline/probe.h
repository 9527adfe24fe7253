/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_PROBE_INLINE_PROBE_H
#define PYLEAK_PROBE_INLINE_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pyleak/inline_abi.h"

/*
 * The recorder, from the inside. It runs in the tracee's threads, in the middle of an allocation:
 * no libc, no TLS, no writable data of its own, no system call, no lock, bounded work. What it knows
 * is pl_config; what it writes are the tables that pl_config names.
 *
 *   entries.c  the hooks: pass through, or record around the original
 *   record.h   one allocation or free: shadow entry and totals          (hot, inlined)
 *   walk.h     the running thread and its frames -> site                (hot, inlined)
 *   trace.c    the same when no cache knows the answer; site table      (cold)
 *   tables.h   rows found by their hash, and spare ones
 *   native.c   the hooks of the C library's allocators
 *   thread.h   which thread state may be looked at
 *   stack.c    copies of the native stack                               (cold)
 *   thread.c   who is reading once Python ends; slots                  (cold)
 *   sample.c   random intervals                                         (cold)
 *   free_lists.c  deallocators of types that park blocks
 *   errand.c   words of the process changed, in a thread that was sent
 *   code.c     code objects: first sight, content, death                (cold)
 *   older.c    frees of blocks from before the probe              (cold)
 *   shadow.c   chunks, large sizes, odd pointers                        (cold)
 */

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define inlined static inline __attribute__((always_inline))
#define cold __attribute__((noinline, cold))

/* Filled by the tracer before anything here runs; constant since. */
extern const struct pl_inline_config pl_config __attribute__((visibility("hidden")));

inlined struct pl_inline_control *control(void) { return (struct pl_inline_control *)pl_config.control; }
inlined struct pl_inline_slot *slot_zero(void) { return (struct pl_inline_slot *)pl_config.slots; }
inlined struct pl_inline_totals *totals_of(u32 site) { return (struct pl_inline_totals *)pl_config.totals + site; }

inlined u64 load64(u64 base, int32_t offset) { return *(const u64 *)(base + (u64)(int64_t)offset); }
inlined u32 load32(u64 base, int32_t offset) { return *(const u32 *)(base + (u64)(int64_t)offset); }
inlined u8 load8(u64 base, int32_t offset) { return *(const u8 *)(base + (u64)(int64_t)offset); }

/*
 * What differs by processor; src/probe/CPU/processor.h has:
 *
 *   thread_pointer()  what thread-local words are reached from, and a name for the thread
 *   thread_self()     pthread_self() on glibc and musl
 *   thread_word()     the word at an offset from the thread pointer
 *   thread_vector()   the dynamic thread vector: where the blocks of modules' thread-local words are
 *   stack_pointer()
 *   FRAME             of the function that says it, whose caller is the program: one word, which
 *                     frame_of_caller() (the caller's frame pointer), frame_return() (where it returns to) and
 *                     frame_caller_sp() understand
 *   add()             to a word of memory, so that the handler of a signal, which may map and unmap, comes before it
 *                     or after it
 *   fence_after_exchange()  what is read behind it is read after an exchange before it was seen by everybody
 *   fence_between_stores()  what is stored behind it is not seen before what was stored before it
 *   system_call()     for the errand alone
 *   copy_bytes(), copy_words()  without a call and without a vector register
 */
#include "processor.h"

u64 pl_state_in_block(bool attached);

/* The state of the running thread if it holds its GIL, else 0; up to 3.11 of whoever holds it. `attached`: this thread
 * does, by who called the hook. */
inlined u64 current_thread(const bool attached)
{
	if (pl_config.thread_current)
		return *(const volatile u64 *)pl_config.thread_current;
	return likely(!pl_config.thread_module) ? thread_word(pl_config.thread_tls) : pl_state_in_block(attached);
}

inlined void count_up(u64 *counter) { (void)__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED); }

/* Multiply and fold: every bit of x reaches every bit of the upper half. */
inlined u64 mix(u64 h, u64 x)
{
	h = (h ^ x) * 0x9e3779b97f4a7c15ull;
	return h ^ h >> 32;
}

/* shadow.c */
u32 *pl_chunk_install(u64 address);
struct pl_inline_odd *pl_odd_find(u64 address);
struct pl_inline_odd *pl_odd_insert(u64 address);
bool pl_spill_write(u64 granule, u64 size);
u64 pl_spill_take(u64 granule);

/* trace.c */
/* What a salt says of how the blocks of its row were taken: see SALT_SAMPLED() of thread.h. */
inlined u32 salt_sampling(u64 salt) { return salt & 1 ? (u32)salt >> 1 & 0x7f : 0; }
/* In what trace() gives for Python's allocators: the tracer wants to see the stack of this one. */
#define PL_TRACE_STACK 0x80000000u
u32 pl_trace_slow(struct pl_inline_slot *slot, u64 frame, u64 salt, u64 native);
u32 pl_trace_nowhere(u64 salt, u64 native);
u32 pl_trace_older(u32 last, u32 size_class);
u32 pl_trace_native(struct pl_inline_slot *slot, u64 salt, u64 native);
int64_t pl_sample_draw(struct pl_inline_slot *slot, u32 sampling);
void pl_walks_forget(struct pl_inline_slot *slot);
struct pl_inline_slot *pl_thread_slot(void);

/* older.c */
u64 pl_older_size(u32 domain, u64 pointer);
void pl_older_freed(u32 last, u64 size, bool plain);

/* thread.c */
bool pl_anyone_is_reading(void);
u64 pl_outer_of_interrupted(u64 before, u64 here);
bool pl_is_above(u64 sp);

/* stack.c */
void pl_stack_copy(const struct pl_inline_slot *slot, u32 site, u64 block, u64 size, u64 caller, u64 frame);

/* code.c */
u32 pl_code_record(u64 code);
void pl_code_died(u64 code);

#endif
