/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOLDERS_FIELDS_H
#define PYLEAK_HOLDERS_FIELDS_H

#include "view.h"

/* What words of an object's body are called. */

/* As the type's members or those of its bases say it. False: they do not. */
bool member_name(struct view *view, const struct type *type, uint64_t offset, char *text, size_t max);
/* Of an exception; NULL: it is none, or has no such field. */
const char *exception_field(const struct view *view, const struct type *type, uint64_t offset);

#endif
