/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_PROC_RIGHTS_H
#define PYLEAK_PROC_RIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/*
 * To open files as another process may: this thread takes on its user, group and groups for files (fsuid and fsgid, which
 * need no more than CAP_SETUID and CAP_SETGID and are nobody's to signal), and gives up what lets root read anything if the
 * other one has not got that. Sandboxes (AppArmor, Landlock) are not looked at. Who is not root keeps his own rights for
 * his own processes.
 */
struct pl_rights {
	unsigned int user, group;
	gid_t *groups; /* owned */
	size_t group_count;
	unsigned int dropped; /* capabilities */
	bool changed, dumpable;
};

enum { PL_RIGHTS_GROUPS_MAX = 65536 }; /* NGROUPS_MAX */

/* -EPERM: it cannot be done, because we are neither that user nor root; nothing is changed then. */
int pl_rights_put_on(pid_t pid, struct pl_rights *own);
/* As before. Harmless after a failure. */
void pl_rights_take_off(struct pl_rights *own);

#endif
