/* SPDX-License-Identifier: MIT */
#include "terminal.h"

#include <curses.h>
#include <errno.h>
#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

#include "pyleak/units.h"
#include "terminfo.h"

#define DRAW_PATIENCE_NSEC (300 * PL_NSEC_PER_MSEC)

enum { RESTORE_MAX = 256, ESCAPE_DELAY_MSEC = 25, CRASH_STACK = 16384, CTRL_L = 12, ESCAPE = 27, DELETE = 127 };
enum { PAIR_GREW = 1, PAIR_SHRANK, PAIR_ACCENT };

static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGQUIT};
enum { CRASHES = sizeof(crashes) / sizeof(crashes[0]) };

static struct {
	SCREEN *screen;
	FILE *out;
	int out_fd;      /* ncurses writes there */
	int terminal_fd; /* the terminal itself */
	int null_fd;
	timer_t watchdog;
	bool has_watchdog, color, utf8, suspend;
	bool away; /* it is not ours now: suspended, or continued in the background */
	volatile sig_atomic_t stalled, suspend_requested;
	struct termios modes; /* as they were */
	char restore[RESTORE_MAX];
	size_t restore_length;
	struct sigaction before_crash[CRASHES];
} terminal = {.out_fd = -1, .terminal_fd = -1, .null_fd = -1};

static char crash_stack[CRASH_STACK];

/* Where it is not our controlling terminal nobody says so: then nobody else is in front of it either. */
static bool in_foreground(int fd)
{
	pid_t group = tcgetpgrp(fd);

	return group < 0 || group == getpgrp();
}

/* Without stdio and ncurses: the state that they are in is not known. */
static void on_crash(int number)
{
	ssize_t written;

	if (!terminal.away) {
		written = write(terminal.terminal_fd, terminal.restore, terminal.restore_length);
		(void)written;
		(void)tcsetattr(terminal.terminal_fd, TCSANOW, &terminal.modes);
	}
	for (int i = 0; i < CRASHES; i++)
		if (crashes[i] == number)
			(void)sigaction(number, &terminal.before_crash[i], NULL);
	(void)raise(number); /* comes when this handler returns */
}

static void on_stall(int number)
{
	(void)number;
	(void)dup2(terminal.null_fd, terminal.out_fd);
	terminal.stalled = 1;
}

static void on_suspend(int number)
{
	(void)number;
	terminal.suspend_requested = 1;
}

static void watch(int64_t patience_ns)
{
	const struct itimerspec timer = {.it_value = {.tv_nsec = patience_ns}};

	if (terminal.has_watchdog)
		(void)timer_settime(terminal.watchdog, 0, &timer, NULL);
}

static bool is_ready(void)
{
	struct pollfd ready = {.fd = terminal.terminal_fd, .events = POLLOUT};

	return poll(&ready, 1, 0) != 0;
}

/* -- opening ---------------------------------------------------------------------------------------------------- */

static void catch_signals(void)
{
	const stack_t stack = {.ss_sp = crash_stack, .ss_size = sizeof(crash_stack)};
	const struct sigaction crash = {.sa_handler = on_crash, .sa_flags = SA_ONSTACK};
	const struct sigaction stall = {.sa_handler = on_stall};
	const struct sigaction stop = {.sa_handler = on_suspend};
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
	sigset_t caught;

	(void)sigaltstack(&stack, NULL);
	for (int i = 0; i < CRASHES; i++)
		(void)sigaction(crashes[i], &crash, &terminal.before_crash[i]);
	(void)sigaction(SIGRTMIN, &stall, NULL);
	(void)sigemptyset(&caught);
	(void)sigaddset(&caught, SIGRTMIN);
	terminal.has_watchdog = timer_create(CLOCK_MONOTONIC, &event, &terminal.watchdog) == 0;
	if (terminal.suspend) {
		(void)sigaddset(&caught, SIGTSTP);
		(void)sigaction(SIGTSTP, &stop, NULL);
	}
	(void)sigprocmask(SIG_UNBLOCK, &caught, NULL);
}

static void release_signals(void)
{
	const struct sigaction ignore = {.sa_handler = SIG_IGN};
	const stack_t none = {.ss_flags = SS_DISABLE};

	(void)sigaction(SIGTSTP, &ignore, NULL);
	for (int i = 0; i < CRASHES; i++)
		(void)sigaction(crashes[i], &terminal.before_crash[i], NULL);
	if (terminal.has_watchdog)
		(void)timer_delete(terminal.watchdog);
	terminal.has_watchdog = false;
	(void)sigaction(SIGRTMIN, &ignore, NULL);
	(void)sigaltstack(&none, NULL);
}

