# SPDX-License-Identifier: MIT
"""The recorder's tables follow what is live: code that never ends, a limit, and pyleak killed while it makes room."""
import random
import signal
import time

from helpers import Pyleak, pyleak, wait_clean, wait_hooked
from programs import Program, at, control, recorded

# Ever new code objects, of which each is called from another one, and nothing is kept.
CODE = """
import types
def made():
    return [[1], [2]]
def caller():
    return function()
def run(first, count):
    global function
    for i in range(first, first + count):
        function = types.FunctionType(made.__code__.replace(co_firstlineno=1000 + 2 * i), globals())
        types.FunctionType(caller.__code__.replace(co_firstlineno=1001 + 2 * i), globals())()
kept = [None] * 40000
def keep(first):
    for i in range(first, first + 100):
        kept[i] = bytes(3000)  # at leak
"""


def test_code_that_never_ends(one_python, tmp_path):
    """More code objects than the tables hold (131,072), and then a leak."""
    with Program(one_python, tmp_path, CODE + """
meet("ready")
for part in range(30):
    run(2500 * part, 2500)
    time.sleep(0.1)  # on a busy machine pyleak would have no processor meanwhile
keep(0)
meet("done")
""") as victim:
        with recorded(victim) as record:
            victim.meet("done", 240)
    assert at(record.document, victim)["leak"] == (100 * (victim.header + 3000), 100)
    assert not [row for row in record.document["stats"] if row["filename"] == "<unknown>" and row["size"] > 100000]
    assert record.document["lost"]["events"] == 0


def test_a_limit(one_python, tmp_path):
    """It is said when tracebacks are cut; no line is lost."""
    with Program(one_python, tmp_path, CODE + """
def ways(depth, word, number):
    if not depth:
        kept[number] = bytes(100)  # at ways
    elif word & 1:
        ways(depth - 1, word >> 1, number)
    else:
        ways(depth - 1, word >> 1, number)
meet("ready")
for word in range(1 << 15):
    ways(15, word, word)
meet("done")
""") as victim:
        with recorded(victim, "--tables", "4M", "--frames", "20") as record:
            victim.meet("done", 120)
    size, count = at(record.document, victim)["ways"]
    assert (size, count) == ((1 << 15) * (victim.header + 100), 1 << 15)
    assert record.document["shortened"] > 10000 and record.document["lost"] == {"events": 0, "sites": 0}
    assert "tables in process %d are at their limit" % victim.pid in record.result.stderr, record.result


def test_a_limit_that_the_map_outgrows(one_python, tmp_path):
    """Samples from then on: what was recorded before is exact, what comes since an estimate, and that is said."""
    with Program(one_python, tmp_path, """
exact, filler, since = [None] * 4000, [None] * 160000, [None] * 4000
meet("ready")
for i in range(4000):
    exact[i] = bytes(1000)  # at exact
for i in range(160000):
    filler[i] = bytes(450)  # at filler
meet("filled")
for i in range(0, 4000, 2):
    exact[i] = None
for i in range(4000):
    since[i] = bytes(100000)  # at since
for i in range(2000):
    since[i] = None
meet("done")
""") as victim:
        recording = tmp_path / "windows.pyleak"
        with Pyleak("attach", victim.pid, "--tables", "4M", "-i", "200ms", "-o", recording) as running:
            wait_hooked(victim.pid, running)
            victim.meet("filled", 60)
            deadline = time.monotonic() + 60
            while not control(victim.pid)["mode"] >> 16 and time.monotonic() < deadline:
                time.sleep(0.05)
            assert control(victim.pid)["mode"] & 0xff
            victim.meet("done", 60)
            time.sleep(0.5)
            result = running.finish(signal.SIGTERM)
    document = pyleak("report", recording, "--format", "json", "--limit", 0).json()
    rows = {row["lineno"]: row for row in document["stats"] if row["filename"] == victim.path}
    exact, since = rows[victim.lines["exact"]], rows[victim.lines["since"]]
    assert (exact["size"], exact["count"]) == (2000 * (victim.header + 1000), 2000), exact
    assert (exact["error"]["size"], exact["error"]["count"]) == (0, 0), exact
    assert 0 < since["error"]["count"] < 500 and abs(since["average"] - victim.header - 100000) < 1000, since
    assert abs(since["count"] - 2000) < 5 * since["error"]["count"], since
    assert document["sampling"] >= 512 << 10 and document["lost"] == {"events": 0, "sites": 0}
    assert document["sample"] == 0 and "older" not in document
    assert "process %d have outgrown their limit" % victim.pid in result.stderr, result
    text = pyleak("report", recording).stdout
    assert "sampled: one allocation per" in text and ", error=" in text, text
    # A window before it is exact.
    first = pyleak("report", recording, "--to", "1ms", "--format", "json").json()
    assert "sampling" not in first


def test_bad_limit():
    result = pyleak("attach", 1, "--tables", "1M")
    assert result.status == 2 and "--tables 1M: must be at least 4M" in result.stderr, result


def test_killed_while_it_makes_room(one_python, tmp_path):
    """At any instant: what stays in the process is right, and the next pyleak goes on with it."""
    with Program(one_python, tmp_path, CODE + """
meet("ready")
first = 0
while True:
    if first == 0:
        keep(0)
    run(first, 2000)
    first += 2000
    if first % 10000 == 0 and meet("round") == "stop":
        break
keep(100)
meet("done")
while meet("alive"):
    pass
""") as victim:
        assert pyleak("attach", victim.pid, "--keep").status == 0
        for _ in range(3):
            with Pyleak("attach", victim.pid, "--format", "json", "--duration", "60s") as running:
                victim.meet("round")
                time.sleep(random.uniform(0, 0.7))
                running.process.send_signal(signal.SIGKILL)
                victim.meet("round")
        with Pyleak("attach", victim.pid, "--format", "json", "--limit", 0) as running:
            for _ in range(2):
                victim.meet("round")
            victim.tell("stop")
            assert victim.line(60) == "done"
            result = running.finish(signal.SIGTERM)
        assert result.status == 0, result
        document = result.json()
        assert at(document, victim)["leak"] == (200 * (victim.header + 3000), 200)
        assert document["lost"]["events"] == 0
        victim.meet("alive")
        assert pyleak("detach", victim.pid).status == 0
        wait_clean(victim.pid, 1)
        victim.meet("alive")
