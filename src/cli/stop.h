/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_STOP_H
#define PYLEAK_CLI_STOP_H

/* The signals that end a command in good order, while hooks are planted. */

/* ^C, SIGTERM and SIGHUP are noted from now on, and end a wait; nothing else ends or stops us. */
void pl_stop_catch_signals(void);
/* Becomes 1 when one of them has come. */
const volatile int *pl_stop_flag(void);

#endif