static void set_modes(bool color)
{
	(void)cbreak();
	(void)noecho();
	(void)keypad(stdscr, TRUE);
	(void)nodelay(stdscr, TRUE);
	(void)set_escdelay(ESCAPE_DELAY_MSEC);
	(void)typeahead(-1);
	(void)curs_set(0);
	terminal.color = color && has_colors() && start_color() == OK;
	if (!terminal.color)
		return;
	(void)use_default_colors();
	(void)init_pair(PAIR_GREW, COLOR_RED, -1);
	(void)init_pair(PAIR_SHRANK, COLOR_GREEN, -1);
	(void)init_pair(PAIR_ACCENT, COLOR_CYAN, -1);
}

static int release(void)
{
	if (terminal.out)
		(void)fclose(terminal.out);
	else if (terminal.out_fd >= 0)
		(void)close(terminal.out_fd);
	if (terminal.terminal_fd >= 0)
		(void)close(terminal.terminal_fd);
	if (terminal.null_fd >= 0)
		(void)close(terminal.null_fd);
	terminal.out = NULL;
	terminal.out_fd = terminal.terminal_fd = terminal.null_fd = -1;
	(void)setlocale(LC_CTYPE, "C");
	return -ENOTTY;
}

int live_terminal_open(bool color, bool suspend)
{
	const char *type;

	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) || !in_foreground(STDOUT_FILENO) ||
		tcgetattr(STDOUT_FILENO, &terminal.modes) < 0)
		return -ENOTTY;
	type = live_terminfo_type(STDOUT_FILENO);
	if (!type)
		return -ENOTTY;
	(void)setlocale(LC_CTYPE, "");
	terminal.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
	terminal.out_fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	terminal.terminal_fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	terminal.null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	terminal.out = terminal.out_fd >= 0 ? fdopen(terminal.out_fd, "w") : NULL;
	if (!terminal.out || terminal.terminal_fd < 0 || terminal.null_fd < 0)
		return release();
	terminal.suspend = suspend;
	terminal.away = false;
	terminal.stalled = terminal.suspend_requested = 0;
	catch_signals();
	watch(DRAW_PATIENCE_NSEC);
	terminal.screen = newterm(type, terminal.out, stdin);
	if (terminal.screen) {
		terminal.restore_length = live_terminfo_restore(terminal.restore, sizeof(terminal.restore));
		set_modes(color);
	}
	watch(0);
	if (terminal.screen)
		return 0;
	release_signals();
	return release();
}

/* -- and giving back -------------------------------------------------------------------------------------------- */

static void give_back(void)
{
	if (terminal.away)
		return;
	watch(DRAW_PATIENCE_NSEC);
	(void)endwin();
	watch(0);
	terminal.away = true;
	if (!terminal.stalled)
		return;
	/* What ncurses wrote went nowhere. This goes out with what is printed next, whenever that is. */
	(void)tcsetattr(terminal.terminal_fd, TCSANOW, &terminal.modes);
	(void)fwrite(terminal.restore, 1, terminal.restore_length, stdout);
}

void live_terminal_close(void)
{
	if (!terminal.screen)
		return;
	give_back();
	delscreen(terminal.screen);
	terminal.screen = NULL;
	release_signals();
	(void)release();
}

/* -- using it --------------------------------------------------------------------------------------------------- */

bool live_terminal_utf8(void)
{
	return terminal.utf8;
}

void live_terminal_size(int *ret_height, int *ret_width)
{
	getmaxyx(stdscr, *ret_height, *ret_width);
}

static attr_t attributes(unsigned int style)
{
	attr_t result = A_NORMAL;

	if (style & LIVE_BOLD)
		result |= A_BOLD;
	if (style & LIVE_DIM)
		result |= A_DIM;
	if (style & LIVE_REVERSE)
		result |= A_REVERSE;
	if (style & LIVE_UNDERLINE)
		result |= A_UNDERLINE;
	return result;
}

static short color_pair(unsigned int style)
{
	if (!terminal.color)
		return 0;
	return style & LIVE_GREW ? PAIR_GREW : style & LIVE_SHRANK ? PAIR_SHRANK : style & LIVE_ACCENT ? PAIR_ACCENT : 0;
}

static void draw_line(int row, const struct live_line *line)
{
	(void)move(row, 0);
	for (size_t i = 0; i < line->span_count; i++) {
		unsigned int style = line->spans[i].style | line->style;

		(void)attr_set(attributes(style), color_pair(style), NULL);
		(void)addnstr(line->text + line->spans[i].start, (int)line->spans[i].length);
	}
}

