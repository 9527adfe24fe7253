# SPDX-License-Identifier: MIT
"""Native frames: the functions between a line of Python and the allocator, without a stop and without harm."""
import json
import os
import random
import signal
import subprocess
import time

import pytest

import pythons
from helpers import (PYLEAK, VICTIMS, Pyleak, Victim, leftovers, library, line_of, needs_library, pyleak, skip_here,
                     wait_hooked, wait_until)
from test_exports import Page, open_page
from test_native import few_pythons

SCRIPT, SOURCE, CPP = VICTIMS / "frames.py", VICTIMS / "frames.c", VICTIMS / "frames_cpp.cpp"


def start(python, **keywords):
    if any(entry.root for entry in pythons.pythons() if entry.executable == python):
        needs_library(python, "frames")
    return Victim(python, SCRIPT.name, library("frames"), **keywords)


def row_of(document, mark, domain="native"):
    line = line_of(SCRIPT, "# line: %s" % mark)
    rows = [row for row in document["stats"] if row["domain"] == domain and row["lineno"] == line and
            os.path.basename(row["filename"]) == SCRIPT.name]
    assert len(rows) == 1, document
    return rows[0]


def functions(row):
    return [frame["function"] for frame in row["native"].get("frames", [])]


def places(row, name):
    return [frame["lineno"] for frame in row["native"]["frames"] if os.path.basename(frame["filename"]) == name]


def lines(path, *marks):
    return [line_of(path, "line: %s" % mark) for mark in marks]


def record(victim, *commands, arguments=()):
    """What the commands leave, recorded all the while."""
    with Pyleak("attach", victim.pid, "--format", "json", "--limit", 0, *arguments) as running:
        wait_hooked(victim.pid, running)
        time.sleep(0.1)
        for command in commands:
            victim.ask(command)
        document = running.finish(signal.SIGINT).json()
    assert not leftovers(victim.pid)
    return document


def test_functions_and_lines(python):
    """Inlined functions too, in the order of the calls, and across a frame that only rbp leads out of."""
    with start(python) as victim:
        for times in 1, 4, 16:  # on a busy machine pyleak comes late
            document = record(victim, *["work 0 1 60 0.6", "varied 60"] * times, arguments=["--native-frames", 64])
            row = row_of(document, "work")
            if functions(row) and functions(row_of(document, "varied")):
                break
        assert row["count"] == 60 * times
        assert functions(row)[-4:] == ["frames_work", "keep_buffer", "make_buffer", "allocate"], row
        assert places(row, "frames.c") == lines(SOURCE, "work", "keep", "inlined", "allocate"), row
        assert {os.path.basename(frame["module"]) for frame in row["native"]["frames"][-4:]} == {"victim_frames.so"}
        assert row["native"]["symbol"] == "allocate"
        assert places(row_of(document, "varied"), "frames.c") == lines(SOURCE, "varied", "keep", "inlined", "allocate")
        # What runs Python, and how it calls, is not in it.
        assert not [name for name in functions(row) if "Eval" in name or "main" in name.lower()], row


def test_function_that_forgets(one_python):
    """Both allocate at one line of Python, by one function of C; the one that frees does it five times as often."""
    with start(one_python) as victim:
        for times in 1, 4, 16:
            document = record(victim, *["work 5 1 150 2.2"] * times)
            row = row_of(document, "work")
            assert row["count"] == 150 * times and row["allocated"]["count"] == 900 * times
            if "keep_buffer" in functions(row):
                break
        assert places(row, "frames.c") == lines(SOURCE, "work", "keep", "inlined", "allocate"), row


def test_breakpoint_engine(python):
    """The same of Python's own allocators, by libunwind at the stop, or where it does not find the objects by ours."""
    with start(python) as victim:
        for times in 1, 4, 16:
            document = record(victim, *["python 100"] * times, arguments=["--engine", "breakpoint", "--group-by", "traceback"])
            row = row_of(document, "python", "python")
            if [frame for frame in row["traceback"] if frame.get("native")]:
                break
        assert row["count"] == 100 * times
        native = [frame for frame in row["traceback"] if frame.get("native")]
        assert native and native == row["traceback"][-len(native):], row
        ours = [(frame["function"], frame["lineno"]) for frame in native if os.path.basename(frame["filename"]) == SOURCE.name]
        assert ours == list(zip(["frames_python", "keep_pythons"], lines(SOURCE, "all of python's", "python's"))), row
        assert native[-1]["function"] in ("keep_pythons", "PyMem_RawMalloc"), row


