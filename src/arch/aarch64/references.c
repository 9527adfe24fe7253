/* SPDX-License-Identifier: MIT */
#include "pyleak/arch.h"

/*
 * None is shown (PL_ARCH_TELLS_REFERENCES). A word's page is made by an adrp, which may serve loads at any distance, also
 * after a compiler has moved it out of a loop; and a register that is branched to may be one that survives the call, or
 * have been copied in between.
 */
void pl_arch_find_references(const uint8_t *text, size_t size, uint64_t address, uint64_t low, uint64_t high,
	pl_arch_visit_reference visit, void *context)
{
	(void)text, (void)size, (void)address, (void)low, (void)high, (void)visit, (void)context;
}
