# SPDX-License-Identifier: MIT
"""The live view of `pyleak attach`, on real terminals."""
import os
import re
import signal
import subprocess
import time

import pytest

from helpers import PYLEAK, Trace, Victim, VICTIMS, line_of, state, status, wait_clean, wait_hooked, wait_until
from terminals import Frozen, Terminal

LEAK = "leak.py:%d" % line_of(VICTIMS / "leak.py", "# leaks here")
KEYS = "q quit"


@pytest.fixture
def leaking(one_python):
    with Victim(one_python, "leak.py") as victim:
        yield victim
        assert victim.alive()


@pytest.fixture
def leaking_once(one_python):
    with Victim(one_python, "leak.py") as victim:
        yield victim


def pyleak_in(terminal):
    """The PID of the pyleak that runs in this terminal."""
    tty = terminal.tmux("display-message", "-p", "#{pane_tty}").strip()

    def there():
        found = subprocess.run(["ps", "-t", tty, "-o", "pid=,comm="], capture_output=True, text=True, check=False).stdout
        return [int(line.split()[0]) for line in found.splitlines() if line.split()[1] == "pyleak"]
    return wait_until(there, 10, "pyleak runs in the terminal")[0]


def start(terminal, victim, *arguments):
    terminal.command(PYLEAK, "attach", victim.pid, *arguments)
    return terminal.wait(KEYS)


def test_who_holds_a_row(leaking, tmp_path):
    """By a key in an opened row; the view goes on, and so does the process."""
    with Terminal(tmp_path, 100, 50) as terminal:
        start(terminal, leaking)
        leaking.tell("leak 20000")
        assert leaking.line() == "leaked"
        terminal.wait(LEAK)
        terminal.press("Enter")
        terminal.wait("most recent call last")
        terminal.type("h")
        screen = terminal.wait("(it was stopped for")
        held = re.search(r"held by: (\S+) \(([\d,]+) of ([\d,]+) blocks\)", screen)
        assert held and "kept" in held[1] and int(held[2].replace(",", "")) >= 19990, screen
        leaking.tell("leak 1000")
        assert leaking.line() == "leaked"
        terminal.type("q")
        terminal.wait("LINE")
        terminal.press("Enter")
        terminal.wait("most recent call last")
        assert "held by" not in terminal.screen()
        terminal.type("h")
        terminal.press("C-c")
        terminal.wait("total: ")
    wait_clean(leaking.pid, 10)


def test_session(leaking, tmp_path):
    """From the command to the report: a leak is seen to grow, is found, opened, filtered; and all is as it was."""
    before = Trace(leaking.pid)
    with Terminal(tmp_path, 80, 50) as terminal:
        modes = terminal.modes()
        screen = start(terminal, leaking)
        assert terminal.modes() != modes, "it would go by unnoticed if they were not given back"
        assert re.match(r"%d Python 3\S+ up \d+\w " % leaking.pid, screen), screen
        leaking.tell("leak 20000")
        assert leaking.line() == "leaked"
        screen = terminal.wait(LEAK)
        row = next(line for line in screen.splitlines() if LEAK in line)
        assert re.match(r" +703 KiB +\+703 KiB +20000 +36 B +\S", row), row
        assert re.search(r"tracked 7\d\d KiB, \+7\d\d KiB in \d", screen)
        assert re.search(r"RSS +\d+\.\d MiB, \+\d+", screen)
        assert re.search(r"stopped for [\d.]+ .?s, tables [\d.]+ \w+, \d+ allocations/s", screen)
        terminal.press("Enter")
        screen = terminal.wait("most recent call last")
        assert "\u2588" in screen and "    kept[i] = BASE + i  # leaks here\n" in screen
        terminal.type("q")
        terminal.wait("LINE")
        terminal.type("/encode")
        terminal.wait("filter: encode")
        terminal.wait(lambda text: LEAK not in text)
        terminal.press("Escape")
        terminal.wait(LEAK)
        terminal.type("u")
        terminal.wait("(leak)")
        terminal.type("b")
        terminal.wait("since baseline")
        terminal.type("p")
        terminal.wait("FROZEN")
        terminal.type("?")
        terminal.wait("new baseline: changes")
        terminal.press("C-c")
        screen = terminal.wait("memory_blocks=20000")
        assert "(leak): size=703 KiB" in screen.replace("\n", ""), "in the grouping of the view"
        assert terminal.status() == 0
        assert terminal.modes() == modes
    wait_clean(leaking.pid, 2)
    assert not before.differences(leaking.pid)


