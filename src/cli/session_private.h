/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_SESSION_PRIVATE_H
#define PYLEAK_CLI_SESSION_PRIVATE_H

#include "session.h"

/* documents.c: the report in the format of `options`. */
int session_document(struct pl_session *session, const struct pl_options *options, enum pl_report_kind kind,
	const struct pl_snapshot *now, const struct pl_snapshot *before, bool allocated, char **ret_text,
	size_t *ret_length, bool *ret_exceeded);

#endif
