# SPDX-License-Identifier: MIT
"""What `pyleak diff` says of programs that grow in different ways. (How it judges is tested on recorded
and simulated series, tests/unit/test_series.c and test_verdict_noise.c.)"""
import json
import re
import subprocess

import pytest

import pythons
from helpers import BUILD, PATIENCE, ROOT, VICTIMS, Pyleak, Victim, line_of, wait_clean
from programs import Program

INTERVAL = 0.4 * PATIENCE


def verdicts(python, kind, windows, *arguments):
    """The last document, and the row of the line that grows."""
    with Victim(python, "growth.py", kind) as victim:
        with Pyleak("diff", victim.pid, "--interval", INTERVAL, "--count", windows, "--format", "json", *arguments) as running:
            victim.tell("go")
            result = running.finish()
        assert result.status == 0, result
        wait_clean(victim.pid, 1)
    line = line_of(VICTIMS / "growth.py", "# grows here")
    document = result.json()
    return document, next(row for row in document["stats"] if row["lineno"] == line and row["filename"].endswith("growth.py"))


@pytest.mark.parametrize("engine", ["inline", "breakpoint"])
def test_a_leak(one_python, engine):
    document, row = verdicts(one_python, "steady", 8, "--engine", engine)
    verdict = row["verdict"]
    assert verdict["kind"] == "steady" and verdict["windows"] in (7, 8), verdict
    assert 0.9 * 8 * INTERVAL < verdict["watched_s"] < 2 * 8 * INTERVAL + 1
    rate = verdict["rate"]
    assert 0 < rate["low"] <= rate["size_per_hour"] <= rate["high"]
    # All that the line allocates stays: strings of 30 characters.
    assert verdict["kept"] > 0.99
    assert verdict["size_per_block"] == pytest.approx(row["average"], rel=0.02)
    # The rate is that of the figures beside it.
    assert rate["size_per_hour"] == pytest.approx(row["size_diff"] / document["window_s"] * 3600, rel=0.35)
    headroom = document["headroom"]
    assert 0 < headroom["left"] <= headroom["limit"]
    # Nobody foresees more than a hundred times what was watched.
    full = headroom["left"] / rate["size_per_hour"] * 3600
    assert verdict["full_in_s"] == (pytest.approx(full, rel=0.01) if full < 100 * verdict["watched_s"] else None)


def test_a_cache_that_fills(one_python):
    _, row = verdicts(one_python, "lru", 12)
    assert row["verdict"]["kind"] == "levelling", row
    assert row["verdict"]["rate"] is row["verdict"]["kept"] is row["verdict"]["full_in_s"] is None


def test_text(one_python):
    with Victim(one_python, "growth.py", "steady") as victim:
        with Pyleak("diff", victim.pid, "--interval", INTERVAL, "--count", 7, "--limit", 3) as running:
            victim.tell("go")
            result = running.finish()
    assert result.status == 0, result
    reports = result.stdout.split("\n\n")
    assert len(reports) == 8 and reports.pop().startswith("over all 7 windows (")
    assert not any("    # " in line and "windows" in line for report in reports[:2] for line in report.splitlines())
    remark = reports[-1].splitlines()[3]
    assert re.fullmatch(r"    # steady growth in [67] windows: \+[\d.]+ \w+/(h|min) \([\d.]+ \w+ to [\d.]+ \w+\), every block stays"
                        r"(; fills the (machine|cgroup)'s memory in .+)?", remark), remark


def test_few_windows_have_none(one_python):
    document, row = verdicts(one_python, "steady", 2)
    assert "verdict" not in row and "headroom" not in document


TURNOVER = """
import collections
CACHE, KEPT = collections.OrderedDict(), []
def make(number):
    return [number, "value of %d" % number]  # at value
def handle(number):
    CACHE[number] = make(number)  # at entry
    if len(CACHE) > 20000:
        CACHE.popitem(last=False)
    if number % 20 == 0 and LEAK:
        KEPT.append("kept %d" % number)  # at leak
LEAK = False
for number in range(21000):
    handle(number)
LEAK = meet("ready") == "leak"
while True:
    for _ in range(10):
        number += 1
        handle(number)
    time.sleep(0.01)
"""


def test_a_full_cache_and_a_leak(python, tmp_path):
    """A leak of one block in twenty beside it is one."""
    full_cache(python, tmp_path, True)


def test_a_full_cache_is_no_leak(one_python, tmp_path):
    """Its entries come and stay; that as many go which are older than the recording is what tells it from a leak."""
    full_cache(one_python, tmp_path, False)


