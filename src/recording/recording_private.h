/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_RECORDING_PRIVATE_H
#define PYLEAK_RECORDING_PRIVATE_H

#include <stdbool.h>
#include <stdint.h>

#include "pyleak/account.h"
#include "recording.pb-c.h"

/* What writer and reader of the format agree on. */

/* The first frame is one that decompressors skip. */
#define RECORDING_MAGIC UINT32_C(0x184D2A50)
#define RECORDING_TITLE "pyleak recording 1\n"

enum {
	RECORDING_VERSION = 1,
	RECORDING_PIECE_MAX = 64 << 20, /* bytes of one piece, decompressed */
	RECORDING_PIECE_FRAMES = 4 << 20, /* of new sites that the writer puts into one piece: at most 5 bytes each */
	RECORDING_SITES_MAX = 2 << 20,
	RECORDING_DEPTH_MAX = 1024,
	RECORDING_TEXT_MAX = 8192, /* bytes of one name, or source line */
};

/* Unpacks a piece. A message of a few bytes can ask for a lot of memory: no more than what a good one
 * takes is given. NULL: damaged, or out of memory. */
Pyleak__Recording *recording_unpack(const void *bytes, size_t size);
void recording_free(Pyleak__Recording *message);

/* account.c. The message points into the account and into `parts`. False: it was not taken. */
bool recording_put_account(struct pl_account *account, int64_t parts[PL_ACCOUNT_PARTS], Pyleak__Account *message);
/* NULL: it was not taken. False: it lies. */
bool recording_take_account(const Pyleak__Account *message, struct pl_account *ret);

#endif
