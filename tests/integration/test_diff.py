# SPDX-License-Identifier: MIT
"""`pyleak diff` names the line that leaks, first, with the exact count."""
import subprocess
import time

import pytest

import helpers
from helpers import PATIENCE, VICTIMS, Pyleak, Victim, line_of, wait_clean, wait_hooked

pytestmark = pytest.mark.usefixtures("engine")

INTERVAL = 1.6 * PATIENCE


def object_header(python):
    """16 bytes; 32 in a free-threaded build."""
    return int(subprocess.check_output([python, "-c", "print(object().__sizeof__())"]))


def test_diff(python):
    with Victim(python, "leak.py") as victim:
        victim.tell("leak 10000")  # before pyleak comes: unknown to it
        assert victim.line() == "leaked"
        # Nothing that takes longer the first time: the windows are told apart by the clock.
        with Pyleak("diff", victim.pid, "--engine", helpers.engine, "--interval", INTERVAL,
                    "--native-frames", 0, "--format", "json") as running:
            wait_hooked(victim.pid, running)
            first_window = time.monotonic()
            victim.tell("leak 1000")
            assert victim.line() == "leaked"
            assert time.monotonic() < first_window + INTERVAL * 0.8, "too slow a machine to tell the windows apart"
            # The windows began at the latest when the hooks were seen, and a little before.
            time.sleep(first_window + INTERVAL * 1.3 - time.monotonic())
            victim.tell("leak 700")
            assert victim.line() == "leaked"
            assert time.monotonic() < first_window + INTERVAL * 1.8
            result = running.finish()
        assert result.status == 0, result
        document = result.json()
        assert document["kind"] == "diff"
        assert document["engine"] == helpers.engine
        top = document["stats"][0]
        assert top["filename"] == str(VICTIMS / "leak.py")
        assert top["lineno"] == line_of(VICTIMS / "leak.py", "# leaks here")
        assert top["function"] == "leak"
        assert (top["count"], top["count_diff"]) == (1700, 700)
        # A size, and three digits of four bytes: a sum is made with room for a carry.
        size = object_header(python) + 8 + 12
        assert top["average"] == size
        assert (top["size"], top["size_diff"]) == (1700 * size, 700 * size)
        assert document["lost"] == {"events": 0, "sites": 0}
        assert 0.9 * INTERVAL < document["window_s"] < 2 * INTERVAL + 1
        wait_clean(victim.pid, 1)
        victim.tell("leak 10")
        assert victim.line() == "leaked"


def test_count(one_python):
    """--count N prints N documents."""
    with Victim(one_python, "leak.py") as victim:
        with Pyleak("diff", victim.pid, "--engine", helpers.engine, "--interval", "500ms", "--count", 3,
                    "--format", "json") as running:
            result = running.finish()
        assert result.status == 0, result
        assert len(result.stdout.splitlines()) == 3
        wait_clean(victim.pid, 1)


def test_fail_above(one_python):
    """A row that grew by more than the limit makes the status 3, after the report."""
    with Victim(one_python, "leak.py") as victim:
        with Pyleak("diff", victim.pid, "--engine", helpers.engine, "--interval", "%gs" % PATIENCE, "--format", "json",
                    "--fail-above", "10KiB") as running:
            wait_hooked(victim.pid, running)
            while running.process.poll() is None:
                victim.tell("leak 200")
                assert victim.line() == "leaked"
                time.sleep(0.05)
            result = running.finish()
        assert result.status == 3, result
        assert result.json()["stats"][0]["size_diff"] > 10240
