# SPDX-License-Identifier: MIT
"""pyleak holders: who keeps the memory, against programs that know."""
import json
import os
import re
import signal
import time

import pytest

from helpers import Pyleak, Trace, Victim, assert_refused, pyleak, state, wait_until

# What the first line of the report must name. {n}: any number.
PATHS = {
    "module_dict": r"__main__\.CACHE",
    "attribute": r"__main__\.service\.inner\.store\.items",
    "class_attribute": r"__main__\.Report\.cache",
    "cached_method": r"__main__\.Report\.total lru_cache",
    "tasks": r"(coroutine )?serve\(\):hub\.tasks",
    "closures": r"__main__\.CALLBACKS",
    "handlers": r"logging\.root\.handlers",
    "thread_local": r".*\bthreading\.local\b.*\bitems|threading\.local of thread \d+.*items",
    "exception": r"__main__\.LAST_ERROR.*fails\(\):rows",
}
# What else the holder keeps: tasks, functions, handlers, and the cache's own links come on top of what was counted.
EXACT = ("module_dict", "attribute", "class_attribute", "thread_local", "exception")


def holders(victim, *arguments):
    result = pyleak("holders", victim.pid, "--format", "json", *arguments)
    assert result.status == 0 and result.stderr == "", result
    return result.json()


def leaks(python, kind):
    victim = Victim(python, "holders.py", kind, ready=None)
    try:
        return victim, json.loads(victim.line())
    except BaseException:
        victim.end()
        raise


@pytest.mark.parametrize("kind", sorted(PATHS))
def test_a_variable(python, kind):
    """The right path is the first line, and what it retains is what was leaked."""
    victim, truth = leaks(python, kind)
    with victim:
        before = Trace(victim.pid)
        document = holders(victim)
        assert not before.differences(victim.pid)
        first = document["holders"][0]
        assert re.fullmatch(PATHS[kind], first["path"]), first
        assert first["retained"]["size"] >= 0.97 * truth["size"], (first, truth)
        # Some few objects are shared with others: texts that are interned.
        assert first["retained"]["count"] >= 0.99 * truth["count"], (first, truth)
        if kind in EXACT:
            assert first["retained"]["size"] <= 1.03 * truth["size"], (first, truth)
            assert first["retained"]["count"] <= 1.03 * truth["count"], (first, truth)
        assert document["garbage"]["size"] < 0.1 * truth["size"], document["garbage"]
        assert document["native"]["size"] < 0.1 * truth["size"], document["native"]
        assert document["reached"]["count"] <= document["total"]["count"]
        text = pyleak("holders", victim.pid, "-n", 3).stdout.splitlines()
        assert first["path"] in text[1], text


def test_a_cycle(python):
    """With the collector off cycles are garbage, all of them and nothing else."""
    victim, truth = leaks(python, "cycle")
    with victim:
        document = holders(victim)
        assert document["gc"].get("enabled", "") in (False, "" if "3.6." in document["python"] else False)
        garbage = document["garbage"]
        assert 0.97 * truth["size"] <= garbage["size"] <= 1.03 * truth["size"], (garbage, truth)
        assert 0.97 * truth["count"] <= garbage["count"] <= 1.03 * truth["count"], (garbage, truth)
        text = pyleak("holders", victim.pid).stdout.splitlines()
        assert "garbage in cycles" in text[1], text
        assert "which is off" in text[1] or "3.6." in document["python"], text


@pytest.mark.parametrize("kind,expected", [("native_array", "held"), ("forgotten", "unowned")])
def test_native_code(python, kind, expected):
    """What a C array holds, and what nobody holds though it is counted."""
    victim, truth = leaks(python, kind)
    with victim:
        document = holders(victim)
        native = document["native"]
        assert 0.97 * truth["size"] <= native["size"] <= 1.1 * truth["size"], (native, truth)
        assert native["types"][0]["type"] == "list" and native["types"][0]["kind"] == expected, native
        assert 2990 <= native["types"][0]["count"] <= 3100, native
        text = pyleak("holders", victim.pid).stdout.splitlines()
        assert "held by native code" in text[1], text


@pytest.mark.parametrize("malloc", ["malloc", "pymalloc_debug"])
def test_another_allocator(one_python, malloc):
    """Objects are found wherever they lie."""
    with Victim(one_python, "holders.py", "module_dict", ready=None, env={**os.environ, "PYTHONMALLOC": malloc}) as victim:
        truth = json.loads(victim.line())
        first = holders(victim)["holders"][0]
        assert first["path"] == "__main__.CACHE"
        assert 0.97 * truth["size"] <= first["retained"]["size"] <= 1.03 * truth["size"]


SHARED = """
import sys
class U:
    def __init__(self, i):
        self.i, self.n = i + 1000000, "n%d" % i
DOCS = [[U(i) for i in range(20000)]]
INDEX = {u.i: u for u in DOCS[0]}
head = None
for i in range(20000):
    head = (head, "link %d" % i)
print("ready", flush=True)
sys.stdin.read()
"""


def test_what_several_variables_hold(python):
    """Neither would free it: who leads to it, both of them. And a chain is told as a whole."""
    with Victim(python, None, "-c", SHARED) as victim:
        document = holders(victim)
        group = [row for row in document["groups"] if row["type"] == "__main__.U"][0]
        assert group["count"] == 20000, group
        assert sorted((row["path"], row["count"]) for row in group["held_by"]) == \
            [("__main__.DOCS[0]", 20000), ("__main__.INDEX", 20000)], group
        chain = [row for row in document["holders"] if row["path"] == "__main__.head"][0]
        assert chain["retained"]["count"] >= 0.99 * 40000, chain
        counts = {row["type"]: row["count"] for row in chain["contents"]}
        assert counts["tuple"] >= 0.99 * 20000 and counts["str"] >= 0.99 * 20000, chain
        group = holders(victim, "--type", "tuple")["groups"][0]
        assert group["size"] < document["rss"], group


