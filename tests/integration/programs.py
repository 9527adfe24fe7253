# SPDX-License-Identifier: MIT
"""Programs that a test brings along as text, and what the inline engine says of them.

A program says meet("word") where the test is to look at it: it prints the word and waits for the
answer. Lines whose figures are expected end in a comment `# at NAME`.
"""
import contextlib
import functools
import os
import re
import signal
import struct
import subprocess

from helpers import PROBE_FIRST, PROBE_PLACES, TABLES_FIRST, TABLES_STEP, Pyleak, Victim, wait_hooked

HEADER = """\
import gc, os, sys, threading, time
def meet(word):
    sys.stdout.write(word + "\\n"); sys.stdout.flush()
    return sys.stdin.readline().strip()
"""

# include/pyleak/inline_abi.h
CONTROL = ("mode", "next_chunk", "next_site", "next_frame", "next_code", "next_arena", "code_generation", "lost_events",
           "lost_sites", "lost_codes", "untraced", "freed_unknown")


@functools.lru_cache(None)
def bytes_header(python):
    """What a bytes object of this Python is larger than its content."""
    return int(subprocess.check_output([python, "-c", "import sys; print(sys.getsizeof(b''))"]))


class Program(Victim):
    def __init__(self, python, folder, text, *arguments, ready="ready", **keywords):
        self.path = os.path.join(str(folder), "program.py")
        with open(self.path, "w") as file:
            file.write(HEADER + text)
        with open(self.path) as file:
            self.lines = {match.group(1): number for number, line in enumerate(file, 1)
                          for match in re.finditer(r"# at ([\w-]+)$", line.rstrip())}
        self.header = bytes_header(python)
        Victim.__init__(self, python, None, self.path, *arguments, ready=ready, **keywords)

    def meet(self, word, seconds=60):
        """Answers the last meeting and waits for the next."""
        self.tell("go")
        said = self.line(seconds)
        assert said == word, said


class Recorded:
    """What a recording is, once it is over."""
    result = document = None


@contextlib.contextmanager
def recorded(victim, *arguments, engine="inline", status=0, **keywords):
    """Records what the victim does meanwhile; the result is in the object when the block has ended."""
    record = Recorded()
    arguments = ("attach", victim.pid, "--engine", engine, "--format", "json", "--limit", 0) + arguments
    with Pyleak(*arguments, **keywords) as running:
        wait_hooked(victim.pid, running)
        record.running = running
        yield record
        record.result = running.finish(signal.SIGTERM)
    if status is not None:
        assert record.result.status == status, record.result
    if record.result.stdout:
        record.document = record.result.json()


def figures(document, program):
    """{(file, line): (size, count)} of the live blocks; a file of the program's folder by its base name."""
    folder = os.path.dirname(program.path)
    table = {}
    for row in document["stats"]:
        name = row["filename"]
        key = (os.path.basename(name) if os.path.dirname(name) == folder else name, row["lineno"])
        size, count = table.get(key, (0, 0))
        if row["size"] or row["count"]:
            table[key] = (size + row["size"], count + row["count"])
    return table


def at(document, program):
    """The same of the marked lines, by their names."""
    table = figures(document, program)
    return {name: table.get(("program.py", line), (0, 0)) for name, line in program.lines.items()}


def assert_kept(found, size, count):
    """What the program keeps at a line, and at most three blocks more: CPython may make a frame or a
    tuple there and park it in a free list, or take it from there for another line."""
    assert count <= found[1] <= count + 3 and size <= found[0] <= size + 8192, (found, (size, count))


def assert_nothing_lost(document):
    assert document["lost"] == {"events": 0, "sites": 0}


def control(pid):
    """The counters in the control page of the probe."""
    with open("/proc/%d/maps" % pid) as file:
        starts = {int(line.split("-")[0], 16) for line in file}
    with open("/proc/%d/mem" % pid, "rb", buffering=0) as memory:
        for i in range(PROBE_PLACES):
            if TABLES_FIRST + i * TABLES_STEP in starts:
                memory.seek(TABLES_FIRST + i * TABLES_STEP)
                return dict(zip(CONTROL, struct.unpack("<12Q", memory.read(96))))
    raise AssertionError("no tables in process %d (probes begin at %x)" % (pid, PROBE_FIRST))
