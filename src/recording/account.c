/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "recording_private.h"

/* So that sums of them, and of accounts of a whole family, stay within 63 bits. */
#define BYTES_MAX (INT64_C(1) << 56)
#define ROUNDING_MAX 4096 /* bytes a block */

_Static_assert(PL_ACCOUNT_OTHER == 8 && PL_ACCOUNT_PARTS == 9, "their order is part of the format");

bool recording_put_account(struct pl_account *account, int64_t parts[PL_ACCOUNT_PARTS], Pyleak__Account *message)
{
	pyleak__account__init(message);
	if (!account->taken)
		return false;
	message->rss = account->rss;
	for (int part = 0; part < PL_ACCOUNT_PARTS; part++) {
		parts[part] = account->parts[part];
		message->known |= (uint32_t)account->known[part] << part;
	}
	message->parts = parts;
	message->n_parts = PL_ACCOUNT_PARTS;
	message->arenas_overhead = account->arenas_overhead;
	message->alignment = account->alignment;
	message->untouched = account->untouched;
	message->pools = account->pools;
	message->rounding = account->rounding > 0 ? account->rounding : 0;
	message->class_free = account->class_free;
	message->n_class_free = PL_ACCOUNT_CLASSES;
	message->apart = account->apart;
	for (int part = 0; part < PL_ACCOUNT_APARTS; part++)
		message->n_apart = account->apart[part] ? PL_ACCOUNT_APARTS : message->n_apart;
	return true;
}

static bool is_size(int64_t bytes)
{
	return bytes >= -BYTES_MAX && bytes <= BYTES_MAX;
}

bool recording_take_account(const Pyleak__Account *message, struct pl_account *ret)
{
	*ret = (struct pl_account){.alignment = PL_ACCOUNT_ALIGNMENT, .rounding = -1};
	if (!message)
		return true;
	if (message->rss > BYTES_MAX || message->n_parts != PL_ACCOUNT_PARTS || message->n_class_free > PL_ACCOUNT_CLASSES ||
		!is_size(message->arenas_overhead) || !is_size(message->untouched) || !is_size(message->pools) ||
	        !(message->rounding >= 0 && message->rounding <= ROUNDING_MAX) || (message->alignment != 8 && message->alignment != 16))
		return false;
	for (int part = 0; part < PL_ACCOUNT_PARTS; part++) {
		if (!is_size(message->parts[part]))
			return false;
		ret->parts[part] = message->parts[part];
		ret->known[part] = message->known >> part & 1;
	}
	for (size_t i = 0; i < message->n_class_free; i++) {
		if (message->class_free[i] > BYTES_MAX)
			return false;
		ret->class_free[i] = message->class_free[i];
	}
	if (message->n_apart && message->n_apart != PL_ACCOUNT_APARTS)
		return false;
	for (size_t i = 0; i < message->n_apart; i++) {
		if (!is_size(message->apart[i]))
			return false;
		ret->apart[i] = message->apart[i];
	}
	ret->taken = true;
	ret->rss = message->rss;
	ret->arenas_overhead = message->arenas_overhead;
	ret->alignment = message->alignment;
	ret->untouched = message->untouched;
	ret->pools = message->pools;
	ret->rounding = message->rounding > 0 ? message->rounding : -1;
	return true;
}
