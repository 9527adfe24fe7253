/* SPDX-License-Identifier: MIT */
/* The vector registers, MXCSR and the x87 control word and stack keep their values. */
#include <stdint.h>
#include <string.h>

#include "victim.h"

#define EACH(m) m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9) m(10) m(11) m(12) m(13) m(14) m(15)
#define CLOBBERS                                                                                                       \
	"xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",     \
		"xmm13", "xmm14", "xmm15", "memory", "cc"

#define LOAD16(n) "movdqu " #n "*16(%[in]), %%xmm" #n "\n"
#define STORE16(n) "movdqu %%xmm" #n ", " #n "*16(%[out])\n"
#define LOAD32(n) "vmovdqu " #n "*32(%[in]), %%ymm" #n "\n"
#define STORE32(n) "vmovdqu %%ymm" #n ", " #n "*32(%[out])\n"
#define SPIN "1: dec %[n]\n jnz 1b\n"

static void spin16(const uint8_t *in, uint8_t *out)
{
	uint64_t n = 200000;

	__asm__ volatile(EACH(LOAD16) SPIN EACH(STORE16) : [n] "+r"(n) : [in] "r"(in), [out] "r"(out) : CLOBBERS);
}

static void spin32(const uint8_t *in, uint8_t *out)
{
	uint64_t n = 200000;

	__asm__ volatile(EACH(LOAD32) SPIN EACH(STORE32) "vzeroupper\n"
			 : [n] "+r"(n)
			 : [in] "r"(in), [out] "r"(out)
			 : CLOBBERS);
}

static void check_control(void)
{
	uint32_t mxcsr = 0x1f80 | 0x6000, found; /* round towards zero */
	uint16_t control = 0x0f7f, control_found;
	uint32_t usual = 0x1f80;
	uint16_t control_usual = 0x037f;
	uint64_t n = 200000;
	double in = 6755399441055744.5, out = 0;

	__asm__ volatile("ldmxcsr %[mxcsr]\n"
			 "fldcw %[control]\n"
			 "fldl %[in]\n"
			 "1: dec %[n]\n"
			 "jnz 1b\n"
			 "fstpl %[out]\n"
			 "stmxcsr %[found]\n"
			 "fnstcw %[control_found]\n"
			 "ldmxcsr %[usual]\n"
			 "fldcw %[control_usual]\n"
			 : [n] "+r"(n), [found] "=m"(found), [control_found] "=m"(control_found), [out] "=m"(out)
			 : [mxcsr] "m"(mxcsr), [control] "m"(control), [in] "m"(in), [usual] "m"(usual),
			 [control_usual] "m"(control_usual)
			 : "memory", "cc", "st");
	if ((found & ~0x3fu) != mxcsr)
		victim_break("MXCSR changed from %x to %x", mxcsr, found);
	if (control_found != control)
		victim_break("the x87 control word changed from %x to %x", control, control_found);
	if (memcmp(&in, &out, sizeof(in)) != 0)
		victim_break("the x87 stack changed");
}

static void *body(void *argument)
{
	bool avx = __builtin_cpu_supports("avx");
	uint8_t in[512], out[512];

	for (unsigned int round = 0;; round++) {
		for (size_t i = 0; i < sizeof(in); i++)
			in[i] = (uint8_t)(i * 7 + round * 13 + 1);
		memset(out, 0, sizeof(out));
		spin16(in, out);
		if (memcmp(in, out, 256) != 0)
			victim_break("an xmm register changed");
		if (avx) {
			memset(out, 0, sizeof(out));
			spin32(in, out);
			if (memcmp(in, out, 512) != 0)
				victim_break("a ymm register changed");
		}
		check_control();
		victim_round();
	}
	return NULL;
}

int victim_start(void)
{
	int r = victim_thread(body, NULL);

	return r ? r : victim_thread(body, NULL);
}
