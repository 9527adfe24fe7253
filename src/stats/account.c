/* SPDX-License-Identifier: MIT */
#include "pyleak/account.h"

void pl_account_add(struct pl_account *sum, const struct pl_account *one)
{
	if (!sum->taken || !one->taken) {
		sum->taken = false;
		return;
	}
	sum->rss += one->rss;
	for (int part = 0; part < PL_ACCOUNT_PARTS; part++) {
		/* So that the sum stays one: what is no longer known is in the rest. */
		sum->known[part] = sum->known[part] && one->known[part];
		sum->parts[part] += one->parts[part];
	}
	for (int part = 0; part < PL_ACCOUNT_OTHER; part++)
		if (!sum->known[part]) {
			sum->parts[PL_ACCOUNT_OTHER] += sum->parts[part];
			sum->parts[part] = 0;
		}
	sum->arenas_overhead += one->arenas_overhead;
	sum->untouched += one->untouched;
	sum->pools += one->pools;
	sum->rounding = sum->rounding < 0 || one->rounding < 0 ?
				-1 :
				sum->rounding + (one->rounding - sum->rounding) / (sum->others + 2);
	sum->others++;
	if (one->alignment < sum->alignment)
		sum->alignment = one->alignment;
	for (int i = 0; i < PL_ACCOUNT_CLASSES; i++)
		sum->class_free[i] += one->class_free[i];
}
