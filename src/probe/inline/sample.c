/* SPDX-License-Identifier: MIT */
#include "probe.h"

/*
 * Exponential intervals without floating point (the vector registers are the caller's): −ln(u) for a
 * uniform u in (0, 1], its logarithm found bit by bit. Some 50 ns, once per sample.
 */

enum { LOG_BITS = 24 };

/* −log2(u / 2^64) with LOG_BITS of fraction; u > 0. */
static u64 minus_log2(u64 u)
{
	u64 whole = (u64)__builtin_clzll(u), fraction = 0, x = u << whole >> 32; /* [1, 2), 31 bits after the point */

	for (int bit = LOG_BITS - 1; bit >= 0; bit--) {
		x = x * x >> 31;
		if (x >> 32) {
			x >>= 1;
			fraction |= (u64)1 << bit;
		}
	}
	return ((whole + 1) << LOG_BITS) - fraction;
}

/* Bytes until the next sample: exponential with this mean. */
int64_t pl_sample_draw(struct pl_inline_slot *slot, u32 sampling)
{
	u64 x = slot->random, interval;

	if (!x)
		x = mix(pl_config.planted_monotonic, (u64)slot) | 1;
	/* xorshift64* */
	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	slot->random = x;
	/* ln 2 in 32 bits after the point. The widest product: 65 × 2^24 × 2^32 is 63 bits. */
	interval = minus_log2((x * 0x2545f4914f6cdd1dull) | 1) * 2977044472ull >> 32;
	/* Scaled in two steps: a mean of up to 2^40 bytes stays within 64 bits. */
	return (int64_t)((interval >> 8) * pl_inline_rate(sampling, pl_config.sample) >> (LOG_BITS - 8)) + 1;
}