@few_pythons
def test_pythons_own_allocators(python):
    """What an extension asks of Python's allocators, without a stop: of a part, and only where it is not the interpreter."""
    with start(python) as victim:
        for times in 1, 2, 8:
            row = row_of(record(victim, *["pythons 1500"] * times), "asked of it", "python")
            if "native" in row and "keep_pythons" in functions(row):
                break
        assert row["count"] >= 1500 * times and row["freed"]["count"] >= 7500 * times
        # Of the functions that asked for most of what lives; what the interpreter does in between is left out.
        frames = row["native"]["frames"]
        assert frames[-1]["function"] == "keep_pythons" and "frames_pythons" in functions(row), row
        assert places(row, SOURCE.name)[-2:] == lines(SOURCE, "with the gil", "python's"), row
        assert os.path.basename(row["native"]["module"]) == "victim_frames.so" and row["native"]["symbol"] == "keep_pythons"


def test_cplusplus(one_python):
    if not os.path.exists(library("frames_cpp")):
        skip_here("c++")
    with Victim(one_python, SCRIPT.name, library("frames"), library("frames_cpp")) as victim:
        for times in 1, 4, 16:
            row = row_of(record(victim, *["cpp 300"] * times), "cpp")
            if functions(row):
                break
        names = functions(row)
        assert names[names.index("frames_cpp"):][:2] == ["frames_cpp", "shop::Keeper<shop::Item>::keep(int)"], row
        assert names[-1].startswith("operator new"), row
        assert lines(CPP, "new")[0] in places(row, CPP.name)


def test_reports(one_python, tmp_path):
    """The merged traceback is in every format, and in a recording."""
    tape = tmp_path / "tape.pyleak"
    with start(one_python) as victim:
        with Pyleak("attach", victim.pid, "--output", tape) as running:
            wait_hooked(victim.pid, running)
            time.sleep(0.1)
            victim.ask("work 0 1 300 3")
            assert running.finish(signal.SIGINT).status == 0
        text = pyleak("report", tape, "--domain", "native").stdout
        head = text.index("%s:%d:" % (SCRIPT, line_of(SCRIPT, "# line: work")))
        assert "native: victim_frames.so (allocate), " in text[head:]
        below = [line for line in text[head:].splitlines() if line.startswith("    called by: ")]
        assert ["make_buffer" in below[0], "keep_buffer" in below[1], "frames_work" in below[2]] == [True] * 3, text
        assert "frames.c\", line %d, in keep_buffer (victim_frames.so)" % lines(SOURCE, "keep")[0] in text
        traceback = text[text.index("memory_blocks="):]
        order = [traceback.index(name) for name in (SCRIPT.name, "frames_work", "keep_buffer", "make_buffer", "in allocate")]
        assert order == sorted(order), text
        folded = pyleak("report", tape, "--format", "folded").stdout
        assert ";keep_buffer (" in folded and folded.index("frames_work (") < folded.index(";keep_buffer ("), folded


def test_none(one_python):
    with start(one_python) as victim:
        row = row_of(record(victim, "work 0 1 60 0.6", arguments=["--native-frames", 0]), "work")
        assert row["native"]["symbol"] == "allocate" and "frames" not in row["native"]
        row = row_of(record(victim, "work 0 1 300 3", arguments=["--native-frames", 2]), "work")
        assert functions(row) == ["make_buffer", "allocate"]
    result = pyleak("attach", 1, "--native-frames", 65)
    assert result.status == 2 and "native-frames" in result.stderr


@few_pythons
def test_other_stacks(python):
    """A coroutine's, a signal handler's alternate one, threads with small stacks and without a guard; and a child. A byte
    too much would be the end of the process."""
    with start(python) as victim:
        with Pyleak("attach", victim.pid, "--format", "json", "--limit", 0) as running:
            wait_hooked(victim.pid, running)
            for _ in range(3):
                assert victim.ask("contexts 3000") == 3000
                assert victim.ask("signals 3000") == 3000
                assert victim.ask("threads 16 100") == 16
                assert victim.ask("fork 200") == 42
            document = running.finish(signal.SIGINT).json()
        assert not leftovers(victim.pid)
        for row in document["stats"]:
            if row["domain"] == "native" and row["lineno"] in lines(SCRIPT, "contexts", "signals"):
                assert row["count"] == 9000 and not functions(row), row
        rows = [row for row in document["stats"] if row["function"] == "allocate" and row["lineno"] == 0]
        assert len(rows) == 1 and rows[0]["count"] == 3 * 16 * 100, rows
        names = functions(rows[0])
        assert names[-4] == "run_thread" and names[-2:] == ["make_buffer", "allocate"], rows


