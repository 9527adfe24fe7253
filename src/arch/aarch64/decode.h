/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ARCH_AARCH64_DECODE_H
#define PYLEAK_ARCH_AARCH64_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Instructions of A64, as far as pyleak reads them: four bytes each (Arm ARM, C4.1). */

static inline uint32_t word_at(const void *text, size_t index)
{
	uint32_t word;

	memcpy(&word, (const uint8_t *)text + 4 * index, sizeof(word));
	return word;
}

static inline uint32_t field_rd(uint32_t i) { return i & 31; } /* Rt too */
static inline uint32_t field_rn(uint32_t i) { return i >> 5 & 31; }
static inline uint32_t field_rm(uint32_t i) { return i >> 16 & 31; }
static inline uint32_t field_rt2(uint32_t i) { return i >> 10 & 31; }
static inline int64_t signed_bits(uint64_t value, unsigned int bits)
{
	return (int64_t)(value << (64 - bits)) >> (64 - bits);
}

static inline bool is_adrp(uint32_t i) { return (i & 0x9f000000) == 0x90000000; }
static inline bool is_adr(uint32_t i) { return (i & 0x9f000000) == 0x10000000; }
static inline int64_t adr_distance(uint32_t i)
{
	return signed_bits((uint64_t)(i >> 5 & 0x7ffff) << 2 | (i >> 29 & 3), 21);
}
static inline uint64_t adrp_target(uint32_t i, uint64_t address)
{
	return (address & ~UINT64_C(4095)) + ((uint64_t)adr_distance(i) << 12);
}

static inline bool is_add_imm64(uint32_t i) { return (i & 0xff800000) == 0x91000000; }
static inline bool is_sub_imm64(uint32_t i) { return (i & 0xff800000) == 0xd1000000; }
static inline bool is_add_imm(uint32_t i) { return (i & 0x7f800000) == 0x11000000; }
static inline bool is_sub_imm(uint32_t i) { return (i & 0x7f800000) == 0x51000000; }
static inline bool is_subs_imm(uint32_t i) { return (i & 0x7f800000) == 0x71000000; }
static inline bool is_subs_reg(uint32_t i) { return (i & 0x7fe0fc00) == 0x6b000000; } /* not shifted */
static inline bool is_add_reg(uint32_t i) { return (i & 0xffe0fc00) == 0x8b000000; }
static inline bool is_mov_reg(uint32_t i) { return (i & 0x7fe0ffe0) == 0x2a0003e0; }
static inline uint64_t add_imm_value(uint32_t i) { return (uint64_t)(i >> 10 & 0xfff) << (i & 1 << 22 ? 12 : 0); }

static inline bool is_movz(uint32_t i) { return (i & 0x7f800000) == 0x52800000; }
static inline bool is_movn(uint32_t i) { return (i & 0x7f800000) == 0x12800000; }
static inline bool is_movk(uint32_t i) { return (i & 0x7f800000) == 0x72800000; }
static inline unsigned int mov_shift(uint32_t i) { return 16 * (i >> 21 & 3); }
static inline uint64_t mov_value(uint32_t i) { return (uint64_t)(i >> 5 & 0xffff) << mov_shift(i); }

/* ldr x, [n, #offset] */
static inline bool is_ldr_imm64(uint32_t i) { return (i & 0xffc00000) == 0xf9400000; }
static inline bool is_ldr_imm32(uint32_t i) { return (i & 0xffc00000) == 0xb9400000; }
static inline bool is_ldr_imm128(uint32_t i) { return (i & 0xffc00000) == 0x3dc00000; }
static inline uint64_t ldr_imm64_offset(uint32_t i) { return (uint64_t)(i >> 10 & 0xfff) * 8; }
static inline uint64_t ldr_imm32_offset(uint32_t i) { return (uint64_t)(i >> 10 & 0xfff) * 4; }
static inline uint64_t ldr_imm128_offset(uint32_t i) { return (uint64_t)(i >> 10 & 0xfff) * 16; }
/* ldr x, [n, m] and [n, m, lsl #3] */
static inline bool is_ldr_reg64(uint32_t i) { return (i & 0xffe0ec00) == 0xf8606800; }
/* ldp x, y, [n, #offset], in all three ways of indexing but for those that write n back */
static inline bool is_ldp64(uint32_t i) { return (i & 0xffc00000) == 0xa9400000; }
static inline bool is_ldp128(uint32_t i) { return (i & 0xffc00000) == 0xad400000; }
static inline int64_t ldp_offset(uint32_t i, unsigned int size) { return signed_bits(i >> 15 & 0x7f, 7) * (int64_t)size; }
/* Loads and stores of any kind. */
static inline bool is_memory(uint32_t i) { return (i & 0x0a000000) == 0x08000000; }

static inline bool is_b(uint32_t i) { return (i & 0xfc000000) == 0x14000000; }
static inline bool is_bl(uint32_t i) { return (i & 0xfc000000) == 0x94000000; }
static inline int64_t b_distance(uint32_t i) { return signed_bits(i & 0x3ffffff, 26) * 4; }
static inline bool is_b_cond(uint32_t i) { return (i & 0xff000010) == 0x54000000; }
static inline bool is_cbz(uint32_t i) { return (i & 0x7e000000) == 0x34000000; } /* and cbnz: bit 24 */
static inline int64_t b_cond_distance(uint32_t i) { return signed_bits(i >> 5 & 0x7ffff, 19) * 4; }
static inline bool is_tbz(uint32_t i) { return (i & 0x7e000000) == 0x36000000; } /* and tbnz: bit 24 */
static inline int64_t tbz_distance(uint32_t i) { return signed_bits(i >> 5 & 0x3fff, 14) * 4; }
static inline unsigned int tbz_bit(uint32_t i) { return (i >> 31) << 5 | (i >> 19 & 31); }
static inline bool is_br(uint32_t i) { return (i & 0xfffffc1f) == 0xd61f0000; }
static inline bool is_blr(uint32_t i) { return (i & 0xfffffc1f) == 0xd63f0000; }
static inline bool is_ret(uint32_t i) { return (i & 0xfffffc1f) == 0xd65f0000 || (i & 0xfffffbff) == 0xd65f0bff; }

static inline bool is_mrs_tpidr(uint32_t i) { return (i & 0xffffffe0) == 0xd53bd040; }

#endif
