/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_STOP_H
#define PYLEAK_CLI_STOP_H

#include <sys/types.h>

/* The signals that end a command in good order, while hooks are planted. */

/* ^C, SIGTERM and SIGHUP are noted from now on, and end a wait; nothing else ends or stops us. */
void pl_stop_catch_signals(void);
/* In place of that: they, and others that a service is told something by, are the business of the program that was
 * started, which gets them; nothing ends us but its end. */
void pl_stop_forward_signals(pid_t pid);
/* Its pid may be another process's from now on. */
void pl_stop_program_ended(void);
/* Becomes 1 when one of them has come. */
const volatile int *pl_stop_flag(void);

#endif
