# SPDX-License-Identifier: MIT
"""Snapshots without a stop: consistent while threads allocate; nothing of pyleak shows in the process."""
import json
import os
import statistics
import time

from helpers import (HOOKS, PATIENCE, Pyleak, Trace, hook_words, probe_maps, pyleak, status, threads, wait_clean,
                     wait_hooked)
from programs import Program, assert_nothing_lost

STORM = """
THREADS, EACH, SIZE = 4, 100, 1000
rounds = [0] * THREADS
broken = []
def work(number):
    mine = [None] * EACH
    while True:
        for i in range(EACH):
            mine[i] = bytes(SIZE)  # at storm
        for i in range(EACH):
            if len(mine[i]) != SIZE:
                broken.append(i)
            mine[i] = None
        rounds[number] += 1
        [str(i) for i in range(100)]  # at strings
for number in range(THREADS):
    threading.Thread(target=work, args=(number,), daemon=True).start()
while True:
    meet("ready" if not broken else "broken")
"""


def assert_sane(row, most, size):
    assert 0 <= row["count"] <= most, row
    assert 0 <= row["size"] <= most * size, row
    for one, other in ("allocated", "freed"), ("freed", "allocated"):
        assert row[one]["count"] - row[other]["count"] <= most, row
        assert row[one]["size"] - row[other]["size"] <= most * size, row
    # Each block of this line has the same size: a row whose parts belong to different moments shows.
    assert row["size"] <= (row["count"] + 4) * size and row["size"] >= (row["count"] - 4) * size, row


def test_consistency(python, tmp_path):
    """Four threads allocate and free as fast as they can: no figure is ever negative, or beyond what
    they can have at a time."""
    with Program(python, tmp_path, STORM) as victim:
        result = pyleak("diff", victim.pid, "--engine", "inline", "--interval", "100ms", "--count", 10,
                        "--format", "json", "--limit", 0)
        assert result.status == 0, result
        documents = [json.loads(line) for line in result.stdout.splitlines()]
        assert len(documents) == 10
        seen = 0
        for document in documents:
            assert_nothing_lost(document)
            for row in document["stats"]:
                assert row["size"] >= 0 and row["count"] >= 0
                if row["filename"] == victim.path and row["lineno"] == victim.lines["storm"]:
                    # A block of the old round is freed after one of the new has its place in the list.
                    assert_sane(row, 4 * 100 + 8, victim.header + 1000)
                    seen += row["allocated"]["count"]
            assert document["total"]["size"] < 50 << 20, document["total"]
        assert seen > 1000, "the threads did not get on"
        victim.meet("ready")


def test_no_trace(python, tmp_path):
    """While it records nobody traces the process; after, all is as it was."""
    with Program(python, tmp_path, STORM) as victim:
        before = Trace(victim.pid)
        with Pyleak("attach", victim.pid, "--engine", "inline", "--format", "json") as running:
            wait_hooked(victim.pid, running)
            time.sleep(0.2)
            assert len(hook_words(victim.pid)) >= HOOKS
            assert not [m for m in probe_maps(victim.pid) if "w" in m[2] and "x" in m[2]]
            for _ in range(20):
                assert {status(victim.pid, tid).get("TracerPid") for tid in threads(victim.pid)} == {"0"}
                time.sleep(0.01)
            victim.meet("ready")
            result = running.finish(15)
        assert result.status == 0, result
        assert result.stderr == "", result
        assert not before.differences(victim.pid)
        assert not [m for m in tables(victim.pid)]
        victim.meet("ready")


def tables(pid):
    with open("/proc/%d/maps" % pid) as file:
        return [line for line in file if line.startswith("707a")]


def test_stop_time(host, capsys):
    """Of 50 threads none is held for more than half a millisecond (median; tests/bench/gaps.py has more of them). On a machine
    with other work to do only the best of the runs counts, and loosely."""
    victim = host("--threads", 50, "--pause", 0.05, "--light")
    times, first_rows = [], []
    for _ in range(9):
        started = time.monotonic()
        result = pyleak("attach", victim.pid, "--engine", "inline", "--duration", "100ms", "--format", "json")
        first_rows.append((time.monotonic() - started) * 1000 - 100)
        assert result.status == 0, result
        times.append(result.json()["stop_ms"])
    with capsys.disabled():
        print("\nstop_ms with 50 threads: median %.2f, all %s; all but the watch itself: median %.0f ms" % (
            statistics.median(times), " ".join("%.2f" % t for t in sorted(times)), statistics.median(first_rows)))
    busy = os.getloadavg()[0] > os.cpu_count()
    assert min(times) <= 2 * PATIENCE if busy else statistics.median(times) <= 1 * PATIENCE
    victim.check()
    wait_clean(victim.pid, 1)


def test_records_while_adopted(one_python, tmp_path):
    """--keep: what the probe has recorded is read by whoever comes later, and detach removes it."""
    with Program(one_python, tmp_path, """
kept = [None] * 3000
meet("ready")
for i in range(3000):
    kept[i] = bytes(100)  # at kept
    if i % 1000 == 999:
        meet(str(i))
meet("end")
""") as victim:
        before = Trace(victim.pid)
        assert pyleak("attach", victim.pid, "--keep").status == 0
        victim.meet("999")
        for count in 1000, 2000, 3000:
            result = pyleak("attach", victim.pid, "--duration", "100ms", "--format", "json", "--limit", 0)
            assert result.status == 0, result
            rows = [row for row in result.json()["stats"] if row["lineno"] == victim.lines["kept"]
                    and row["filename"] == victim.path]
            assert [(row["size"], row["count"]) for row in rows] == [(count * (victim.header + 100), count)]
            if count < 3000:
                victim.meet(str(count + 999))
        assert pyleak("detach", victim.pid).status == 0
        assert not before.differences(victim.pid)
        victim.meet("end")
