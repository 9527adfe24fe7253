/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOLDERS_NAMES_H
#define PYLEAK_HOLDERS_NAMES_H

#include <stdio.h>

#include "roots.h"

/*
 * What one would write in Python to reach an object. The text begins anew at a module, a class, a function, a frame and a
 * coroutine; keys are shortened and printable. All texts are the caller's to free; NULL: out of memory.
 */

/* "app.CACHE", "Server.run():self.app.config.cache", "coroutine poll():hub.tasks". */
char *name_of_path(struct view *view, const struct roots *roots, uint32_t object);
/* How a holder leads to what it holds: "['user:10']", "[3]", ".attribute"; "" if nothing is known. */
char *name_of_step(struct view *view, uint32_t holder, uint32_t held);
/* The same of one edge that is known. */
struct edge;
char *name_of_edge(struct view *view, uint32_t from, uint32_t to, const struct edge *edge);
/* "list"; "app.User" of a class of Python's: with its module. */
char *name_of_type(struct view *view, const struct type *type);
/* A str's text, or a short form of another value: 'key', 7, (1, 'a'), <app.Thing>. */
void print_value(FILE *out, struct view *view, uint64_t address, int depth);
/* The text of a str object, at most max − 1 bytes; false: it is none. */
bool text_at(struct view *view, uint64_t address, char *text, size_t max);
/* The value of a key that is a str, in a dict; 0: there is none. */
uint64_t dict_get(struct view *view, uint64_t dict, const char *key);
/* The file that an address is in ("" : none), its last part. */
const char *library_at(struct view *view, uint64_t address);

#endif