def test_the_report_judges_like_the_view(leaking, tmp_path):
    """A row that was steady on the screen is so in the report after it."""
    with Terminal(tmp_path, 100, 40) as terminal:
        start(terminal, leaking, "-i", "1s")

        last = [0]

        def steady(text):
            if time.monotonic() - last[0] > 0.3:
                last[0] = time.monotonic()
                leaking.tell("leak 500")
                assert leaking.line() == "leaked"
            return any(LEAK in line and "steady" in line for line in text.splitlines())
        terminal.wait(steady, seconds=60)
        terminal.type("q")
        screen = terminal.wait("total: size=")
        assert "steady growth" in screen.replace("\n", " "), screen
        assert terminal.status() == 0


@pytest.mark.parametrize("columns, lines", [(40, 10), (80, 24), (200, 50)])
def test_size(leaking, tmp_path, columns, lines):
    leaking.tell("leak 20000")
    with Terminal(tmp_path, columns, lines) as terminal:
        start(terminal, leaking, "-i", "200ms")
        leaking.tell("leak 20000")
        screen = terminal.wait(LEAK)
        assert len(screen.splitlines()) == lines
        assert {40: "CHANGE LINE", 80: "AVERAGE TREND  LINE", 200: "AGE TREND  LINE"}[columns] in screen
        assert ("kept[i] = BASE + i" in "".join(screen.splitlines()[:-2])) == (columns == 200), "there is room for the source"
        # And on a window that changes its size, as windows do.
        for size in ((100, 30), (20, 5), (3, 1), (columns, lines)):
            terminal.resize(*size)
            terminal.wait(lambda text, size=size: len(text.splitlines()) <= size[1])
        screen = terminal.wait(LEAK)
        assert len(screen.splitlines()) == lines
        terminal.type("q")
        terminal.wait("memory_blocks=" if lines > 10 else "over all ")
        assert terminal.status() == 0


@pytest.mark.parametrize("how", ["TERM=dumb", "TERM=no-such-terminal", "input", "background", "json"])
def test_no_terminal_for_a_view(leaking, tmp_path, how):
    """Then there is one report, at the end, and nothing of a view."""
    with Terminal(tmp_path, columns=120, **(dict([how.split("=")]) if "=" in how else {})) as terminal:
        modes = terminal.modes()
        ends = {"input": "</dev/null", "background": "& wait", "json": "--format json"}
        terminal.command(PYLEAK, "attach", leaking.pid, "-d", "1500ms", ends.get(how, ""))
        wait_hooked(leaking.pid)
        leaking.tell("leak 20000")
        screen = terminal.wait('"freed"' if how == "json" else "memory_blocks=20000")
        assert KEYS not in screen
        assert terminal.status() == 0
        assert terminal.modes() == modes


