/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "decode.h"
#include "pyleak/arch.h"

#define INSTRUCTIONS_MAX 24

/*
 * The ways in which the ABI lets code reach a thread-local word of its own process:
 *   local exec    mrs x0, tpidr_el0; add x0, x0, #hi, lsl #12; add x0, x0, #lo; ldr x0, [x0, #n]
 *   initial exec  mrs x1, tpidr_el0; adrp x0; ldr x0, [x0, #n]; ldr x0, [x1, x0]
 *   descriptors   adrp x0; ldr x1, [x0, #n]; add x0, x0, #n; blr x1; mrs x1, tpidr_el0; ldr x0, [x1, x0]
 * which are followed by what each register holds.
 */
enum kind { NOTHING, POINTER /* + bits: from the thread pointer */, PAGE, OFFSET, ANSWER /* of a descriptor */ };

struct held {
	enum kind kind;
	int64_t bits;
};

int pl_arch_thread_local(uint64_t function, pl_arch_read read, void *context, struct pl_thread_local *ret)
{
	struct held registers[32] = {{NOTHING, 0}};
	uint32_t code[INSTRUCTIONS_MAX];
	uint64_t descriptor = 0;

	if (read(context, function, code, sizeof(code)) < 0)
		return -EFAULT;
	for (size_t at = 0; at < INSTRUCTIONS_MAX; at++) {
		uint32_t i = code[at];
		struct held *d = &registers[field_rd(i)], n = registers[field_rn(i)], m = registers[field_rm(i)];

		if (is_ret(i))
			return -ENOENT;
		if (is_mrs_tpidr(i)) {
			*d = (struct held){POINTER, 0};
		} else if (is_adrp(i)) {
			*d = (struct held){PAGE, (int64_t)adrp_target(i, function + 4 * at)};
		} else if (is_add_imm64(i) && (n.kind == POINTER || n.kind == PAGE)) {
			*d = (struct held){n.kind, n.bits + (int64_t)add_imm_value(i)};
		} else if (is_add_reg(i) && ((n.kind == POINTER && m.kind == OFFSET) || (m.kind == POINTER && n.kind == OFFSET))) {
			*d = (struct held){POINTER, n.bits + m.bits};
		} else if (is_add_reg(i) && ((n.kind == POINTER && m.kind == ANSWER) || (m.kind == POINTER && n.kind == ANSWER))) {
			*d = (struct held){ANSWER, n.bits + m.bits};
		} else if (is_blr(i)) {
			/* x0 is the descriptor: all but x0 and x1 are kept (the ABI of descriptors). */
			descriptor = registers[0].kind == PAGE ? (uint64_t)registers[0].bits : 0;
			registers[0] = descriptor ? (struct held){ANSWER, 0} : (struct held){NOTHING, 0};
			registers[1].kind = NOTHING;
		} else if (is_ldr_imm64(i) && n.kind == PAGE) {
			int64_t offset;

			if (read(context, (uint64_t)n.bits + ldr_imm64_offset(i), &offset, sizeof(offset)) < 0)
				return -ENOENT;
			*d = (struct held){OFFSET, offset};
		} else if (is_ldr_imm64(i) && n.kind == POINTER) {
			*ret = (struct pl_thread_local){.offset = n.bits + (int64_t)ldr_imm64_offset(i)};
			return 0;
		} else if (is_ldr_imm64(i) && n.kind == ANSWER && descriptor) {
			*ret = (struct pl_thread_local){
				.offset = n.bits + (int64_t)ldr_imm64_offset(i), .descriptor = descriptor};
			return 0;
		} else if (is_ldr_reg64(i) && n.kind == POINTER && (m.kind == OFFSET || m.kind == ANSWER) && !(i >> 12 & 1)) {
			*ret = m.kind == OFFSET ? (struct pl_thread_local){.offset = n.bits + m.bits} :
						  (struct pl_thread_local){.offset = n.bits, .descriptor = descriptor};
			return m.kind == ANSWER && !descriptor ? -ENOENT : 0;
		} else if (is_b(i) || is_bl(i) || is_br(i)) {
			return -ENOENT;
		} else {
			d->kind = NOTHING;
		}
	}
	return -ENOENT;
}
