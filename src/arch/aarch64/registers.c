/* SPDX-License-Identifier: MIT */
#include "pyleak/arch.h"

/* `svc #0; ret` stands in glibc and in musl; `mov x8, #139; svc #0`, which calls rt_sigreturn, in the vDSO only: glibc
 * has no restorer here. */
const uint8_t pl_arch_syscall_return[] = {0x01, 0x00, 0x00, 0xd4, 0xc0, 0x03, 0x5f, 0xd6};
const size_t pl_arch_syscall_return_size = sizeof(pl_arch_syscall_return);
const uint8_t pl_arch_sigreturn[] = {0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4};
const size_t pl_arch_sigreturn_size = sizeof(pl_arch_sigreturn);
/* brk #0 */
const uint8_t pl_arch_breakpoint[] = {0x00, 0x00, 0x20, 0xd4};
const size_t pl_arch_breakpoint_size = sizeof(pl_arch_breakpoint);

bool pl_registers_point_into(const pl_registers *regs, uint64_t start, uint64_t end)
{
	for (int i = 0; i < 31; i++)
		if (regs->set.regs[i] >= start && regs->set.regs[i] < end)
			return true;
	return (regs->set.sp >= start && regs->set.sp < end) || (regs->set.pc >= start && regs->set.pc < end);
}

bool pl_registers_native(const pl_registers *regs)
{
	return !(regs->set.pstate & 0x10); /* PSR_MODE32_BIT */
}

bool pl_registers_by_number(const pl_registers *regs, int number, uint64_t *ret)
{
	if (number < 0 || number > 32)
		return false;
	*ret = number < 31 ? regs->set.regs[number] : number == 31 ? regs->set.sp : regs->set.pc;
	return true;
}