def test_characters_and_colors(leaking, tmp_path):
    """A terminal without UTF-8 gets ASCII, one that wants no color gets none."""
    for index, (environment, option, ascii_only, colored) in enumerate((
            ({}, "", False, True), ({"LANG": "C"}, "--color=always", True, True), ({"NO_COLOR": "1"}, "", False, False),
            ({}, "--color=never", False, False), ({"TERM": "vt220"}, "", False, False))):
        folder = tmp_path / str(index)
        folder.mkdir()
        with Terminal(folder, **environment) as terminal:
            start(terminal, leaking, option, "-i", "200ms")
            leaking.tell("leak 1000")
            terminal.wait(LEAK)
            screen = terminal.screen("-e")
            text = terminal.screen()
            assert text.isascii() == ascii_only, text
            assert bool(re.search(r"\x1b\[[0-9;]*3[0-7]m", screen)) == colored, screen
            assert "\x1b[7m" in screen or "\x1b[0;7m" in screen or ";7m" in screen, "the selected row is in reverse"
            terminal.press("C-c")
            terminal.wait("memory_blocks")


@pytest.mark.parametrize("name", ["xterm-unheard-of", "kitty-of-tomorrow"])
def test_unknown_but_like_xterm(leaking, tmp_path, name):
    """A container knows nothing of the terminal that somebody sits at."""
    assert subprocess.run(["infocmp", name], capture_output=True, check=False).returncode != 0
    with Terminal(tmp_path, TERM=name) as terminal:
        modes = terminal.modes()
        start(terminal, leaking)
        leaking.tell("leak 1000")
        terminal.wait(LEAK)
        terminal.press("Down", "End", "Enter")
        terminal.wait("most recent call last")
        terminal.press("C-c")
        terminal.wait("memory_blocks")
        assert terminal.status() == 0
        assert terminal.modes() == modes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGSEGV, signal.SIGABRT, signal.SIGQUIT],
                         ids=lambda number: number.name)
def test_killed(leaking, tmp_path, number):
    """However it ends, the terminal is whole again and the process is let go."""
    before = Trace(leaking.pid)
    with Terminal(tmp_path) as terminal:
        terminal.command("ulimit -c 0")
        modes = terminal.modes()
        start(terminal, leaking)
        os.kill(pyleak_in(terminal), number)
        if number in (signal.SIGTERM, signal.SIGHUP):
            terminal.wait("total: size=")
            assert terminal.status() == 0
        else:
            assert terminal.status() in (128 + number, 1)  # 1: a sanitizer has caught it after us
        assert terminal.modes() == modes
        assert KEYS not in terminal.screen()
    wait_clean(leaking.pid, 5)
    assert not before.differences(leaking.pid)


def test_suspended(leaking, tmp_path):
    """^Z gives the terminal back, the recording goes on, and fg brings the view back, on a window of any size."""
    with Terminal(tmp_path) as terminal:
        modes = terminal.modes()
        start(terminal, leaking)
        pid = pyleak_in(terminal)
        terminal.press("C-z")
        terminal.wait("Stopped")
        assert state(pid) == "T"
        assert terminal.modes() == modes
        leaking.tell("leak 20000")
        assert leaking.line() == "leaked"
        terminal.resize(100, 20)
        modes = terminal.modes()
        # In the background it does not draw, and reads no keys.
        terminal.command("bg")
        wait_until(lambda: state(pid) != "T", 5, "it goes on")
        terminal.command("echo", "still a shell")
        terminal.wait("\nstill a shell")
        time.sleep(1.5)
        assert KEYS not in terminal.screen()
        assert terminal.modes() == modes
        terminal.command("fg")
        screen = terminal.wait(KEYS)
        assert len(screen.splitlines()) == 20
        terminal.wait(LEAK)
        terminal.type("q")
        terminal.wait("memory_blocks=20000")
        assert terminal.status() == 0
        assert terminal.modes() == modes


def test_nobody_would_continue_it(leaking):
    """In a session without a shell, ^Z must not stop it for ever."""
    with Frozen(PYLEAK, "attach", leaking.pid) as running:
        wait_hooked(leaking.pid)
        wait_until(lambda: b"quit" in running.read(), 10, "the view")
        running.process.send_signal(signal.SIGTSTP)
        # It gives the terminal back, finds itself still running, and takes it again.
        text = b""
        for _ in range(5):
            text += running.read()
        assert text.index(b"\x1b[?1049l") < text.index(b"\x1b[?1049h")
        assert state(running.process.pid) != "T"
        os.write(running.master, b"q")
        assert b"total: size=" in running.read_all()
        assert running.process.returncode == 0


