/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "decode.h"
#include "pyleak/arch.h"

/*
 * A reference is an adrp, and a load from its page within the next instructions: adrp x16; ldr x17, [x16, #n]; br x17 is
 * a jump of the PLT's kind, and with blr a call. An add that makes the address itself, and a load into a register that
 * is not branched to at once, may be anything.
 */
enum { NEAR = PL_ARCH_REFERENCE_BYTES / 4 - 2 };

static bool branches_to(uint32_t instruction, unsigned int reg)
{
	return (is_br(instruction) || is_blr(instruction)) && field_rn(instruction) == reg;
}

void pl_arch_find_references(const uint8_t *text, size_t size, uint64_t address, uint64_t low, uint64_t high,
	pl_arch_visit_reference visit, void *context)
{
	size_t count = size / 4;

	for (size_t i = 0; i < count; i++) {
		uint32_t instruction = word_at(text, i), page_register;
		uint64_t page;

		if (!is_adrp(instruction))
			continue;
		page = adrp_target(instruction, address + 4 * i);
		if (page > high || page + 4096 * 2 < low)
			continue;
		page_register = field_rd(instruction);
		for (size_t j = i + 1; j < count && j <= i + NEAR; j++) {
			uint32_t user = word_at(text, j);
			uint64_t target;
			bool load = is_ldr_imm64(user) && field_rn(user) == page_register;

			if (load)
				target = page + ldr_imm64_offset(user);
			else if (is_add_imm64(user) && field_rn(user) == page_register)
				target = page + add_imm_value(user);
			else if (is_adrp(user) && field_rd(user) == page_register)
				break;
			else
				continue;
			if (target < low || target > high)
				continue;
			/* Up to three instructions, such as the add of a PLT, may stand between the load and the branch. */
			bool jump = false;

			for (size_t k = j + 1; load && !jump && k < count && k <= j + 3; k++)
				jump = branches_to(word_at(text, k), field_rd(user));
			visit(context, target, jump);
		}
	}
}
