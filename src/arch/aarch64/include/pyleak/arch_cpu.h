/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ARCH_CPU_H
#define PYLEAK_ARCH_CPU_H

/* AArch64. Included by arch.h alone, which says what these are. */

#include <elf.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/user.h>

#ifndef NT_ARM_TLS
#define NT_ARM_TLS 0x401
#endif
#ifndef NT_ARM_SYSTEM_CALL
#define NT_ARM_SYSTEM_CALL 0x404
#endif
#ifndef NT_ARM_SSVE
#define NT_ARM_SSVE 0x40b
#endif
#ifndef NT_ARM_SVE
#define NT_ARM_SVE 0x405
#endif

/* What NT_PRSTATUS gives, and behind it the thread pointer, which is a note of its own. */
typedef struct {
	struct user_regs_struct set; /* x0 to x30, sp, pc, pstate */
	uint64_t thread_pointer;
} pl_registers;

#define PL_ARCH_NAME "aarch64"
/* /proc says nothing of a guarded control stack (GCS). */
#define PL_ARCH_SHADOW_STACK_LINE ""
#define PL_ARCH_SHADOW_STACK_WORD ""

enum {
	PL_ARCH_ELF_MACHINE = EM_AARCH64,
	PL_ARCH_PRSTATUS_BYTES = sizeof(struct user_regs_struct),
	PL_ARCH_NT_THREAD_POINTER = NT_ARM_TLS,
	PL_ARCH_NT_STATE = NT_ARM_SVE,
	PL_ARCH_NT_STATE_ELSE = NT_PRFPREG,
	PL_ARCH_NT_SYSTEM_CALL = NT_ARM_SYSTEM_CALL,
	PL_ARCH_RED_ZONE = 0,
	PL_ARCH_GADGETS_IN_VDSO = 1,
	PL_ARCH_BREAKPOINT_CODE = TRAP_BRKPT,
	/* DWARF for the Arm 64-bit architecture. */
	PL_ARCH_DWARF_FRAME_POINTER = 29,
	PL_ARCH_DWARF_STACK_POINTER = 31,
	/* struct rt_sigframe (arch/arm64/kernel/signal.c): siginfo, ucontext with the registers from x0 to pc. */
	PL_ARCH_SIGFRAME_BYTES = 592 + 8,
	PL_ARCH_SIGFRAME_FIRST_REGISTER = 312,
	PL_ARCH_SIGFRAME_REGISTERS = 33,
	PL_ARCH_SIGFRAME_INFO = 0,
	PL_ARCH_TELLS_REFERENCES = 0,
	PL_ARCH_SIGNS_RETURNS = 1,
	PL_ARCH_NT_STREAMING = NT_ARM_SSVE,
	PL_ARCH_REFERENCE_BYTES = 4,
	PL_ARCH_SELF_IS_POINTER = 0,
	PL_ARCH_THREAD_VECTOR = 0,
	PL_ARCH_STATIC_TLS_BELOW = 0,
	PL_ARCH_MUTEX_BYTES = 48,
};

/* The word is the address of the dynamic thread vector (glibc). */
static inline bool pl_arch_is_thread(uint64_t pointer, uint64_t word) { return word && !(word & 7); }

static inline uint64_t pl_registers_ip(const pl_registers *regs) { return regs->set.pc; }
static inline uint64_t pl_registers_sp(const pl_registers *regs) { return regs->set.sp; }
static inline uint64_t pl_registers_frame_pointer(const pl_registers *regs) { return regs->set.regs[29]; }
static inline uint64_t pl_registers_thread_pointer(const pl_registers *regs) { return regs->thread_pointer; }
static inline uint64_t pl_registers_second_argument(const pl_registers *regs) { return regs->set.regs[1]; }
static inline int64_t pl_registers_result(const pl_registers *regs) { return (int64_t)regs->set.regs[0]; }
/* Of a system call, in the stop at its entry. */
static inline int64_t pl_registers_syscall(const pl_registers *regs) { return (int64_t)regs->set.regs[8]; }
static inline uint64_t pl_registers_first_argument(const pl_registers *regs) { return regs->set.regs[0]; }
static inline void pl_registers_set_thread_pointer(pl_registers *regs, uint64_t pointer)
{
	regs->thread_pointer = pointer;
}
static inline void pl_registers_set_ip(pl_registers *regs, uint64_t ip) { regs->set.pc = ip; }
static inline void pl_registers_set_sp(pl_registers *regs, uint64_t sp) { regs->set.sp = sp; }

/* The kernel has rolled the call back before the tracer sees it (arch/arm64/kernel/signal.c, do_signal()). */
static inline bool pl_registers_in_restart_block(const pl_registers *regs) { return false; }

/* brk: the thread stands on it. */
static inline uint64_t pl_registers_breakpoint(const pl_registers *regs) { return regs->set.pc; }
static inline bool pl_registers_pass_breakpoint(pl_registers *regs)
{
	regs->set.pc += 4;
	return true;
}

static inline enum pl_relocation pl_arch_relocation(uint32_t type)
{
	switch (type) {
	case R_AARCH64_JUMP_SLOT:
		return PL_RELOCATION_JUMP;
	case R_AARCH64_GLOB_DAT:
		return PL_RELOCATION_GLOBAL;
	case R_AARCH64_ABS64:
		return PL_RELOCATION_DATA;
	default:
		return PL_RELOCATION_OTHER;
	}
}

#endif
