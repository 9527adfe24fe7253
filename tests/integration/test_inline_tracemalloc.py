# SPDX-License-Identifier: MIT
"""tracemalloc is started and stopped before, while and after pyleak records: both stay right, and what
pyleak leaves behind it can remove when tracemalloc is gone."""
import pytest

from helpers import Trace, Pyleak, leftovers, pyleak, wait_clean, wait_hooked
from programs import Program, at

PROGRAM = """
import json, tracemalloc
LINE = [number for number, text in enumerate(open(__file__), 1) if text.rstrip().endswith("# at work")][0]
kept = [None] * 100
rounds = 0
def work():
    global rounds, kept
    mine = [None] * 1000
    for i in range(1000):
        mine[i] = bytes(100 + i % 50)  # at work
    kept[rounds] = mine
    rounds += 1
    temporary = [bytes(5000 + i) for i in range(200)]
    for i in range(1000):
        assert len(mine[i]) == 100 + i % 50
def traced():
    snapshot = tracemalloc.take_snapshot()
    mine = [trace.size for trace in snapshot.traces if trace.traceback[0].lineno == LINE]
    return [sum(mine), len(mine)]
work()
answer = meet("ready")
while True:
    result = None
    if answer == "start":
        tracemalloc.start()
    elif answer == "stop":
        result = traced()
        tracemalloc.stop()
    elif answer == "work":
        work()
    answer = meet(json.dumps(result))
"""


# S, T: tracemalloc starts and stops; A, D: pyleak attaches and detaches.
@pytest.mark.parametrize("order", ["STAD", "SADT", "ASTD", "ADST"])
def test_order(one_python, tmp_path, order):
    run(one_python, tmp_path, order)


@pytest.mark.parametrize("order", ["SATD", "ASDT"])
def test_crossed(python, tmp_path, order):
    """One comes while the other is there, and goes last."""
    run(python, tmp_path, order)


def run(python, tmp_path, order):
    with Program(python, tmp_path, PROGRAM) as victim:
        round_size = sum(victim.header + 100 + i % 50 for i in range(1000))
        trace = Trace(victim.pid)
        running, tracing, recording, seen_by_pyleak, seen_by_tracemalloc, result = None, False, False, 0, 0, None
        for step in order:
            if step == "S":
                victim.ask("start")
                tracing = True
            elif step == "T":
                size, count = victim.ask("stop")
                assert (size, count) == (seen_by_tracemalloc * round_size, seen_by_tracemalloc * 1000)
                tracing = False
                # What was planted on top of tracemalloc went when it put back what it had found.
                if recording and order.startswith("SA"):
                    recording = False
            elif step == "A":
                running = Pyleak("attach", victim.pid, "--engine", "inline", "--format", "json", "--limit", 0)
                wait_hooked(victim.pid, running)
                recording = True
            else:
                result = running.finish(15)
                recording = False
            victim.ask("work")
            seen_by_pyleak += recording
            seen_by_tracemalloc += tracing
        # What tracemalloc itself keeps for each of the blocks comes from the raw domain, at the same line.
        size, count = at(result.json(), victim)["work"]
        own = seen_by_pyleak * 1000 + 100 if "S" in order[order.index("A"):order.index("D")] else 1
        assert 0 <= count - seen_by_pyleak * 1000 <= own, result
        assert 0 <= size - seen_by_pyleak * round_size <= own * 100, result
        if leftovers(victim.pid):
            assert result.status == 1 and "pyleak detach" in result.stderr, result
            again = pyleak("detach", victim.pid)
            assert again.status == 0, again
        else:
            assert result.status == 0, result
        wait_clean(victim.pid, 1)
        victim.ask("work")
        differences = [text for text in trace.differences(victim.pid) if "_pickle" not in text]
        assert not differences, differences


def test_twice(one_python, tmp_path):
    """pyleak comes while tracemalloc traces, goes, and comes again, and tracemalloc knows every block."""
    with Program(one_python, tmp_path, PROGRAM) as victim:
        victim.ask("start")
        for _ in range(3):
            with Pyleak("attach", victim.pid, "--engine", "inline", "--format", "json", "--limit", 0) as running:
                wait_hooked(victim.pid, running)
                victim.ask("work")
                result = running.finish(15)
            assert result.status == 0, result
            assert at(result.json(), victim)["work"][1] == 1000
            wait_clean(victim.pid, 1)
        assert victim.ask("stop")[1] == 3000
