/* SPDX-License-Identifier: MIT */
#include "terminfo.h"

#include <curses.h>
#include <stdlib.h>
#include <string.h>
#include <term.h>

static const char xterm_description[] =
#include "xterm.inc"
	;

static char *restore;
static size_t restore_size, restore_length;

static bool can(const char *capability)
{
	const char *text = tigetstr(capability);

	return text && text != (const char *)-1 && *text;
}

static bool is_capable(const char *type, int fd)
{
	int error = 0;
	bool capable = setupterm(type, fd, &error) == OK && can("cup") && can("clear");

	if (cur_term)
		(void)del_curterm(cur_term);
	return capable;
}

/* Terminals that people sit at; each has "xterm" for its model. */
static bool is_like_xterm(const char *type)
{
	static const char *const known[] = {"xterm", "screen", "tmux", "rxvt", "vte", "gnome", "konsole", "alacritty",
		"kitty", "foot", "wezterm", "ghostty", "putty", "linux"};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strncmp(type, known[i], strlen(known[i])) == 0)
			return true;
	return false;
}

const char *live_terminfo_type(int fd)
{
	const char *type = getenv("TERM");

	if (!type || !*type)
		return NULL;
	if (is_capable(type, fd))
		return type;
	if (!is_like_xterm(type) || setenv("TERMINFO", xterm_description, 1) < 0)
		return NULL;
	return is_capable("xterm", fd) ? "xterm" : NULL;
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
