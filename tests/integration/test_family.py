# SPDX-License-Identifier: MIT
"""--children: a server and its workers as one table, exact; workers that end, and workers that come."""
import json
import os
import signal
import struct
import subprocess
import sys
import time

import pytest

from helpers import (PATIENCE, PYLEAK, VICTIMS, Pyleak, Victim, leftovers, line_of, probe_maps, pyleak, skip_here,
                     state, wait_clean, wait_hooked, wait_until)
from programs import Program

SCRIPT = VICTIMS / "family.py"
LEAK = ("family.py", line_of(SCRIPT, "# leaks here"))


@pytest.fixture
def family(one_python):
    """Starts a parent with workers; at the end nothing is left in any of them."""
    started = []

    def start(workers=3, python=one_python):
        victim = Victim(python, "family.py", workers)
        started.append(victim)
        return victim

    yield start
    for victim in started:
        if victim.alive():
            for pid in [victim.pid, *victim.ask("pids")]:
                assert not leftovers(pid)
        victim.end()


def leak(victim, count):
    victim.tell("leak %d" % count)
    assert victim.line() == "leaked"


def attached(victim, *arguments, **keywords):
    """A pyleak that records the whole family."""
    running = Pyleak("attach", victim.pid, "--children", "--format", "json", "--limit", 0, *arguments, **keywords)
    for pid in [victim.pid, *victim.ask("pids")]:
        wait_hooked(pid, running)
    wait_until(lambda: state(victim.ask("pids")[-1]) != "t", 5, "the last one to be let go")
    return running


def wait_recorded(pid, running):
    """Until a forked child has a probe of its own, whose header names it, and not the one that it inherited."""
    def recorded():
        assert running.process.poll() is None
        places = probe_maps(pid)
        if not places:
            return False
        try:
            with open("/proc/%d/mem" % pid, "rb") as memory:
                memory.seek(places[0][0])
                header = memory.read(64)
        except OSError:  # the one that it inherited has just gone
            return False
        return struct.pack("<I", pid) in header
    wait_until(recorded, 20, "a probe in process %d" % pid)
    wait_hooked(pid, running)


def leaks(document):
    """The rows of the leaking line."""
    return [row for row in document["stats"] if (os.path.basename(row["filename"]), row["lineno"]) == LEAK]


@pytest.mark.alike
def test_one_row_for_all_of_them(family, python):
    """The parent's hooks, which its workers inherit switched off, are in nobody's way."""
    victim = family(2, python)
    with attached(victim) as running:
        victim.tell("fork")
        forked = int(victim.line())
        wait_recorded(forked, running)
        leak(victim, 1000)
        result = running.finish(signal.SIGINT)
    document = result.json()
    assert result.status == 0 and not result.stderr, result
    assert document["pids"] == [victim.pid, *victim.ask("pids")]
    [row] = leaks(document)
    assert row["count"] == 3000
    assert document["lost"] == {"events": 0, "sites": 0}


def test_worker_that_ends_takes_its_memory_along(family):
    victim = family(3)
    with attached(victim) as running:
        leak(victim, 1000)
        time.sleep(1)
        gone = victim.ask("pids")[1]
        victim.tell("kill 1")
        assert victim.line() == "killed"
        leak(victim, 10)
        time.sleep(0.2)
        document = running.finish(signal.SIGINT).json()
    [row] = leaks(document)
    assert row["count"] == 2 * 1010
    assert row["allocated"]["count"] == 2 * 1010 + 1000, "what it allocated it has allocated"
    assert row["freed"]["count"] == 1000
    assert gone in document["pids"], "the report is about the whole time"


def test_worker_that_is_replaced_between_windows(family):
    victim = family(3)
    running = Pyleak("diff", victim.pid, "--children", "--format", "json", "-n", 0, "-i", "2s", "-c", 3,
                     prefix=["stdbuf", "-oL"])
    with running:
        for pid in [victim.pid, *victim.ask("pids")]:
            wait_hooked(pid, running)
        time.sleep(0.5)
        leak(victim, 1000)
        first = json.loads(running.process.stdout.readline())
        gone = victim.ask("pids")[0]
        victim.tell("kill 0")
        assert victim.line() == "killed"
        victim.tell("fork")
        came = int(victim.line())
        second = json.loads(running.process.stdout.readline())
        wait_recorded(came, running)
        leak(victim, 10)
        third = running.finish().json()
    [row] = leaks(first)
    assert row["count"] == 3000
    [row] = leaks(second)
    assert (row["count"], row["count_diff"]) == (2000, -1000)
    assert gone in second["pids"] and came in second["pids"]
    assert second["total"]["count_diff"] <= -1000
    [row] = leaks(third)
    assert (row["count"], row["count_diff"]) == (2030, 30)
    assert gone not in third["pids"] and came in third["pids"]


