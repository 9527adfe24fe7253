# SPDX-License-Identifier: MIT
"""What the live blocks of a row are."""
import os
import re
import signal

import pytest

import pythons
from conftest import all_pythons
from helpers import PYLEAK, VICTIMS, Pyleak, Victim, line_of, pyleak, wait_hooked
from programs import Program
from terminals import Terminal
from test_exports import Page, open_page

COUNT = 648
SOURCE = VICTIMS / "kept.py"
REPORTS, LISTS, RAISES = (line_of(SOURCE, mark) for mark in ("# reports", "# two lists", "raise KeyError"))


def recorded(victim, *arguments):
    with Pyleak("attach", victim.pid, "--limit", 0, *arguments) as running:
        wait_hooked(victim.pid, running)
        victim.tell(str(COUNT))
        assert victim.line() == "done"
        result = running.finish(signal.SIGINT)
    assert result.status == 0, result
    return result


def types_of(document, line):
    row = next(row for row in document["stats"] if row["filename"].endswith("kept.py") and row["lineno"] == line)
    return {item["type"]: item["count"] for item in row["types"]}


def parked_before(count, times):
    """What CPython had parked before the recording began is older than it, and was given out first."""
    return 0.95 * times * COUNT <= count <= times * COUNT


def ends():
    """The oldest, the newest, and one without a GIL; and two of which the one has objects' headers that the other has not."""
    found = all_pythons()
    chosen = found[:1] + found[-1:] + [entry for entry in found if pythons.label(entry).startswith("3.11")][:1]
    chosen += [entry for entry in found if "t" in pythons.label(entry)][-1:]
    return sorted({entry.executable: pythons.label(entry) for entry in chosen}.items())


@pytest.mark.parametrize("python", [executable for executable, _ in ends()], ids=[label for _, label in ends()])
def test_types(python):
    """Each object is counted once, where all blocks were looked at: of the row of lists some 2,000 of 3,228 are."""
    with Victim(python, "kept.py") as victim:
        document = recorded(victim, "--format", "json").json()
    raised = types_of(document, RAISES)
    assert parked_before(raised["KeyError"], 1) and parked_before(raised["traceback"], 1), raised
    # The class's name has its module; its attributes' table is no object of the line's where it lies in the object.
    assert types_of(document, REPORTS)["__main__.Report"] == COUNT
    lists = types_of(document, LISTS)
    assert lists["list"] == pytest.approx(2 * COUNT, rel=0.12) and lists["set"] == pytest.approx(COUNT, rel=0.12), lists
    frames = sum(item["count"] for row in document["stats"] for item in row["types"] if item["type"] == "frame")
    assert 0.95 * COUNT <= frames <= COUNT + 5, document["stats"]


def test_more_than_are_looked_at(one_python):
    """Of 60,000 lists some are looked at, and stand for the others."""
    with Victim(one_python, "kept.py") as victim:
        with Pyleak("attach", victim.pid, "--limit", 0, "--format", "json") as running:
            wait_hooked(victim.pid, running)
            victim.tell("60000")
            assert victim.line() == "done"
            document = running.finish(signal.SIGINT).json()
    lists = types_of(document, LISTS)
    assert lists["list"] == pytest.approx(120000, rel=0.15) and lists["set"] == pytest.approx(60000, rel=0.25), lists


def test_shown(one_python, tmp_path):
    """In the text, on the page, and in the row that is opened in the live view."""
    with Victim(one_python, "kept.py") as victim:
        text = recorded(victim).stdout
        assert re.search(r"kept.py:%d: .*\n.*# reports\n    # live: %d __main__.Report\n" % (REPORTS, COUNT), text), text
        path = tmp_path / "kept.html"
        recorded(victim, "-o", path)
        assert "live: %d __main__.Report" % COUNT in Page(open_page(path, tmp_path)).texts["rows"]
        with Terminal(tmp_path, 80, 40) as terminal:
            terminal.command(PYLEAK, "attach", victim.pid)
            terminal.wait("q quit")
            victim.tell(str(COUNT))
            terminal.wait("kept.py:%d" % REPORTS)
            terminal.press("Enter")
            terminal.wait("live: ")
            terminal.press("C-c")


FAMILY = """
for number in range(3):
    if os.fork() == 0:
        kept = []
        while True:
            kept.append("kept %d" % len(kept))  # at keeps
            time.sleep(0.001)
meet("ready")
"""


def test_in_how_many_processes(one_python, tmp_path):
    """Of a family a row says in how many of its processes it has something."""
    with Program(one_python, tmp_path, FAMILY, start_new_session=True) as victim:
        try:
            arguments = ("diff", victim.pid, "--children", "--interval", "500ms", "-n", 0)
            text = pyleak(*arguments).stdout
            document = pyleak(*arguments, "--format", "json").json()
        finally:
            os.killpg(victim.pid, signal.SIGKILL)
    line = victim.lines["keeps"]
    assert re.search(r"program.py:%d: .*\n.*\n(    # .*\n)*    # in 3 of 4 processes\n" % line, text), text
    (row,) = [row for row in document["stats"] if row["lineno"] == line and row["domain"] == "python"]
    assert row["processes"] == 3
