/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_REPORT_HOLDERS_DOCUMENT_H
#define PYLEAK_REPORT_HOLDERS_DOCUMENT_H

#include <jansson.h>

#include "pyleak/holders_report.h"

/* The document of --format json; NULL: out of memory. */
json_t *holders_document(const struct pl_holders_report *report);

#endif