@few_pythons
def test_killed(python):
    """At any instant: the process works on, and nothing more is copied than had been granted."""
    with start(python) as victim:
        for _ in range(6):
            with Pyleak("attach", victim.pid) as running:
                wait_hooked(victim.pid, running)
                victim.tell("work 20 1 100 0.5")
                time.sleep(random.random() * 0.5)
                running.process.kill()
                assert victim.line() == "null"
                victim.ask("work 20 1 50 0")
                assert victim.ask("threads 4 20") == 4
            wait_until(lambda: not leftovers(victim.pid), 30, "the guardian has removed it")
            victim.ask("work 20 1 50 0")


def test_several_readers(one_python):
    """Each sees the stacks of a probe that was left in place, from when it came; afterwards nobody copies any."""
    with start(one_python) as victim:
        assert pyleak("attach", victim.pid, "--keep").status == 0
        victim.ask("work 0 1 60 0")
        arguments = ["diff", victim.pid, "--interval", "1.2s", "--format", "json", "--limit", 0]
        with Pyleak(*arguments) as one, Pyleak(*arguments) as two:
            for _ in range(10):
                victim.ask("work 3 1 30 0.2")
            for running in one, two:
                assert functions(row_of(running.finish(None).json(), "work"))[-1] == "allocate"
        victim.ask("work 0 1 60 0")
        assert pyleak("detach", victim.pid).status == 0
        assert not leftovers(victim.pid)


def test_threads_of_a_librarys_own(one_python, tmp_path):
    """No line is said to have allocated what such a thread did; but the thread is named, and who was busy meanwhile."""
    script, tape = VICTIMS / "workers.py", tmp_path / "tape.pyleak"
    with Victim(one_python, script.name, library("workers")) as victim:
        for times in 1, 4, 16:  # on a busy machine pyleak comes late
            with Pyleak("attach", victim.pid, "--output", tape, "--force") as running:
                wait_hooked(victim.pid, running)
                time.sleep(0.1)
                for _ in range(times):
                    victim.ask("work 300")
                assert running.finish(signal.SIGINT).status == 0
            document = json.loads(pyleak("report", tape, "--format", "json", "--limit", 0).stdout.splitlines()[-1])
            rows = [row for row in document["stats"] if row["domain"] == "native" and
                    os.path.basename(row["filename"]) == "victim_workers.so"]
            assert [row["count"] for row in rows] == [300 * times], rows
            thread = rows[0]["native"].get("thread", {})
            if thread.get("meanwhile", {}).get("lineno") == line_of(script, "# line: keeps"):
                break
        assert thread["name"] == "victim-worker", rows
        assert thread["runs"]["function"] == "run_worker", rows
        assert os.path.basename(thread["runs"]["module"]) == "victim_workers.so", rows
        # Three blocks of four were allocated beside the other line; they do not live.
        assert os.path.basename(thread["meanwhile"]["filename"]) == script.name, rows
        assert thread["meanwhile"]["lineno"] == line_of(script, "# line: keeps"), rows
        text = pyleak("report", tape, "--domain", "native").stdout
        assert "\n    thread: victim-worker, runs run_worker (victim_workers.so)\n" in text, text
        assert "\n    meanwhile: %s:%d\n" % (script, line_of(script, "# line: keeps")) in text, text
        page = tmp_path / "page.html"
        assert pyleak("report", tape, "--limit", 0, "--output", page).status == 0
        rows = Page(open_page(page, tmp_path)).cells
        assert ["thread: victim-worker, runs run_worker (victim_workers.so)meanwhile: %s:%d" % (
            script, line_of(script, "# line: keeps")) in row for row in rows if "victim_workers.so" in row] == [True], rows
        document = json.loads(pyleak("report", tape, "--format", "json", "--limit", 0, "--group-by", "caller").stdout.splitlines()[-1])
        row = [row for row in document["stats"] if os.path.basename(row["filename"]) == "victim_workers.so"]
        assert [(one["function"], one["count"]) for one in row] == [("run_worker", 300 * times)], row
