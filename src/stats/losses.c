/* SPDX-License-Identifier: MIT */
#include <stddef.h>

#include "pyleak/facts.h"

static uint64_t add(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t since(uint64_t now, uint64_t before)
{
	return now > before ? now - before : 0;
}

void pl_losses_add(struct pl_losses *sum, const struct pl_losses *one)
{
	sum->events = add(sum->events, one->events);
	sum->sites = add(sum->sites, one->sites);
	sum->freed_before_count = add(sum->freed_before_count, one->freed_before_count);
	sum->freed_before_size = add(sum->freed_before_size, one->freed_before_size);
	sum->freed_unseen_count = add(sum->freed_unseen_count, one->freed_unseen_count);
	sum->freed_unseen_size = add(sum->freed_unseen_size, one->freed_unseen_size);
	sum->shortened = add(sum->shortened, one->shortened);
	if (sum->sampling < one->sampling)
		sum->sampling = one->sampling;
}

struct pl_losses pl_losses_since(const struct pl_losses *now, const struct pl_losses *before)
{
	if (!before)
		return *now;
	return (struct pl_losses){
		.events = since(now->events, before->events),
		.sites = since(now->sites, before->sites),
		.freed_before_count = since(now->freed_before_count, before->freed_before_count),
		.freed_before_size = since(now->freed_before_size, before->freed_before_size),
		.freed_unseen_count = since(now->freed_unseen_count, before->freed_unseen_count),
		.freed_unseen_size = since(now->freed_unseen_size, before->freed_unseen_size),
		.shortened = since(now->shortened, before->shortened),
		.sampling = now->sampling,
	};
}
