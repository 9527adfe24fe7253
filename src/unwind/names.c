/* SPDX-License-Identifier: MIT */
#include <ctype.h>
#include <libiberty/demangle.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/unwind.h"

/* The part of a Cython name behind what says which kind of function it is. *ret_numbered: a number stands before the
 * function's own name. NULL: not Cython's. */
static const char *behind_kind(const char *name, bool *ret_numbered)
{
	static const struct {
		const char *prefix;
		bool numbered;
	} kinds[] = {{"pw_", true}, {"pf_", false}, {"f_", false}, {"gb_", false}};

	if (strncmp(name, "__pyx_fuse_", 11) == 0) {
		name += 11 + strspn(name + 11, "0123456789_");
		name -= 2; /* "__" belongs to what follows */
	}
	if (strncmp(name, "__pyx_", 6) != 0)
		return NULL;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		const char *rest = name + 6 + strlen(kinds[i].prefix);

		*ret_numbered = kinds[i].numbered;
		if (strncmp(name + 6, kinds[i].prefix, strlen(kinds[i].prefix)) == 0 && isdigit((unsigned char)*rest))
			return rest;
	}
	return NULL;
}

/* "4work_5Store_3add" is work.Store.add: scopes have their lengths in front, and the function may have a number. */
static char *cython_name(const char *name)
{
	bool numbered;
	const char *rest = behind_kind(name, &numbered);
	char *text = rest ? malloc(strlen(rest) + 1) : NULL, *end = text;

	while (text && isdigit((unsigned char)*rest)) {
		char *part;
		size_t length = strtoul(rest, &part, 10), left = strlen(part);
		bool scope = length > 0 && length + 1 < left && part[length] == '_' && !isdigit((unsigned char)*part) &&
			     (!numbered || isdigit((unsigned char)part[length + 1]));

		rest = part;
		if (!scope)
			break;
		memcpy(end, part, length);
		end += length;
		*end++ = '.';
		rest = part + length + 1;
	}
	if (text)
		(void)strcpy(end, rest);
	/* What the compiler made of it: "keep.isra.0" */
	if (text && (rest = strchr(end, '.')))
		text[rest - text] = '\0';
	return text;
}

char *pl_readable_symbol(const char *name)
{
	if (name[0] == '_' && (name[1] == 'Z' || name[1] == 'R'))
		return cplus_demangle(name, DMGL_PARAMS | DMGL_ANSI | DMGL_AUTO);
	return cython_name(name);
}