def test_rows_of_each_process(family):
    victim = family(2)
    with attached(victim, "--per-process") as running:
        leak(victim, 500)
        document = running.finish(signal.SIGINT).json()
    assert sorted(row["pid"] for row in leaks(document)) == sorted(victim.ask("pids"))
    assert [row["count"] for row in leaks(document)] == [500, 500]


def test_parent_that_is_no_python(one_python):
    """As in a container, where a shell or an init is the first process."""
    with Victim("/bin/sh", None, "-c", "exec 3<&0; %s %s 2 <&3 & wait" % (one_python, SCRIPT)) as victim:
        running = Pyleak("attach", victim.pid, "--children", "--format", "json", "-n", 0)
        with running:
            for pid in victim.ask("pids"):
                wait_hooked(pid, running)
            time.sleep(0.2)
            leak(victim, 100)
            document = running.finish(signal.SIGINT).json()
        victim.tell("quit")
    [row] = leaks(document)
    assert row["count"] == 200
    assert document["pid"] == document["pids"][0] != victim.pid


def test_without_a_pid_the_head_of_the_family(one_python):
    """Where there is one family, as in most containers."""
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    if os.geteuid() != 0 or subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        skip_here("namespaces")
    script = "sleep 60 | %s %s 2 & sleep 1; %s %%s --format json -i 200ms" % (one_python, SCRIPT, PYLEAK)
    answers = [subprocess.run([*unshare, "sh", "-c", script % command], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=60 * PATIENCE, check=False) for command in ("diff --children", "diff")]
    document = json.loads(answers[0].stdout.splitlines()[-1])
    assert answers[0].returncode == 0 and len(document["pids"]) == 3 and document["pid"] == min(document["pids"])
    assert answers[1].returncode == 1 and "several Python processes" in answers[1].stderr


def test_all_of_them_end(family):
    """The last figures stand, as those of a process do."""
    victim = family(2)
    with attached(victim) as running:
        leak(victim, 300)
        time.sleep(1)
        victim.tell("quit")
        result = running.finish()
    assert result.status == 1 and "and its children ended while they were watched" in result.stderr
    [row] = leaks(result.json())
    assert row["count"] == 600


def test_keep_and_come_back(family):
    victim = family(2)
    assert pyleak("attach", victim.pid, "--children", "--keep").status == 0
    leak(victim, 100)
    victim.tell("fork")
    int(victim.line())
    result = pyleak("diff", victim.pid, "--children", "-i", "1s", "--format", "json", "-n", 0)
    document = result.json()
    [row] = leaks(document)
    assert row["count"] == 200, "of the new worker nothing was recorded before"
    assert document["pids"] == [victim.pid, *victim.ask("pids")]
    assert pyleak("detach", victim.pid, "--children").status == 0


