/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ARCH_H
#define PYLEAK_ARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "pyleak/error.h"

/*
 * What differs from one processor to the next: registers, the frame of a signal, instructions.
 * src/arch/x86_64 implements it; another architecture is another folder with the same names, and a header
 * arch_cpu.h with the types, numbers and small functions that are listed here. What runs inside of the tracee has
 * a header of its own for each (src/probe). Nothing else asks which one it is.
 * No ptrace here: the trace room fetches and sets registers and passes them in.
 *
 *   pl_registers                 begins with the PL_ARCH_PRSTATUS_BYTES that PTRACE_GETREGSET NT_PRSTATUS gives; of
 *                                PL_ARCH_NT_THREAD_POINTER (0: none) the one word is behind
 *                                pl_registers_set_thread_pointer()
 *   pl_registers_ip, _sp, _frame_pointer, _result, _set_ip, _set_sp
 *   pl_registers_first_argument, _syscall  of a system call, where it is entered; _second_argument of a function that is
 *                                about to begin
 *   pl_registers_thread_pointer  from which thread-local words are reached
 *   pl_registers_in_restart_block  a wait that the kernel cut short, which only its own restart block can continue
 *
 *   PL_ARCH_NAME                 for people
 *   PL_ARCH_SHADOW_STACK_…       where /proc/PID/status says of a shadow stack, and how; "": nowhere
 *   PL_ARCH_ELF_MACHINE
 *   PL_ARCH_NT_STATE, _ELSE      the note of ptrace that has the vector registers, and the one where there is no such (0: none)
 *   PL_ARCH_NT_STREAMING         the note of vectors in streaming mode (struct user_sve_header first), which a system call ends;
 *                                0: there is no such mode
 *   PL_ARCH_NT_SYSTEM_CALL       the note that says which system call a thread is in, an int that may be set to -1: none
 *                                (0: the registers say it)
 *   PL_ARCH_GADGETS_IN_VDSO      what a remote call needs of the tracee's text may be in "[vdso]"
 *   PL_ARCH_RED_ZONE             bytes below the stack pointer that belong to the thread
 *   PL_ARCH_DWARF_…              numbers of registers in DWARF
 *   PL_ARCH_SELF_IS_POINTER      pthread_self() is the thread pointer: pl_arch_thread_self() has nothing to find
 *   PL_ARCH_THREAD_VECTOR        where from the thread pointer the dynamic thread vector is
 *   PL_ARCH_STATIC_TLS_BELOW     static thread-local words are at negative offsets from the thread pointer, else at positive ones
 *   PL_ARCH_TELLS_REFERENCES     the text shows whether a word is only jumped through; else whatever is not a PLT's may be
 *                                loaded, and kept
 *   PL_ARCH_SIGNS_RETURNS        addresses of return on stacks may have a code in their unused bits (pointer authentication)
 *   PL_ARCH_MUTEX_BYTES          glibc's pthread_mutex_t
 *   pl_arch_is_thread()          whether a thread may have its thread pointer there, by the word at it
 *
 * Breakpoint instructions (pl_arch_breakpoint): SIGTRAP comes with si_code PL_ARCH_BREAKPOINT_CODE,
 *   pl_registers_breakpoint()    is where the instruction is at which the thread stopped, and
 *   pl_registers_pass_breakpoint()  sets the registers behind it; false: they are already
 *
 * The kernel's signal frame, from the stack pointer of the handler on: PL_ARCH_SIGFRAME_BYTES of it are what a
 * candidate is judged by, PL_ARCH_SIGFRAME_REGISTERS words from PL_ARCH_SIGFRAME_FIRST_REGISTER on are registers,
 * the instruction pointer and the stack pointer among them, and siginfo is at PL_ARCH_SIGFRAME_INFO.
 */

/* What the dynamic linker writes into a word. */
enum pl_relocation {
	PL_RELOCATION_OTHER,
	PL_RELOCATION_JUMP,   /* of the PLT: code jumps through it and does nothing else */
	PL_RELOCATION_GLOBAL, /* the address of a symbol, for code */
	PL_RELOCATION_DATA,   /* the same in initialized data, perhaps with an addend */
};

#include "pyleak/arch_cpu.h" /* pl_arch_relocation(): of a type in ELF */

/* Whether any general register (the instruction pointer and the stack pointer too) lies in [start, end). */
bool pl_registers_point_into(const pl_registers *regs, uint64_t start, uint64_t end);
/* Whether the thread runs native 64-bit code. */
bool pl_registers_native(const pl_registers *regs);
/* By its number in DWARF; libunwind has the instruction pointer behind the last of these. */
bool pl_registers_by_number(const pl_registers *regs, int number, uint64_t *ret);

/* Byte patterns that a self-restoring remote call needs from the tracee's own text. */
extern const uint8_t pl_arch_syscall_return[];     /* a system call, then a return */
extern const size_t pl_arch_syscall_return_size;
extern const uint8_t pl_arch_sigreturn[];          /* loads the number of rt_sigreturn, system call */
extern const size_t pl_arch_sigreturn_size;
extern const uint8_t pl_arch_breakpoint[];         /* the breakpoint instruction */
extern const size_t pl_arch_breakpoint_size;