/* It is ours again when the shell says so, by making us its foreground job. */
static bool come_back(void)
{
	struct winsize size;

	if (!terminal.away)
		return true;
	if (!in_foreground(terminal.terminal_fd) || tcgetattr(terminal.terminal_fd, &terminal.modes) < 0)
		return false;
	terminal.away = false;
	(void)def_shell_mode();
	if (ioctl(terminal.terminal_fd, TIOCGWINSZ, &size) == 0 && size.ws_row && size.ws_col)
		(void)resizeterm(size.ws_row, size.ws_col);
	(void)clearok(curscr, TRUE);
	return true;
}

bool live_terminal_draw(const struct live_screen *screen)
{
	if (!is_ready() || !come_back())
		return false;
	if (terminal.stalled) {
		(void)dup2(terminal.terminal_fd, terminal.out_fd);
		terminal.stalled = 0;
		(void)clearok(curscr, TRUE);
	}
	(void)erase();
	for (int i = 0; i < screen->height; i++)
		draw_line(i, &screen->lines[i]);
	(void)attr_set(A_NORMAL, 0, NULL);
	(void)curs_set(screen->cursor_row >= 0);
	if (screen->cursor_row >= 0)
		(void)move(screen->cursor_row, screen->cursor_column);
	(void)wnoutrefresh(stdscr);
	watch(DRAW_PATIENCE_NSEC);
	(void)doupdate();
	watch(0);
	return !terminal.stalled;
}

/* Not by SIGSTOP: where no shell would ever continue us (the first process of a container, `docker exec`), the kernel
 * does not stop us by this one. */
static void stop_ourselves(void)
{
	const struct sigaction stop = {.sa_handler = SIG_DFL};
	struct sigaction before;

	terminal.suspend_requested = 0;
	give_back();
	(void)fflush(stdout);
	(void)sigaction(SIGTSTP, &stop, &before);
	(void)raise(SIGTSTP);
	(void)sigaction(SIGTSTP, &before, NULL);
}

static enum live_key special_key(wint_t code)
{
	switch (code) {
	case KEY_UP:
		return LIVE_KEY_UP;
	case KEY_DOWN:
		return LIVE_KEY_DOWN;
	case KEY_PPAGE:
		return LIVE_KEY_PAGE_UP;
	case KEY_NPAGE:
		return LIVE_KEY_PAGE_DOWN;
	case KEY_HOME:
		return LIVE_KEY_HOME;
	case KEY_END:
		return LIVE_KEY_END;
	case KEY_ENTER:
	case KEY_RIGHT:
		return LIVE_KEY_ENTER;
	case KEY_LEFT:
		return LIVE_KEY_BACK;
	case KEY_BACKSPACE:
		return LIVE_KEY_ERASE;
	default:
		return LIVE_KEY_TEXT; /* without a text: nothing */
	}
}

static enum live_key typed_key(wint_t code, char text[LIVE_KEY_TEXT_MAX])
{
	mbstate_t state = {0};
	char bytes[32];
	size_t length;

	if (code == '\r' || code == '\n')
		return LIVE_KEY_ENTER;
	if (code == ESCAPE)
		return LIVE_KEY_BACK;
	if (code == DELETE || code == '\b')
		return LIVE_KEY_ERASE;
	length = code < ' ' ? 0 : wcrtomb(bytes, (wchar_t)code, &state);
	if (length < LIVE_KEY_TEXT_MAX) {
		memcpy(text, bytes, length);
		text[length] = '\0';
	}
	return LIVE_KEY_TEXT;
}

enum live_input live_terminal_read(enum live_key *ret_key, char ret_text[LIVE_KEY_TEXT_MAX])
{
	wint_t code;
	int kind;

	if (terminal.suspend_requested) {
		stop_ourselves();
		return LIVE_INPUT_REDRAW;
	}
	if (terminal.away)
		return LIVE_INPUT_NONE;
	kind = get_wch(&code);
	if (kind == ERR)
		return LIVE_INPUT_NONE;
	ret_text[0] = '\0';
	if (kind == KEY_CODE_YES && code == KEY_RESIZE)
		return LIVE_INPUT_REDRAW;
	if (kind != KEY_CODE_YES && code == CTRL_L) {
		(void)clearok(curscr, TRUE);
		return LIVE_INPUT_REDRAW;
	}
	*ret_key = kind == KEY_CODE_YES ? special_key(code) : typed_key(code, ret_text);
	return LIVE_INPUT_KEY;
}
