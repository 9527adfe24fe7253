/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "pyleak/arch.h"

/*
 * bti jc; ldr x16, word; br x16; brk #0. x16 is nobody's where a function begins: the dynamic linker's own stubs use it.
 * Who is stopped before the branch has the word in a register already, and is seen there (pl_registers_point_into()).
 */
void pl_arch_stub(int32_t distance, uint8_t stub[PL_ARCH_STUB_BYTES])
{
	enum { LOAD_AT = 4 };
	const uint32_t offset = (uint32_t)(distance - LOAD_AT) / 4 & 0x7ffff;
	const uint32_t code[] = {0xd50324df, 0x58000010 | offset << 5, 0xd61f0200, 0xd4200000};

	_Static_assert(sizeof(code) == PL_ARCH_STUB_BYTES, "four instructions");
	memcpy(stub, code, sizeof(code));
}
