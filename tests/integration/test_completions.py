# SPDX-License-Identifier: MIT
"""The completions in the shells that they are for, on a terminal, as a person has them: the PIDs of Python processes
with their command lines. (That they offer every option of --help is in test_cli.py.)"""
import os
import re
import shutil
import subprocess
import sys

import pytest

from helpers import PYLEAK, skip_here
from terminals import Terminal

NAME = "serves: l'été [x] $HOME `id`"  # what a careless script trips over


@pytest.fixture
def processes():
    """Two Pythons whose numbers begin alike."""
    started = []
    by_start = {}
    try:
        while not any(len(pids) > 1 for pids in by_start.values()):
            process = subprocess.Popen([sys.executable, "-c", "input()", NAME], stdin=subprocess.PIPE)
            started.append(process)
            by_start.setdefault(str(process.pid)[:-1], []).append(process.pid)
        yield next((start, pids) for start, pids in by_start.items() if len(pids) > 1)
    finally:
        for process in started:
            process.kill()
            process.communicate()


def shell(terminal, command, load):
    terminal.command("PATH=%s:$PATH LC_ALL=C.UTF-8 exec %s" % (os.path.dirname(PYLEAK), command))
    terminal.command(load + "; echo load''ed")
    terminal.wait("loaded")
    terminal.command("clear")
    terminal.wait(lambda screen: "loaded" not in screen)


SHELLS = {
    "bash": ("bash --norc --noprofile", "source <(pyleak completions bash)"),
    "zsh": ("zsh -f", "autoload -U compinit && compinit -D -u && source <(pyleak completions zsh)"),
    "fish": ("fish --no-config", "pyleak completions fish | source"),
}


@pytest.mark.parametrize("name", SHELLS)
def test_pids_with_their_command_lines(tmp_path, processes, name):
    if name == "fish" and not shutil.which("fish"):
        skip_here("fish")
    start, pids = processes
    with Terminal(tmp_path, 160, 50) as terminal:
        shell(terminal, *SHELLS[name])
        terminal.type("pyleak diff %s" % start)
        terminal.press("Tab", "Tab")
        listed = [r"\b%d\b.*%s" % (pid, re.escape(NAME)) for pid in pids]
        screen = terminal.wait(lambda text: all(re.search(line, text) for line in listed))
        assert "PYTHON" not in screen and re.search(r" [KM]iB\)", screen)
        terminal.press("C-u")
        terminal.command("clear")
        terminal.wait(lambda text: NAME not in text)
        # One that is alone is written out, and nothing but its number.
        terminal.type("pyleak doctor %d" % pids[0])
        terminal.press("Tab")
        terminal.type("--form")
        terminal.press("Tab")
        screen = terminal.wait(lambda text: re.search(r"pyleak doctor %d\s+--format" % pids[0], text))
        assert NAME not in screen.split("pyleak doctor")[1].splitlines()[0]


def test_what_the_scripts_ask_for(processes):
    answer = subprocess.run([PYLEAK, "completions", "pids"], capture_output=True, text=True, check=True)
    lines = dict(line.split("\t") for line in answer.stdout.splitlines())
    for pid in processes[1]:
        assert re.fullmatch(r"%s -c input\(\) .*\([\d.]+ [KMG]iB\)" % re.escape(sys.executable), lines[str(pid)])
        assert len(lines[str(pid)]) < 90
