/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CORE_NOTING_H
#define PYLEAK_CORE_NOTING_H

#include "pyleak/space.h"
#include "pyleak/table.h"

struct noting {
	struct pl_space space;
	struct pl_space *below;
	struct pl_table pages; /* by address; the value is 1 */
	bool failed;           /* out of memory */
};

#endif
