/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ERROR_H
#define PYLEAK_ERROR_H

/*
 * Errors are answers: one line that says what is wrong, with which value, and what to do.
 *
 * A function that can fail returns 0 or -errno. Where the number alone would not help a person it
 * also takes a struct pl_error and fills it; the command prints that text once, at the top. So a
 * function either fills the error or logs, never both.
 */

/* Ways out of a refusal that take a command: `pyleak doctor` spells them out. Bits. */
enum pl_remedy {
	PL_REMEDY_ROOT = 1,       /* be root */
	PL_REMEDY_ITS_USER = 2,   /* be the user of the process */
	PL_REMEDY_YAMA = 4,       /* set ptrace_scope */
	PL_REMEDY_CAPABILITY = 8, /* have CAP_SYS_PTRACE in pyleak's container */
	PL_REMEDY_PRIVILEGED = 16, /* have CAP_SYS_ADMIN, and no filter, in pyleak's container */
	PL_REMEDY_UNCONFINED = 32, /* have no seccomp or AppArmor profile on pyleak's container */
	PL_REMEDY_HOST = 64,      /* be outside of containers */
};

struct pl_error {
	int code;        /* -errno, 0 while nothing went wrong */
	unsigned int remedies; /* enum pl_remedy; any one of them is enough */
	char text[1024]; /* one line, but where it lists things; no newline at its end, no "pyleak:" in front */
};

/* Fills *err (which may be NULL) and returns code, so that it can be used as `return pl_fail(…)`.
 * The first text wins: a caller that adds nothing may pass its err down and just return. */
int pl_fail(struct pl_error *err, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* The same, with enum pl_remedy bits. */
int pl_fail_remedied(struct pl_error *err, int code, unsigned int remedies, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

#endif
