/* SPDX-License-Identifier: MIT */
/* Says where its landmarks are, and stays until its stdin closes. For test_elf.c. */
#include <stdio.h>
#include <unistd.h>

__attribute__((noinline)) int landmark_exported(int x);
int landmark_exported(int x)
{
	return x + 1;
}

static __attribute__((noinline, noclone, used)) int landmark_static(int x)
{
	return x + 2;
}

__attribute__((section(".landmark"), used)) static int landmark_section[16] = {1};
/* As link-time optimisation leaves them behind. */
static __attribute__((used)) int piece __asm__("landmark_private.cold") = 4;
static __attribute__((used)) int whole __asm__("landmark_private.lto_priv.0") = 5;

int main(void)
{
	char byte;

	(void)printf("%p %p %p %p\n", (void *)landmark_exported, (void *)landmark_static, (void *)landmark_section,
		(void *)&whole);
	(void)fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		continue;
	return 0;
}