def test_breakpoint_is_not_suspended(leaking, tmp_path):
    """Threads would stand still at breakpoints."""
    with Terminal(tmp_path) as terminal:
        start(terminal, leaking, "-e", "breakpoint")
        terminal.press("C-z")
        terminal.type("?")
        terminal.wait("any key back")
        terminal.type("x")
        assert state(pyleak_in(terminal)) != "T"
        leaking.tell("leak 200")
        assert leaking.line() == "leaked"
        terminal.wait(LEAK)
        terminal.type("q")
        terminal.wait("total: size=")
        assert terminal.status() == 0


@pytest.mark.parametrize("engine_name", ["inline", "breakpoint"])
def test_terminal_that_takes_nothing(leaking, engine_name):
    """A connection hangs: the process goes on, and pyleak ends when it is told to."""
    before = Trace(leaking.pid)
    with Frozen(PYLEAK, "attach", leaking.pid, "-e", engine_name, "-i", "100ms") as frozen:
        wait_hooked(leaking.pid)
        # Each press of ^L is a whole new screen.
        for _ in range(100):
            os.write(frozen.master, b"\x0c")
            time.sleep(0.02)
        assert frozen.process.poll() is None
        for _ in range(5):
            leaking.tell("leak 20")
            assert leaking.line(10) == "leaked"
        frozen.process.send_signal(signal.SIGTERM)
        wait_clean(leaking.pid, 5)
        # The report waits for its reader; the process does not.
        text = frozen.read_all()
        assert frozen.process.returncode == 0
        assert b"total: size=" in text
        assert text.rindex(b"\x1b[?1049l") < text.rindex(b"total: size="), "back on the normal screen"
    assert not before.differences(leaking.pid)


def test_process_ends(leaking_once, tmp_path):
    with Terminal(tmp_path) as terminal:
        modes = terminal.modes()
        start(terminal, leaking_once)
        leaking_once.tell("leak 20000")
        terminal.wait(LEAK)
        leaking_once.process.kill()
        leaking_once.process.wait()
        screen = terminal.wait("memory_blocks=20000")
        assert "ended while it was watched" in screen.replace("\n", "")
        assert terminal.status() == 1
        assert terminal.modes() == modes


def test_messages_do_not_tear_the_view(leaking, tmp_path):
    """They are shown in it, and printed after it."""
    with Terminal(tmp_path, columns=100) as terminal:
        start(terminal, leaking, "--verbose")
        screen = terminal.wait("a snapshot took")
        assert screen.splitlines()[-2].startswith("a snapshot took")
        assert screen.startswith(str(leaking.pid))
        terminal.type("q")
        terminal.wait("ptrace steps")
        assert "pyleak: a snapshot took" in terminal.screen("-S", "-200")
        assert terminal.status() == 0


def test_duration_and_adopted(leaking, tmp_path):
    """A probe that was left in place is read by a view as well, and stays."""
    subprocess.run([PYLEAK, "attach", str(leaking.pid), "--keep"], check=True)
    leaking.tell("leak 20000")
    assert leaking.line() == "leaked"
    with Terminal(tmp_path, 100) as terminal:
        terminal.command(PYLEAK, "attach", leaking.pid, "-d", "3s")
        row = terminal.wait(LEAK)
        assert re.search(r"20000 +36 B .* >\ds ", row), "of unknown age"
        terminal.wait("memory_blocks=20000")
        assert terminal.status() == 0
    assert "TracerPid" in status(leaking.pid)
    subprocess.run([PYLEAK, "detach", str(leaking.pid)], check=True)
    wait_clean(leaking.pid, 2)
