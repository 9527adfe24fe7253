/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_HOLDERS_FILES_H
#define PYLEAK_CLI_HOLDERS_FILES_H

#include "pyleak/options.h"

/* `holders FILE`, and what grew between two of them: an exit status. */
int pl_holders_of_files(const struct pl_options *options);

#endif
