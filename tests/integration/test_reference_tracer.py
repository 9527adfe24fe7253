# SPDX-License-Identifier: MIT
"""Threads of free-threaded builds have free lists of their own: the interpreter's tracer of references tells
of each object."""
import json
import signal
import subprocess

import pytest

import pythons
from conftest import all_pythons
from helpers import (HOOKS, Pyleak, Trace, Victim, hook_words, line_of, pyleak, rows, skip_here, wait_clean,
                     wait_hooked)
from test_free_lists import KINDS, PARKED, detach, plant, read, tell
from test_oracle import WORKLOAD, figures

FOUND = [entry for entry in all_pythons() if entry.free_threaded]
every_python = pytest.mark.parametrize("python", [entry.executable for entry in FOUND] or [None],
                                       ids=map(pythons.label, FOUND) if FOUND else None)


@pytest.fixture(autouse=True)
def there_is_one():
    if not FOUND:
        skip_here("pythons", "one without a GIL")


@every_python
@pytest.mark.parametrize("frames", [1, 16])
def test_right_line(python, frames):
    """A table of keys is no object: the tracer does not tell of it."""
    with Victim(python, "parked.py") as victim:
        plant(victim.pid, "--frames", frames)
        assert len(hook_words(victim.pid)) == HOOKS + 1
        for kind in KINDS:
            before = read(victim.pid)
            tell(victim, "leak " + kind, "leaked")
            after = read(victim.pid)
            leaked = {name: after.get(line, (0, 0))[1] - before.get(line, (0, 0))[1]
                      for name in ("churn", "leak") for line in [line_of(PARKED, "%s: %s" % (kind, name))]}
            if kind != "keyed":
                assert leaked["leak"] >= 0.99 * 20000 and leaked["churn"] <= 0.01 * 20000, (kind, leaked)
        tell(victim, "deep", "dropped")
        assert victim.ask("fork", 60) == {"status": 42 << 8}
        detach(victim)
        tell(victim, "leak lists", "leaked")


@every_python
def test_as_tracemalloc(python):
    """What comes from free lists included; but for the few blocks that are parked at the end, of which one
    may come to life again in the line that says "done"."""
    output = subprocess.run([python, str(WORKLOAD), "tracemalloc"], stdout=subprocess.PIPE, check=True).stdout
    expected = figures({(name.rsplit("/", 1)[-1], line): (size, count)
                        for name, line, size, count in json.loads(output)})
    with Victim(python, "workload.py", "watched") as victim:
        with Pyleak("attach", victim.pid, "--format", "json", "--limit", 0, "--frames", 1) as running:
            wait_hooked(victim.pid, running)
            victim.tell("go")
            assert victim.line(120) == "done"
            result = running.finish(signal.SIGTERM)
        assert result.status == 0, result
    table = rows(result.json(), "workload.py", ".py")
    found = figures({key: (row["size"], row["count"]) for key, row in table.items()})
    wrong = {key: (expected.get(key), found.get(key)) for key in set(expected) | set(found)
             if expected.get(key) != found.get(key)}
    assert sum(abs((a or (0, 0))[1] - (b or (0, 0))[1]) or 100 for a, b in wrong.values()) <= 2, wrong


@every_python
def test_left_alone(python):
    with Victim(python, "parked.py") as victim:
        plant(victim.pid, "--no-free-lists")
        assert len(hook_words(victim.pid)) == HOOKS
        tell(victim, "leak lists", "leaked")
        assert read(victim.pid)[line_of(PARKED, "lists: churn")][1] > 15000
        detach(victim)


@every_python
def test_beside_tracemalloc(python):
    """The tracer that was there goes on being called; one that comes later takes our place."""
    with Victim(python, "host.py", "--threads", 2, "--pause", 0.01) as victim:
        victim.check()
        before = Trace(victim.pid)
        victim.ask("tracemalloc_start")
        plant(victim.pid)
        victim.check()
        detach(victim)
        victim.ask("tracemalloc_stop")
        plant(victim.pid)
        victim.ask("tracemalloc_start")
        victim.check()
        victim.ask("tracemalloc_stop")
        victim.check()
        assert pyleak("detach", victim.pid).status == 0
        wait_clean(victim.pid, 5)
        victim.check()
        assert not before.differences(victim.pid)


@every_python
def test_back_and_forth(python):
    with Victim(python, "host.py", "--threads", 4, "--pause", 0.001) as victim:
        before = Trace(victim.pid)
        for _ in range(10):
            plant(victim.pid)
            victim.check()
            detach(victim)
        assert not before.differences(victim.pid)
