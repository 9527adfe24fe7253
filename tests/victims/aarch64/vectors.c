/* SPDX-License-Identifier: MIT */
/* The vector registers keep their values: V0 to V31 with FPCR and FPSR, and where there is SVE all of Z0 to Z31, P0 to P15 and
 * FFR, in a thread for each of three lengths. */
#include <stdint.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>

#include "../victim.h"

#ifndef PR_SVE_SET_VL
#define PR_SVE_SET_VL 50
#endif
#define HAS_SVE (1UL << 22) /* HWCAP_SVE */
enum { ROUNDS = 200000, LONGEST = 64 /* bytes of a vector */ };

void narrow_spin(const uint8_t *in, uint8_t *out, unsigned long iterations, uint64_t control[2]);
void wide_spin(const uint8_t *in, uint8_t *out, const uint8_t *predicates_in, uint8_t *predicates_out, unsigned long iterations);

#define EACH16(m) m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9) m(10) m(11) m(12) m(13) m(14) m(15)
#define EACH32(m) EACH16(m) m(16) m(17) m(18) m(19) m(20) m(21) m(22) m(23) m(24) m(25) m(26) m(27) m(28) m(29) m(30) m(31)
#define SAVE \
	"	stp d8, d9, [sp, #-64]!\n	stp d10, d11, [sp, #16]\n	stp d12, d13, [sp, #32]\n	stp d14, d15, [sp, #48]\n"
#define RESTORE \
	"	ldp d10, d11, [sp, #16]\n	ldp d12, d13, [sp, #32]\n	ldp d14, d15, [sp, #48]\n	ldp d8, d9, [sp], #64\n"
#define LOAD_Q(n) "	ldr q" #n ", [x0, #16 * " #n "]\n"
#define STORE_Q(n) "	str q" #n ", [x1, #16 * " #n "]\n"
#define LOAD_Z(n) "	ldr z" #n ", [x0, #" #n ", mul vl]\n"
#define STORE_Z(n) "	str z" #n ", [x1, #" #n ", mul vl]\n"
#define LOAD_P(n) "	ldr p" #n ", [x2, #" #n ", mul vl]\n"
#define STORE_P(n) "	str p" #n ", [x3, #" #n ", mul vl]\n"

/* Rounding towards zero, and the sticky flags as they are given. */
__asm__(".text\n"
	".type narrow_spin, %function\n"
	"narrow_spin:\n" SAVE EACH32(LOAD_Q)
	"	mrs x4, fpcr\n"
	"	mrs x5, fpsr\n"
	"	ldp x6, x7, [x3]\n"
	"	msr fpcr, x6\n"
	"	msr fpsr, x7\n"
	"1:	subs x2, x2, #1\n"
	"	b.ne 1b\n"
	"	mrs x6, fpcr\n"
	"	mrs x7, fpsr\n"
	"	stp x6, x7, [x3]\n"
	"	msr fpcr, x4\n"
	"	msr fpsr, x5\n" EACH32(STORE_Q) RESTORE
	"	ret\n"
	".size narrow_spin, . - narrow_spin\n"
	".arch armv8.2-a+sve\n"
	".type wide_spin, %function\n"
	"wide_spin:\n" SAVE
	"	ldr p0, [x2, #16, mul vl]\n"
	"	wrffr p0.b\n" EACH32(LOAD_Z) EACH16(LOAD_P)
	"1:	subs x4, x4, #1\n"
	"	b.ne 1b\n" EACH32(STORE_Z) EACH16(STORE_P)
	"	rdffr p0.b\n"
	"	str p0, [x3, #16, mul vl]\n" RESTORE
	"	ret\n"
	".size wide_spin, . - wide_spin\n");

static void check_narrow(unsigned int round)
{
	enum { TO_ZERO = 3 << 22, INEXACT = 1 << 4 };
	uint8_t in[512], out[512] = {0};
	uint64_t control[2] = {TO_ZERO, INEXACT};

	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (uint8_t)(i * 7 + round * 13 + 1);
	narrow_spin(in, out, ROUNDS, control);
	if (memcmp(in, out, sizeof(in)) != 0)
		victim_break("a vector register changed");
	if (control[0] != TO_ZERO || control[1] != INEXACT)
		victim_break("FPCR or FPSR changed: %lx %lx", (unsigned long)control[0], (unsigned long)control[1]);
}

static void check_wide(unsigned int round, size_t length)
{
	uint8_t in[32 * LONGEST], out[32 * LONGEST] = {0};
	uint8_t predicates[17 * LONGEST / 8], predicates_out[17 * LONGEST / 8] = {0};

	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (uint8_t)(i * 7 + round * 13 + 1);
	for (size_t i = 0; i < sizeof(predicates); i++)
		predicates[i] = (uint8_t)(i * 11 + round * 17 + 1);
	/* The first so many elements: FFR holds nothing else. */
	for (size_t i = 16 * length / 8; i < sizeof(predicates); i++)
		predicates[i] = i < 16 * length / 8 + length / 16 ? 0xff : 0;
	wide_spin(in, out, predicates, predicates_out, ROUNDS);
	for (size_t i = 0; i < 32 * length; i++)
		if (in[i] != out[i]) {
			victim_break("Z%zu changed at byte %zu of %zu", i / length, i % length, length);
			break;
		}
	for (size_t i = 0; i < 17 * length / 8; i++)
		if (predicates[i] != predicates_out[i]) {
			victim_break("predicate %zu changed, of vectors of %zu bytes", i / (length / 8), length);
			break;
		}
}

static void *body(void *argument)
{
	size_t wanted = (size_t)argument;
	long length = wanted ? prctl(PR_SVE_SET_VL, wanted) & 0xffff : 0;

	/* A processor may have fewer lengths than are asked for. */
	for (unsigned int round = 0;; round++) {
		if (length > 0 && length <= LONGEST)
			check_wide(round, (size_t)length);
		else
			check_narrow(round);
		victim_round();
	}
	return NULL;
}

int victim_start(void)
{
	static const size_t lengths[] = {0, 16, 32, 64};
	size_t count = getauxval(AT_HWCAP) & HAS_SVE ? sizeof(lengths) / sizeof(lengths[0]) : 1;
	int r = 0;

	for (size_t i = 0; r == 0 && i < count; i++)
		r = victim_thread(body, (void *)lengths[i]);
	return r;
}
