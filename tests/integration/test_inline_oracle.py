# SPDX-License-Identifier: MIT
"""The inline engine, the breakpoint engine and tracemalloc say the same, by line and by traceback."""
import collections
import json
import os
import signal
import subprocess

import pytest

import pythons
from helpers import VICTIMS, Pyleak, Victim, line_of, wait_hooked
from test_oracle import COMPILES, by_tracemalloc, figures, workload_lines

WORKLOAD = VICTIMS / "workload.py"


def by_pyleak(python, engine, *arguments, environment=None):
    with Victim(python, "workload.py", "watched", env=dict(os.environ, **(environment or {}))) as victim:
        with Pyleak("attach", victim.pid, "--engine", engine, "--format", "json", "--limit", 0,
                    "--no-free-lists", *arguments) as running:
            wait_hooked(victim.pid, running)
            victim.tell("go")
            assert victim.line(120) == "done"
            result = running.finish(signal.SIGTERM)
        assert result.status == 0, result
        assert victim.alive()
    document = result.json()
    assert document["engine"] == engine
    assert document["lost"] == {"events": 0, "sites": 0}
    return document


def lines_of(document):
    table = {}
    for row in document["stats"]:
        if row["domain"] == "python" and row["filename"].endswith(".py"):
            table[os.path.basename(row["filename"]), row["lineno"]] = row["size"], row["count"]
    return figures(table)


def cut(frames):
    """A traceback, most recent call first, without the end that is not the workload's own: main()
    calls run() at another line for each of them. None: the workload has no part in it."""
    last = line_of(WORKLOAD, "def main():")
    first, end = workload_lines()
    frames = [(os.path.basename(name), line) for name, line in frames]
    while frames and frames[-1][0] == WORKLOAD.name and frames[-1][1] >= last:
        frames.pop()
    if not frames or frames[0] == COMPILES or not (frames[0][0].startswith("made-up-")
                          or frames[0][0] == WORKLOAD.name and first < frames[0][1] < end):
        return None
    return tuple(frames)


def by_traceback(triples):
    table = collections.defaultdict(lambda: [0, 0])
    for frames, size, count in triples:
        key = cut(frames)
        if key and count:
            table[key][0] += size
            table[key][1] += count
    return {key: tuple(value) for key, value in table.items()}


def tracebacks_of(document):
    """Of Python's frames: native ones below them are those of a part of the allocations."""
    tracebacks = [[frame for frame in row["traceback"] if "native" not in frame] for row in document["stats"]]
    assert all(len(traceback) <= document["frames"] for traceback in tracebacks)
    return by_traceback(([(frame["filename"], frame["lineno"]) for frame in reversed(traceback)],
                         row["size"], row["count"]) for traceback, row in zip(tracebacks, document["stats"]))


def tracebacks_of_tracemalloc(python, frames):
    output = subprocess.run([python, str(WORKLOAD), "allocators", str(frames)], stdout=subprocess.PIPE,
                            check=True).stdout
    return by_traceback(json.loads(output))


def assert_same(expected, found, names):
    wrong = ["%s: %s %s, %s %s" % (key, names[0], expected.get(key), names[1], found.get(key))
             for key in sorted(set(expected) | set(found)) if expected.get(key) != found.get(key)]
    assert not wrong, "%d differ:\n%s" % (len(wrong), "\n".join(wrong[:20]))


def test_lines(python):
    expected = by_tracemalloc(python)
    assert len(expected) > 40
    assert_same(expected, lines_of(by_pyleak(python, "inline", "--frames", 1)), ("tracemalloc", "inline"))


@pytest.mark.long
def test_tracebacks(python):
    arguments = "--frames", 16, "--group-by", "traceback"
    found = tracebacks_of(by_pyleak(python, "inline", *arguments))
    assert len(found) > 50
    assert any(len(key) == 16 for key in found), "the recursion fills every frame"
    assert_same(tracebacks_of_tracemalloc(python, 16), found, ("tracemalloc", "inline"))
    assert_same(tracebacks_of(by_pyleak(python, "breakpoint", *arguments)), found, ("breakpoint", "inline"))


def test_frames_do_not_change_lines(one_python):
    expected = lines_of(by_pyleak(one_python, "inline", "--frames", 1))
    for frames in 2, 16, 128:
        assert_same(expected, lines_of(by_pyleak(one_python, "inline", "--frames", frames)), ("1 frame", "more"))


def test_pythonmalloc(python):
    """Nested domains are counted once, at the size that the program asked for."""
    # Without a GIL it takes no other than mimalloc. What is called pymalloc_debug is "debug" on top of the usual.
    allocators = ["mimalloc", "debug"] if pythons.of(python).free_threaded else ["malloc", "debug", "malloc_debug"]
    expected = lines_of(by_pyleak(python, "inline", "--frames", 1))
    for allocator in allocators:
        found = lines_of(by_pyleak(python, "inline", "--frames", 1, environment={"PYTHONMALLOC": allocator}))
        assert_same(expected, found, ("plain", allocator))
