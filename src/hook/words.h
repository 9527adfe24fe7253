/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOOK_WORDS_H
#define PYLEAK_HOOK_WORDS_H

#include "carrier.h"

/* Words of GOTs: what planting and extending have in common. */

struct pl_probe_hook pl_probe_row(const struct pl_probe *probe, const struct pl_probe_word *word);

/* Makes one word lead to us, if it holds what its row says. *ret_redirected may be NULL. 0 also if it
 * holds something else, or is not mapped any more. */
int pl_probe_redirect(struct pl_tracee *tracee, const struct pl_probe_hook *hook, bool *ret_redirected);

/* How an errand is to change this word: enum pl_probe_errand_kind; -1: it is not mapped, or not the process's own. */
int pl_probe_word_kind(const struct pl_maps *maps, uint64_t address);

/*
 * Maps the landing page if it is not there, and adds the rows that are new, their words leading to the functions: after this
 * their stubs may be given to anybody. NULL: there is no page. The process runs, and may be left at any step.
 * -EEXIST: somebody else has mapped there since.
 */
int landing_prepare(struct carrier *carrier, struct pl_landing *landing, struct pl_error *err);

#endif
