/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_FAMILY_H
#define PYLEAK_CLI_FAMILY_H

#include <stddef.h>

#include "target.h"

/*
 * With --children: the Python processes that descend from the one that was named, recorded into the same
 * sites. Who is born later is taken in: a look every half second finds it, and the look after that plants,
 * so that a child which only lives to start another program is mostly left alone. Each process is
 * planted and removed by itself, one after the other: they are never stopped at the same time.
 */
struct pl_family;

/* `root` need not be a Python, nor be recorded. Finds nobody yet. NULL: out of memory. */
struct pl_family *pl_family_new(pid_t root, const struct pl_options *options, struct pl_sites *sites);
/* Closes what it recorded. NULL is allowed. */
void pl_family_free(struct pl_family *family);

/* `lead` is recorded already, and is one of the family. */
void pl_family_know(struct pl_family *family, const struct pl_target *lead);
/* Looks, if it is time to: who is new is taken in. The first look takes in whoever is there. */
void pl_family_look(struct pl_family *family);
/* Takes the probe that it inherited out of each child that was born too late to be recorded. */
void pl_family_sweep(struct pl_family *family);

/* Those that are or were recorded, `lead` not among them; the addresses hold. */
size_t pl_family_count(const struct pl_family *family);
struct pl_target *pl_family_member(const struct pl_family *family, size_t i);

/* The process that was named still runs, recorded or not. */
/* Closes member i, which has ended and been retired; those behind it move up. */
void pl_family_forget(struct pl_family *family, size_t i);
bool pl_family_has_root(const struct pl_family *family);

#endif
