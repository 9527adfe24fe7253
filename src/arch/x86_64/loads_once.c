/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "pyleak/arch.h"

/* Up to the jump or the call through the register, the displacement that leads to the word is looked
 * for at every byte: what is no displacement but looks like it makes the answer no, never yes. */
bool pl_arch_loads_once(uint64_t function, pl_arch_read read, void *context, uint64_t word, uint64_t base)
{
	enum { SPAN = 128, INDIRECT = 0xff, CALL_REGISTER = 0xd0, JUMP_REGISTER = 0xe0, LOAD = 0x8b };
	uint8_t code[SPAN];
	int loads = 0;

	if (read(context, function, code, sizeof(code)) < 0)
		return false;
	for (size_t i = 0; i + 8 < sizeof(code); i++) {
		int32_t displacement;

		if (code[i] == INDIRECT && ((code[i + 1] & 0xf8) == CALL_REGISTER || (code[i + 1] & 0xf8) == JUMP_REGISTER))
			return loads == 1;
		memcpy(&displacement, code + i, sizeof(displacement));
		if (base + (uint64_t)displacement != word && function + i + 4 + (uint64_t)displacement != word &&
				function + i + 5 + (uint64_t)displacement != word)
			continue;
		/* mov disp(%…),%r64: a comparison in place would be followed by another load. */
		if (i < 2 || code[i - 2] != LOAD)
			return false;
		loads++;
	}
	return false;
}
