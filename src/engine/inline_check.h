/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_INLINE_CHECK_H
#define PYLEAK_ENGINE_INLINE_CHECK_H

#include <stdint.h>

#include "pyleak/inline_abi.h"

/*
 * The configuration in a probe lies in the process's memory, and is the process's to forge. Checked as a whole, before
 * anything is read by it: every table lies in the data, which are what is really mapped there ([start, start + size), from
 * /proc/PID/maps), every count is below a limit of ours, and every time is one. 0 or -EBADMSG.
 */
int inline_config_check(const struct pl_inline_config *config, uint64_t start, uint64_t size);

#endif
