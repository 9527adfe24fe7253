/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_REPORT_NATIVE_TEXT_H
#define PYLEAK_REPORT_NATIVE_TEXT_H

#include <stdio.h>

#include "pyleak/report.h"

/* The name of an object by its path: what stands behind the last slash. */
const char *native_text_object(const char *path);

/* Below a row: who of the native code asked for it, and which thread, where that runs no Python. Where a traceback follows,
 * that has the callers. */
void native_text_print(FILE *out, const struct pl_report *report, const struct pl_row *row, bool traceback_follows);

#endif