def full_cache(python, tmp_path, leak):
    with Program(python, tmp_path, TURNOVER) as victim:
        victim.tell("leak" if leak else "none")
        with Pyleak("diff", victim.pid, "--interval", INTERVAL, "--count", 10, "--limit", 0, "--format", "json") as running:
            result = running.finish()
        assert result.status == 0, result
        wait_clean(victim.pid, 1)
        documents = [json.loads(line) for line in result.stdout.splitlines()]
        rows = {(row["lineno"], row["domain"]): row for row in documents[-1]["stats"] if row["filename"] == victim.path}
        row = rows[victim.lines["value"], "python"]
        assert row["verdict"]["kind"] == "turnover" and row["verdict"]["turned_over"] > 0.6, row
        assert row["verdict"]["full_in_s"] is None
        kinds = {key: row["verdict"]["kind"] for key, row in rows.items()}
        steady = [key for key, kind in kinds.items() if kind == "steady"]
        assert steady == ([(victim.lines["leak"], "python")] if leak else []), kinds
        # In each window about as much goes as comes: the leak is what is left.
        for document in documents[2:]:
            assert document["older"]["count"] > 100, document["older"]
            # All sizes are known, where there is a GIL (test_older.py).
            if document["older"]["sized"]:
                assert abs(document["net_growth"]) < 0.5 * document["total"]["size_diff"], document["total"]
            else:
                assert document["net_growth"] is None and pythons.of(python).free_threaded, python


def test_the_table_of_errors(one_python):
    """The manual page says how often verdicts err, as it is."""
    result = subprocess.run([str(ROOT / "tests" / "series" / "table.py"), str(BUILD), "--check"], stderr=subprocess.PIPE,
                            check=False)
    assert result.returncode == 0, result.stderr.decode()


COLLECTOR = """
KEPT = []
gc.collect()
gc.freeze() if hasattr(gc, "freeze") else None
gc.set_threshold(100000, 50, 100)
meet("ready")
while True:
    KEPT.append("kept %d" % len(KEPT))
    if len(KEPT) % 100 == 0:
        time.sleep(0.01)
"""


def collector(python, tmp_path, before):
    text = COLLECTOR.replace('meet("ready")', before + '\nmeet("ready")')
    with Program(python, tmp_path, text) as victim:
        victim.tell("go")
        with Pyleak("diff", victim.pid, "--interval", 0.3 * PATIENCE, "--count", 7, "--format", "json") as running:
            document = running.finish().json()
        with Pyleak("diff", victim.pid, "--interval", 0.3 * PATIENCE, "--count", 7) as running:
            return document.get("collector"), running.finish().stdout.split("\n\nover all")[0].split("\n\n")[-1] + "\n"


def assert_old(python):
    """Where nothing is known of the collector."""
    assert subprocess.check_output([python, "-c", "import sys; print(sys.version_info < (3, 7))"]).strip() == b"True"


@pytest.mark.long
def test_a_collector_that_is_off(python, tmp_path):
    state, text = collector(python, tmp_path, "gc.disable()")
    if state is None:
        return assert_old(python)
    assert state["enabled"] is False
    version = pythons.of(python)
    # What is read is what gc.get_threshold() says; of gc.freeze() nothing is known without a GIL.
    assert state["thresholds"] == (None if version.version < (3, 8) else [100000, 50, 100]), state
    assert state["frozen"] is (None if version.version < (3, 8) or version.free_threaded else True), state
    assert "\nThe collector of cycles is off (gc.disable()): what is in cycles stays.\n" in text, text


@pytest.mark.long
def test_no_full_collection(python, tmp_path):
    state, text = collector(python, tmp_path, "gc.enable()")
    if state is None:
        return assert_old(python)
    assert state["enabled"] is True
    said = "\nNo full collection since the recording began: what grows may be garbage in cycles.\n" in text
    assert state["full_collections"] in (None, 0) and said is (state["full_collections"] == 0), (state, text)


def test_full_collections_are_counted(python, tmp_path):
    text = COLLECTOR.replace("time.sleep(0.01)", "time.sleep(0.01)\n        gc.collect()").replace("gc.freeze()", "gc.collect()")
    with Program(python, tmp_path, text) as victim:
        victim.tell("go")
        with Pyleak("diff", victim.pid, "--interval", 0.3 * PATIENCE, "--count", 4, "--format", "json") as running:
            document = running.finish().json()
    if "collector" not in document:
        return assert_old(python)
    full = document["collector"]["full_collections"]
    assert full is None or 5 < full < 1000, document["collector"]
    # 3.12 has frozen some hundred objects before the program begins.
    assert not document["collector"]["frozen"] or pythons.of(python).version[:2] == (3, 12), document["collector"]
