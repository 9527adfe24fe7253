/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "decode.h"
#include "pyleak/arch.h"

#define INSTRUCTIONS_MAX 4
#define DESCRIPTOR_MAX 8192

/* mrs x0, tpidr_el0; sub x0, x0, #n; ret, in glibc and in musl, perhaps behind a landing pad (bti). Any other instruction
 * makes it something that we do not know. */
int pl_arch_thread_self(uint64_t function, pl_arch_read read, void *context, int64_t *ret)
{
	enum { LANDING_PAD = 0xd503241f, PAD_KINDS = 0xc0 };
	uint32_t code[INSTRUCTIONS_MAX];
	size_t at = 0;
	int64_t distance = 0;

	if (read(context, function, code, sizeof(code)) < 0)
		return -EFAULT;
	if ((code[at] & ~(uint32_t)PAD_KINDS) == LANDING_PAD)
		at++;
	if (!is_mrs_tpidr(code[at]))
		return -ENOENT;

	uint32_t pointer = field_rd(code[at++]);

	if (is_sub_imm64(code[at]) && field_rn(code[at]) == pointer && field_rd(code[at]) == 0) {
		distance = -(int64_t)add_imm_value(code[at++]);
		pointer = 0;
	}
	if (pointer || !is_ret(code[at]) || distance < -DESCRIPTOR_MAX)
		return -ENOENT;
	*ret = distance;
	return 0;
}