def test_a_type(one_python):
    victim, _ = leaks(one_python, "module_dict")
    with victim:
        document = holders(victim, "--type", "tuple")
        group = document["groups"][0]
        assert group["type"] == "tuple" and group["count"] >= 3000
        assert {"path": "__main__.CACHE", "count": 3000} in group["held_by"], group
        text = pyleak("holders", victim.pid, "--type", "no.such.Type").stdout
        assert "no objects of a type 'no.such.Type'" in text


GROWS = """
import sys, time
class Session:
    def __init__(self, i):
        self.data = [i + 0.5, "session %d" % i]
SESSIONS, OLD = {}, [[i, str(i)] for i in range(20000)]
print("ready", flush=True)
i = 0
while True:
    for _ in range(50):
        i += 1
        SESSIONS[i] = Session(i)
    time.sleep(0.001)
"""


def test_growth(python):
    """What grows between two moments is told by its path, and what is only large is not."""
    with Victim(python, None, "-c", GROWS) as victim:
        document = holders(victim, "--interval", "1s")
        first = document["holders"][0]
        assert first["path"] == "__main__.SESSIONS", first
        assert first["diff"]["size"] > 10000 and first["diff"]["count"] > 300, first
        old = [row for row in document["holders"] if row["path"] == "__main__.OLD"]
        assert not old or abs(old[0]["diff"]["size"]) < 10000, old
        lines = pyleak("holders", victim.pid, "-i", "500ms", "-n", 2).stdout.splitlines()
        assert re.match(r" *\+[\d.]+ \w+  __main__\.SESSIONS \([\d.]+ MiB\)|.*KiB", lines[1]), lines
        assert re.match(r" +\+[\d,]+ x __main__\.Session: \+[\d.]+ \w+", lines[2]), lines


def test_the_text_fits_80_columns(one_python):
    victim, _ = leaks(one_python, "cached_method")
    with victim:
        lines = pyleak("holders", victim.pid, "-n", 3).stdout.splitlines()
        assert all(len(line) <= 100 for line in lines), lines
        assert re.match(r"RSS [\d.]+ MiB: [\d,]+ objects [\d.]+ MiB, free .*, files ", lines[0])


def test_a_stop_that_would_be_too_long_is_refused(one_python):
    victim, _ = leaks(one_python, "module_dict")
    with victim:
        assert_refused(pyleak("holders", victim.pid, "--max-stop", "0.00001"), "--max-stop")


def test_the_stop_is_announced(one_python):
    victim, _ = leaks(one_python, "module_dict")
    with victim:
        result = pyleak("holders", victim.pid, "--verbose")
        assert re.search(r"is stopped for some [\d.]+ \w+: [\d.]+ MiB are copied", result.stderr), result
        assert re.search(r"it was stopped for [\d.]+ \w+", result.stderr), result


def test_a_traced_process_is_refused(one_python):
    victim, _ = leaks(one_python, "module_dict")
    with victim, Pyleak("attach", victim.pid, "--engine", "breakpoint", "--format", "json") as other:
        wait_until(lambda: re.search(r"TracerPid:\t[1-9]", open("/proc/%d/status" % victim.pid).read()), 10, "it is traced")
        assert_refused(pyleak("holders", victim.pid), "trace")
        other.finish(signal.SIGINT)


def test_killed_at_every_step(one_python):
    """Whenever pyleak dies, the process goes on."""
    with Victim(one_python, "host.py", "--threads", 3, "--light") as victim:
        for step in range(1, 400):
            result = pyleak("holders", victim.pid, "--format", "json", environment={"PYLEAK_FAULT": str(step)})
            wait_until(lambda: state(victim.pid) in "RSD", 5, "it runs")
            if result.status == 0:
                break
            assert result.status == -signal.SIGKILL, result
        assert 5 < step < 399
        victim.check()


def test_killed_at_random_instants(one_python):
    with Victim(one_python, "host.py", "--threads", 3, "--light") as victim:
        for i in range(40):
            with Pyleak("holders", victim.pid, "--format", "json") as running:
                time.sleep(0.004 * i)
                running.process.kill()
                running.process.wait()
            wait_until(lambda: state(victim.pid) in "RSD", 5, "it runs")
        victim.check()


def test_a_process_that_ends(one_python):
    """One line and status 1, or a report of what was."""
    for i in range(10):
        victim, _ = leaks(one_python, "attribute")
        with victim, Pyleak("holders", victim.pid, "--format", "json") as running:
            time.sleep(0.01 * i)
            victim.process.kill()
            result = running.finish()
            assert result.status in (0, 1), result
            assert result.stderr.count("\n") == (1 if result.status else 0), result


def test_a_stopped_process_stays_stopped(one_python):
    victim, _ = leaks(one_python, "module_dict")
    with victim:
        victim.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: state(victim.pid) == "T", 5, "it is stopped")
        assert holders(victim)["holders"][0]["path"] == "__main__.CACHE"
        assert state(victim.pid) == "T"
        victim.process.send_signal(signal.SIGCONT)
        wait_until(lambda: state(victim.pid) in "RS", 5, "it runs")
