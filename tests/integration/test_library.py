# SPDX-License-Identifier: MIT
"""Over the standard library pyleak says what tracemalloc says, block for block: the live size and count of each
traceback.

Both record the same process. With pyleak in it CPython parks nothing, so that tracemalloc, which CPython does not
tell of everything that it gives out again (tables of keys are no objects; before 3.8 of nothing), is right as well.
Without a GIL it goes on parking, and tells both of each object.
"""
import collections
import json
import os
import signal

import pytest

import pythons
from helpers import VICTIMS, Pyleak, Victim, line_of, wait_hooked

LIBRARY = VICTIMS / "library.py"
OWN = line_of(LIBRARY, "def figures(traces):")  # what follows is not the workloads'


class Library(Victim):
    def __init__(self, python):
        Victim.__init__(self, python, "library.py", env=dict(os.environ, PYTHONHASHSEED="0"))

    def tell_of(self, command, answer):
        self.tell(command)
        said = self.line(120)
        assert said == answer, said

    def figures(self):
        self.tell("figures")
        return json.loads(self.line(60))


def recorded(victim, *arguments):
    with Pyleak("attach", victim.pid, "--format", "json", "--limit", 0, "--domain", "python", *arguments) as running:
        wait_hooked(victim.pid, running)
        victim.tell_of("run", "ran")
        victim.tell_of("collect", "collected")
        result = running.finish(signal.SIGTERM)
    assert result.status == 0, result
    document = result.json()
    assert document["lost"] == {"events": 0, "sites": 0}
    return document


def is_own(frames):
    """What the program allocates to read commands and to answer them, at other instants for each of the two."""
    lines = [line for name, line in frames if name == str(LIBRARY)]
    return bool(lines) and all(line >= OWN for line in lines)


def by_traceback(triples):
    table = collections.defaultdict(lambda: [0, 0])
    for frames, size, count in triples:
        frames = tuple((name, line) for name, line in frames)
        if count and not is_own(frames):
            table[frames][0] += size
            table[frames][1] += count
    return {frames: tuple(row) for frames, row in table.items()}


def differences(expected, found):
    """[(place, size, count)]: what pyleak has more."""
    result = []
    for place in set(expected) | set(found):
        (size, count), (size_found, count_found) = expected.get(place, (0, 0)), found.get(place, (0, 0))
        if (size, count) != (size_found, count_found):
            result.append((place, size_found - size, count_found - count))
    return sorted(result, key=str)


def is_a_frame(size, count):
    """A parked frame that its code object keeps, and another has (3.6 to 3.10)."""
    return count and 350 <= size / count <= 2000


@pytest.mark.long
def test_tracebacks(python):
    with Library(python) as victim:
        victim.tell_of("trace 16", "tracing")
        document = recorded(victim, "--frames", 16, "--group-by", "traceback")
        expected = by_traceback(victim.figures())
        lacks = ["dataclasses"] if pythons.of(python).version < (3, 7) else ["_sqlite3"] if "-musl" in python else []
        assert victim.ask("lacks") == lacks
    found = by_traceback(([(frame["filename"], frame["lineno"]) for frame in reversed(row["traceback"])],
                          row["size"], row["count"]) for row in document["stats"])
    assert len(expected) > 5000 and sum(count for _, count in expected.values()) > 80000
    different = differences(expected, found)
    if pythons.of(python).version < (3, 11):
        # Each code object keeps one frame for the next call: tracemalloc charges it to whoever called last (or, before
        # 3.8, as pyleak, to who called first).
        different = [row for row in different if not is_a_frame(*row[1:])]
    assert not different, "%d differ:\n%s" % (len(different), "\n".join(map(str, different[:20])))
