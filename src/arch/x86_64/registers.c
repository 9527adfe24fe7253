/* SPDX-License-Identifier: MIT */
#include "pyleak/arch.h"

/* `syscall; ret` and `mov $15,%rax; syscall`: both stand in glibc and in musl (the latter is what
 * sa_restorer points to, __restore_rt), and in whatever is linked with them statically. */
const uint8_t pl_arch_syscall_return[] = {0x0f, 0x05, 0xc3};
const size_t pl_arch_syscall_return_size = sizeof(pl_arch_syscall_return);
const uint8_t pl_arch_sigreturn[] = {0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05};
const size_t pl_arch_sigreturn_size = sizeof(pl_arch_sigreturn);

const uint8_t pl_arch_breakpoint[] = {0xcc};
const size_t pl_arch_breakpoint_size = sizeof(pl_arch_breakpoint);

bool pl_registers_point_into(const pl_registers *regs, uint64_t start, uint64_t end)
{
	const uint64_t values[] = {regs->rip, regs->rsp, regs->rax, regs->rbx, regs->rcx, regs->rdx,
		regs->rsi, regs->rdi, regs->rbp, regs->r8, regs->r9, regs->r10, regs->r11, regs->r12,
		regs->r13, regs->r14, regs->r15};

	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		if (values[i] >= start && values[i] < end)
			return true;
	return false;
}

bool pl_registers_native(const pl_registers *regs)
{
	return regs->cs == 0x33; /* __USER_CS; 0x23 is 32-bit code */
}

bool pl_registers_by_number(const pl_registers *regs, int number, uint64_t *ret)
{
	const uint64_t values[] = {regs->rax, regs->rdx, regs->rcx, regs->rbx, regs->rsi, regs->rdi, regs->rbp, regs->rsp,
		regs->r8, regs->r9, regs->r10, regs->r11, regs->r12, regs->r13, regs->r14, regs->r15, regs->rip};

	if (number < 0 || (size_t)number >= sizeof(values) / sizeof(values[0]))
		return false;
	*ret = values[number];
	return true;
}