/*
 * A self-restoring call: the bytes to lay below the stack pointer, and the registers that start it.
 * If nobody ever touches the thread again it makes the system call, returns into rt_sigreturn and
 * goes on exactly where `regs` stood (an interrupted system call is restarted, or ends in EINTR
 * where the kernel allows nothing else).
 */
struct pl_remote_frame {
	uint64_t address;  /* where the bytes go in the tracee */
	uint8_t *bytes;    /* [size], the caller frees */
	size_t size;
	pl_registers call; /* the registers to set */
};
int pl_arch_remote_frame(const pl_registers *regs, const void *xstate, size_t xstate_size, uint64_t signal_mask,
			 uint64_t syscall_return_gadget, uint64_t sigreturn_gadget, struct pl_remote_frame *ret);
/* Whether a system call takes something of this state (SVE) that the tracer must put back, as the frame does. */
bool pl_arch_call_loses(const void *xstate, size_t xstate_size);
void pl_arch_remote_frame_syscall(pl_registers *call, long number, const uint64_t arguments[6]);
/* The same frame under a routine, which returns into it: its one argument. */
void pl_arch_remote_frame_routine(pl_registers *call, uint64_t routine, uint64_t argument);

/* The signal frame of the kernel: what a candidate on a stack must look like, and what it restores. *ret_restorer: the
 * code that the handler returns to, which calls rt_sigreturn; 0: the frame does not say. */
bool pl_arch_sigframe_registers(const void *frame, size_t size, pl_registers *ret, uint64_t *ret_restorer);

/*
 * Follows `mov edi, DOMAIN; call PyMem_GetAllocator` through its code, symbolically (capstone), and
 * gives the first data address that the branch for this domain loads: the PyMemAllocatorEx. For
 * 3.6 to 3.11 builds with no symbols. `code` is the text from `address` on, read by `read`.
 */
typedef int (*pl_arch_read)(void *context, uint64_t address, void *buffer, size_t length);
typedef bool (*pl_arch_is_data)(void *context, uint64_t address);
int pl_arch_walk_get_allocator(uint64_t function, int domain, pl_arch_read read, pl_arch_is_data is_data, void *context,
			       uint64_t *ret_table);
/* The data words that a function loads or jumps through (rip-relative or absolute), in order, up to
 * its first `ret`/`jmp`: the cross-check of a table by PyObject_Calloc and its like. */
int pl_arch_data_references(uint64_t function, pl_arch_read read, pl_arch_is_data is_data, void *context,
			    uint64_t *references, size_t max, size_t *ret_count);
/* Instructions in `text`, which lies at `address`, that refer to addresses from low to high, inclusive: jumps and
 * calls through the word there, and all others. What merely looks like one is visited too. Pieces of a text must
 * overlap by PL_ARCH_REFERENCE_BYTES. Where not PL_ARCH_TELLS_REFERENCES, none is visited. */
typedef void (*pl_arch_visit_reference)(void *context, uint64_t target, bool jump);
void pl_arch_find_references(const uint8_t *text, size_t size, uint64_t address, uint64_t low, uint64_t high,
			     pl_arch_visit_reference visit, void *context);
/*
 * Whether a function that calls through `word`, unless that is empty, loads it only once, into a
 * register: so that the word may be emptied at any moment. It is addressed by itself or from `base`.
 */
bool pl_arch_loads_once(uint64_t function, pl_arch_read read, void *context, uint64_t word, uint64_t base);
/*
 * How a function that returns a thread-local word reaches it: at a fixed offset from the thread pointer; through the
 * pair {module, offset} that __tls_get_addr() takes; or through a descriptor {function, argument}, whose argument is the
 * offset from the thread pointer, or the address of such a pair. -ENOENT: in none of these ways.
 */
struct pl_thread_local {
	int64_t offset;      /* from the thread pointer, or from where the pair or the descriptor leads to */
	uint64_t pair;       /* address of the two words, or 0 */
	uint64_t descriptor; /* the same */
};
int pl_arch_thread_local(uint64_t function, pl_arch_read read, void *context, struct pl_thread_local *ret);
/* What pthread_self() gives, from the thread pointer on, by the code of pthread_self(). -ENOENT: it is not understood. */
int pl_arch_thread_self(uint64_t function, pl_arch_read read, void *context, int64_t *ret);
/* For `mov disp(%rip),%rax; ret` (PyInterpreterState_Head of 3.6): the address loaded. -ENOENT. */
int pl_arch_loaded_word(uint64_t function, pl_arch_read read, void *context, uint64_t *ret_address);

/* A piece of code that jumps through the word `distance` bytes from its beginning, changes nothing else, and may be
 * jumped to by anything; filled up with what traps. */
enum { PL_ARCH_STUB_BYTES = 16 };
void pl_arch_stub(int32_t distance, uint8_t stub[PL_ARCH_STUB_BYTES]);

#endif
