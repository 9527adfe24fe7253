/* SPDX-License-Identifier: MIT */
#include "probe.h"

/* Whoever sets `finalizing` comes here after that: see thread.h. */
cold bool pl_anyone_is_reading(void)
{
	const u64 *reading = (const u64 *)pl_config.reading;
	u64 found = 0;

	control()->workers_gone = 1;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (u64 i = 0; i <= pl_config.slot_count / 8; i++)
		found |= *(const volatile u64 *)&reading[i];
	return found != 0;
}
