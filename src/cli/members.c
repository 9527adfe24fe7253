/* SPDX-License-Identifier: MIT */
#include "targets.h"

/* Who the targets are. */

size_t pl_targets_count(const struct pl_targets *targets)
{
	return 1 + pl_family_count(targets->family);
}

struct pl_target *pl_targets_at(struct pl_targets *targets, size_t i)
{
	return i == 0 ? &targets->lead : pl_family_member(targets->family, i - 1);
}

uint64_t pl_targets_memory(struct pl_targets *targets)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < pl_targets_count(targets); i++) {
		const struct pl_target *target = pl_targets_at(targets, i);

		sum += target->ended ? 0 : pl_engine_memory(target->engine);
	}
	return sum;
}
