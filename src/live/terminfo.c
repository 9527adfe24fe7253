/* SPDX-License-Identifier: MIT */
#include "terminfo.h"

#include <curses.h>
#include <term.h>

static char *restore;
static size_t restore_size, restore_length;

static bool can(const char *capability)
{
	const char *text = tigetstr(capability);

	return text && text != (const char *)-1 && *text;
}

bool live_terminfo_capable(int fd)
{
	int error = 0;
	bool capable = setupterm(NULL, fd, &error) == OK && can("cup") && can("clear");

	if (cur_term)
		(void)del_curterm(cur_term);
	return capable;
}

static int put_restore(int byte)
{
	if (restore_length < restore_size)
		restore[restore_length++] = (char)byte;
	return byte;
}

size_t live_terminfo_restore(char *text, size_t size)
{
	static const char *const capabilities[] = {"sgr0", "op", "rmkx", "cnorm", "rmcup"};

	restore = text;
	restore_size = size;
	restore_length = 0;
	for (size_t i = 0; i < sizeof(capabilities) / sizeof(capabilities[0]); i++)
		if (can(capabilities[i]))
			(void)tputs(tigetstr(capabilities[i]), 1, put_restore);
	return restore_length;
}
