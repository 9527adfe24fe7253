/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_REMEDY_H
#define PYLEAK_CLI_REMEDY_H

#include <stdbool.h>
#include <stddef.h>

#include "pyleak/error.h"
#include "pyleak/process.h"

enum { PL_REMEDY_LINES = 12, PL_REMEDY_LINE = 192 };

/* Who asks: what helps depends on it. */
struct pl_patient {
	const struct pl_process *process;
	bool root;      /* pyleak is */
	bool contained; /* pyleak runs in a container */
};

struct pl_remedies {
	char lines[PL_REMEDY_LINES][PL_REMEDY_LINE]; /* commands; any one of them helps */
	size_t count;
};

/* The commands that the remedies of an error (enum pl_remedy) mean here. Names in capitals are the
 * reader's to fill in. */
void pl_remedies_spell(unsigned int remedies, const struct pl_patient *patient, struct pl_remedies *ret);

#endif
