/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "pyleak/arch.h"

void pl_arch_stub(int32_t distance, uint8_t stub[PL_ARCH_STUB_BYTES])
{
	static const uint8_t endbr64_jmp[] = {0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25};
	/* From the end of the jump. */
	int32_t offset = distance - (int32_t)(sizeof(endbr64_jmp) + sizeof(offset));

	memset(stub, 0xcc, PL_ARCH_STUB_BYTES);
	memcpy(stub, endbr64_jmp, sizeof(endbr64_jmp));
	memcpy(stub + sizeof(endbr64_jmp), &offset, sizeof(offset));
}