def test_killed_at_any_step(family):
    """Each process is cleaned by the guardian, wherever pyleak was between them."""
    victim = family(2)
    for _ in range(2): # the first one makes the landing pages
        verbose = pyleak("diff", victim.pid, "--children", "-i", "100ms", "-v")
    steps = int(next(line.split()[1] for line in verbose.stderr.splitlines() if "ptrace steps" in line))
    for step in range(steps // 14, steps, steps // 7):
        result = pyleak("diff", victim.pid, "--children", "-i", "100ms", environment={"PYLEAK_FAULT": str(step)})
        assert result.status == -signal.SIGKILL, "step %d of %d" % (step, steps)
        for pid in [victim.pid, *victim.ask("pids")]:
            wait_clean(pid, 5)
        leak(victim, 10)


def test_killed_without_guardian(family):
    victim = family(2)
    with attached(victim, environment={"PYLEAK_GUARDIAN": "off"}) as running:
        running.finish(signal.SIGKILL)
    leak(victim, 10)
    assert pyleak("detach", victim.pid, "--children").status == 0


def test_children_that_become_other_programs(one_python):
    """A parent that starts programs all the time: between vfork() and exec() a child has the parent's memory, and what
    is done to it is done to the parent. All it notices is that it is slower."""
    script = ("import subprocess, sys, threading\n"
              "done = [0] * 2\n"
              "def run(i):\n"
              "    while True:\n"
              "        assert subprocess.run(['/bin/true']).returncode == 0\n"
              "        done[i] += 1\n"
              "for i in range(2):\n"
              "    threading.Thread(target=run, args=(i,), daemon=True).start()\n"
              "print('ready', flush=True)\n"
              "for line in sys.stdin:\n"
              "    print(done, flush=True)\n")
    with Victim(one_python, None, "-c", script) as victim:
        before = victim.ask("done")
        result = pyleak("diff", victim.pid, "--children", "-i", "2s", "--format", "json")
        after = victim.ask("done")
        assert result.status == 0, result
        assert all(new > old for new, old in zip(after, before))
        assert victim.pid in result.json()["pids"]
        wait_clean(victim.pid, 2)


@pytest.mark.parametrize("kind", ["Pool", "ProcessPoolExecutor", "spawn", "forkserver"])
def test_pools(one_python, tmp_path, kind):
    """Workers that are there before, and one that comes."""
    path = tmp_path / "pool.py"
    path.write_text(
        "import concurrent.futures, multiprocessing, sys, time\n"
        "kept = []\n"
        "def leak(number):\n"
        "    kept.append(bytes(100000 + number))  # leaks here\n"
        "    time.sleep(0.05)\n"
        "if __name__ == '__main__':\n"
        "    kind = sys.argv[1]\n"
        "    context = multiprocessing.get_context(kind if kind in ('spawn', 'forkserver') else 'fork')\n"
        "    if kind == 'ProcessPoolExecutor':\n"
        "        pool = concurrent.futures.ProcessPoolExecutor(3, mp_context=context)\n"
        "    else:\n"
        "        pool = context.Pool(3)\n"
        "    list(pool.map(leak, range(12)))\n"
        "    print('ready', flush=True)\n"
        "    while True:\n"
        "        list(pool.map(leak, range(12)))\n")
    with Victim(one_python, None, path, kind, stderr=subprocess.DEVNULL, start_new_session=True) as victim:
        result = pyleak("diff", victim.pid, "--children", "--per-process", "-i", "1500ms", "--format", "json", "-n", 0)
        document = result.json()
        assert result.status == 0, result
        line = line_of(path, "# leaks here")
        grown = [row for row in document["stats"] if row["size_diff"] > 500000]
        assert {(row["filename"], row["lineno"]) for row in grown} == {(str(path), line)}
        assert len({row["pid"] for row in grown}) == 3 and victim.pid not in {row["pid"] for row in grown}
        for child in document["pids"]:
            assert not leftovers(child)
        os.killpg(victim.pid, signal.SIGKILL)  # workers outlive a parent that is killed


RECYCLED = """
import json
KEPT = []
def leak(number):
    KEPT.append("request %d" % number)  # at leak
def work():
    import argparse, csv, difflib, email.parser, html.parser, xml.dom.minidom
    end, number = time.time() + LIFE, 0
    while time.time() < end:
        for _ in range(20):
            json.loads(json.dumps({"id": number, "items": [str(number)] * 5}))
            leak(number)
            number += 1
        time.sleep(0.02)
def fork():
    if os.fork() == 0:
        work()
        sys.exit(0)
LIFE, APART = map(float, sys.argv[1:])
sys.stdout.write("ready\\n"); sys.stdout.flush()
for _ in range(3):
    fork()
    time.sleep(APART)
while True:
    os.wait()
    fork()
"""


@pytest.mark.parametrize("apart", [1 / 3, 0], ids=["in turn", "together"])
def test_workers_that_are_recycled(one_python, tmp_path, apart):
    """Each worker leaks at one line, and ends after some seconds: the line is first and its growth steady, whatever ends
    within a window, and what newborn workers import is no growth. Where all begin together, as behind a server that gives each
    as many requests, hardly anything grows in a window in which they work."""
    life = 6 * PATIENCE
    with Program(one_python, tmp_path, RECYCLED, life, apart * life) as victim:
        time.sleep(life)
        with Pyleak("diff", victim.pid, "--children", "-i", "%gs" % (life / 4), "-c", 10, "--format", "json") as running:
            result = running.finish(seconds=20 * life)
        assert result.status == 0, result
        documents = [json.loads(line) for line in result.stdout.splitlines()]
        for document in documents[5:]:
            first = document["stats"][0]
            assert (first["filename"], first["lineno"]) == (victim.path, victim.lines["leak"]), document["stats"][:3]
            assert first["verdict"]["kind"] == "steady" and first["verdict"]["ends"], first
            assert first["verdict"]["full_in_s"] is None
            assert not [row for row in document["stats"][1:] if row["verdict"]["kind"] == "steady" and
                        row["filename"] != victim.path], document["stats"]
        assert any(document["stats"][0]["size_diff"] < 0 for document in documents), "one ended in none of the windows"
        # A worker that came or ended is named as what the process grew or shrank by, and is neither of the rows nor
        # unexplained. Where all end together others come in the same window.
        growths = [document["account"]["growth"] for document in documents if document["account"]]
        moved = [growth for growth in growths if abs(growth["rss"]) > 8 << 20]
        assert moved or not apart, growths
        for growth in moved:
            assert abs(growth["processes"] - growth["rss"]) < 0.2 * abs(growth["rss"]), growth
            assert abs(growth["unexplained"]) < 0.1 * abs(growth["rss"]), growth
        os.kill(victim.pid, signal.SIGKILL)


BATCHES = """
KEPT, BATCH = [], []
def leak(number):
    KEPT.append("request %d" % number)  # at leak
def batch(number):
    BATCH.extend(["row %d of %d" % (row, number) for row in range(20)])  # at batch
    if len(BATCH) > 30000:
        del BATCH[:]
def work(parent):
    number = 0
    while os.getppid() == parent:
        leak(number)
        batch(number)
        number += 1
        time.sleep(0.001)
for parent in [os.getpid()] * 2:
    if os.fork() == 0:
        work(parent)
        os._exit(0)
meet("ready")
time.sleep(1000)
"""


def test_what_grows_steadily_is_first(one_python, tmp_path):
    """Of a family another row moves more in most windows, up and down; holders stay with their rows."""
    with Program(one_python, tmp_path, BATCHES) as victim:
        victim.tell("go")
        with Pyleak("diff", victim.pid, "--children", "-i", "%gs" % (0.5 * PATIENCE), "-c", 10, "--format", "json", "--holders") as running:
            result = running.finish(seconds=60)
        assert result.status == 0, result
        documents = [json.loads(line) for line in result.stdout.splitlines()]
        most = [max(document["stats"], key=lambda row: abs(row["size_diff"]))["lineno"] for document in documents[7:]]
        assert victim.lines["batch"] in most, "it would be first"
        for document in documents[7:]:
            first = document["stats"][0]
            assert first["verdict"]["kind"] == "steady" and first["lineno"] == victim.lines["leak"], document["stats"][:3]
        assert first["held_by"][0]["path"].endswith(".KEPT"), first


def test_workers_that_come_and_go(family):
    """What ended costs nothing any more: descriptors and memory are those of who lives, the figures too."""
    victim = family(8)
    fds = lambda running: len(os.listdir("/proc/%d/fd" % running.pid))
    rss = lambda running: int(open("/proc/%d/statm" % running.pid).read().split()[1]) * 4096
    with attached(victim) as running:
        before, seen = None, set(victim.ask("pids"))
        for turn in range(5):
            leak(victim, 100)
            for _ in range(8):
                victim.tell("kill 0")
                assert victim.line() == "killed"
            for _ in range(8):
                victim.tell("fork")
                seen.add(int(victim.line()))
            wait_recorded(victim.ask("pids")[-1], running)
            if turn == 0:
                time.sleep(4)
                before = fds(running), rss(running)
        wait_until(lambda: fds(running) <= before[0] + 3 and rss(running) <= before[1] + (4 << 20), 10,
                   "descriptors and memory as before")
        leak(victim, 100)
        document = running.finish(signal.SIGINT).json()
    assert set(document["pids"]) == seen | {victim.pid}
    [row] = leaks(document)
    assert row["count"] == 800 and row["freed"]["count"] <= 8 * 500 and document["lost"] == {"events": 0, "sites": 0}
