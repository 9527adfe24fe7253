/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_TARGET_PLACES_H
#define PYLEAK_CLI_TARGET_PLACES_H

#include "target.h"

/* What of it lies where, once `account` was taken; nothing, where that cannot be told. */
void pl_target_places(const struct pl_target *target, const struct pl_account *account, struct pl_places *ret);

#endif
