/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ARCH_CPU_H
#define PYLEAK_ARCH_CPU_H

/* x86-64. Included by arch.h alone, which says what these are. */

#include <elf.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/user.h>

typedef struct user_regs_struct pl_registers;

#define PL_ARCH_NAME "x86-64"
#define PL_ARCH_SHADOW_STACK_LINE "x86_Thread_features"
#define PL_ARCH_SHADOW_STACK_WORD "shstk"

enum {
	PL_ARCH_ELF_MACHINE = EM_X86_64,
	PL_ARCH_PRSTATUS_BYTES = sizeof(struct user_regs_struct),
	PL_ARCH_NT_THREAD_POINTER = 0,
	PL_ARCH_NT_STATE = NT_X86_XSTATE,
	PL_ARCH_NT_STATE_ELSE = 0,
	PL_ARCH_NT_SYSTEM_CALL = 0,
	PL_ARCH_RED_ZONE = 128,
	PL_ARCH_GADGETS_IN_VDSO = 0,
	/* SI_KERNEL (arch/x86/kernel/traps.c, do_int3); some C libraries do not say what it is. */
	PL_ARCH_BREAKPOINT_CODE = 0x80,
	/* System V ABI, table of registers. */
	PL_ARCH_DWARF_FRAME_POINTER = 6,
	PL_ARCH_DWARF_STACK_POINTER = 7,
	/* struct rt_sigframe: pretcode, ucontext with the registers from r8 to rip, siginfo. */
	PL_ARCH_SIGFRAME_BYTES = 8 + 40 + 256,
	PL_ARCH_SIGFRAME_FIRST_REGISTER = 48,
	PL_ARCH_SIGFRAME_REGISTERS = 17,
	PL_ARCH_SIGFRAME_INFO = 312,
	PL_ARCH_TELLS_REFERENCES = 1,
	PL_ARCH_SIGNS_RETURNS = 0,
	PL_ARCH_NT_STREAMING = 0,
	/* ff 25 and ff 15 before a distance of four bytes. */
	PL_ARCH_REFERENCE_BYTES = 6,
	PL_ARCH_SELF_IS_POINTER = 1,
	PL_ARCH_THREAD_VECTOR = 8,
	PL_ARCH_STATIC_TLS_BELOW = 1,
	PL_ARCH_MUTEX_BYTES = 40,
};

/* The word holds the address that it has, in any C library. */
static inline bool pl_arch_is_thread(uint64_t pointer, uint64_t word) { return word == pointer; }

static inline uint64_t pl_registers_ip(const pl_registers *regs) { return regs->rip; }
static inline uint64_t pl_registers_sp(const pl_registers *regs) { return regs->rsp; }
static inline uint64_t pl_registers_frame_pointer(const pl_registers *regs) { return regs->rbp; }
static inline uint64_t pl_registers_thread_pointer(const pl_registers *regs) { return regs->fs_base; }
static inline uint64_t pl_registers_second_argument(const pl_registers *regs) { return regs->rsi; }
static inline int64_t pl_registers_result(const pl_registers *regs) { return (int64_t)regs->rax; }
/* Of a system call, in the stop at its entry. */
static inline int64_t pl_registers_syscall(const pl_registers *regs) { return (int64_t)regs->orig_rax; }
static inline uint64_t pl_registers_first_argument(const pl_registers *regs) { return regs->rdi; }
static inline void pl_registers_set_thread_pointer(pl_registers *regs, uint64_t pointer) { regs->fs_base = pointer; }
static inline void pl_registers_set_ip(pl_registers *regs, uint64_t ip) { regs->rip = ip; }
static inline void pl_registers_set_sp(pl_registers *regs, uint64_t sp) { regs->rsp = sp; }

/* -ERESTART_RESTARTBLOCK. */
static inline bool pl_registers_in_restart_block(const pl_registers *regs) { return pl_registers_result(regs) == -516; }

/* int3 is behind the thread when it stops. */
static inline uint64_t pl_registers_breakpoint(const pl_registers *regs) { return regs->rip - 1; }
static inline bool pl_registers_pass_breakpoint(pl_registers *regs) { return false; }

static inline enum pl_relocation pl_arch_relocation(uint32_t type)
{
	switch (type) {
	case R_X86_64_JUMP_SLOT:
		return PL_RELOCATION_JUMP;
	case R_X86_64_GLOB_DAT:
		return PL_RELOCATION_GLOBAL;
	case R_X86_64_64:
		return PL_RELOCATION_DATA;
	default:
		return PL_RELOCATION_OTHER;
	}
}

#endif
