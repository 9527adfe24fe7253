# SPDX-License-Identifier: MIT
"""Threads that allocate and free at the same instant, with a GIL and without: no block is lost or counted twice."""
import signal
import subprocess

import pytest

from helpers import VICTIMS, Pyleak, Victim, line_of, rows, wait_hooked

THREADS, ROUNDS, BATCH = 4, 50000, 50
SCRIPT = VICTIMS / "racers.py"


@pytest.mark.alike
def test_racers(python):
    header = int(subprocess.check_output([python, "-c", "import sys; print(sys.getsizeof(b''))"]))
    with Victim(python, "racers.py", THREADS, ROUNDS) as victim:
        with Pyleak("attach", victim.pid, "--engine", "inline", "--format", "json", "--limit", 0) as running:
            wait_hooked(victim.pid, running)
            victim.tell("go")
            assert victim.line(120) == "done"
            result = running.finish(signal.SIGTERM)
        assert result.status == 0, result
        assert victim.alive()
    document = result.json()
    assert document["lost"] == {"events": 0, "sites": 0}
    table = rows(document, SCRIPT.name)
    made = THREADS * ROUNDS
    for marker, size, alive in ("# kept", 1000, 0), ("# passed on", 300, 0), \
            ("# dropped", 200, THREADS * BATCH), ("# replaced", 600, made):
        row = table[SCRIPT.name, line_of(SCRIPT, marker)]
        expected = {"size": made * (header + size), "count": made}
        assert row["allocated"] == expected, marker
        assert (row["size"], row["count"]) == (alive * (header + size), alive), marker
        assert row["freed"]["count"] == made - alive, marker
