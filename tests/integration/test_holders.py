# SPDX-License-Identifier: MIT
"""pyleak holders: who keeps the memory, against programs that know."""
import json
import os
import re
import resource
import signal
import sys
import time

import pytest

import pythons
from helpers import PYLEAK, Pyleak, Trace, Victim, assert_refused, pyleak, skip_here, state, wait_until

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
        assert "the collector is off" in text[1] or "3.6." in document["python"], text


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


VARIABLE = """
import contextvars, sys, types
variable = contextvars.ContextVar("request_data")
variable.set([str(i + 100000) for i in range(5000)])
sys.modules["not_a_module"] = types.SimpleNamespace(rows=[str(i + 200000) for i in range(5000)])
made = types.ModuleType("made")
made.TABLE = [str(i + 300000) for i in range(5000)]
sys.modules["made"] = made
del made
print("ready", flush=True)
sys.stdin.read()
"""


def test_names(python):
    """What no module of a file's has."""
    if pythons.of(python).version < (3, 7):
        return  # has no context variables
    with Victim(python, None, "-c", VARIABLE) as victim:
        paths = {row["path"] for row in holders(victim, "-n", 8)["holders"]}
    assert {"contextvar request_data", "sys.modules['not_a_module'].rows", "made.TABLE"} <= paths, paths


ATEXIT = """
import atexit, sys
class Buffer:
    def __init__(self):
        self.rows = [str(i + 100000) for i in range(6000)]
    def flush(self):
        pass
def taken_out():
    pass
atexit.register(Buffer().flush)
atexit.register(taken_out)
atexit.register(print, [str(i + 200000) for i in range(5000)])
atexit.register(lambda rows: None, rows=[str(i + 300000) for i in range(4000)])
atexit.unregister(taken_out)
print("ready", flush=True)
sys.stdin.read()
"""


def test_atexit(python):
    """Only the interpreter's own tables lead to what atexit.register() was given."""
    with Victim(python, None, "-c", ATEXIT) as victim:
        document = holders(victim, "-n", 8)
    paths = [row["path"] for row in document["holders"]]
    assert re.fullmatch(r"atexit\[\d+\]\[0\]\.__self__\.rows", paths[0]), paths
    assert re.fullmatch(r"atexit\[\d+\]\[1\]\[0\]", paths[1]), paths
    assert re.fullmatch(r"atexit\[\d+\]\[2\]\['rows'\]", paths[2]), paths
    assert document["native"]["size"] < 0.5 * document["holders"][2]["retained"]["size"], document["native"]


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


COLLECTS = """
import gc, sys
class Node:
    def __init__(self, i):
        self.name, self.rows = "node %d" % i, [(str(i), str(-i))]
CACHE = {i: Node(i) for i in range(8000)}
def waste():
    a = []
    a.append({"a": a})
print("ready", flush=True)
while True:
    for i in range(200):
        waste()
    gc.collect()
"""


@pytest.mark.long
def test_stopped_in_a_collection(python):
    """While the collector is at work, its links and counts are other ones: objects are found as at any other moment."""
    with Victim(python, None, "-c", COLLECTS) as victim:
        for _ in range(6):
            document = holders(victim)
            first = document["holders"][0]
            assert first["path"] == "__main__.CACHE", document["holders"][:2]
            assert 8000 * 5 <= first["retained"]["count"] <= 8000 * 10, first
            assert document["native"]["size"] < 0.1 * first["retained"]["size"], document["native"]


# So many that the next table is soon full of what was taken out again.
RESIZES = """
import itertools, sys
class Thing:
    __slots__ = ()
if sys.argv[1] == "set":
    KEPT = set(Thing() for i in range(115000))
    add, remove = KEPT.add, KEPT.remove
else:
    KEPT = {i: Thing() for i in range(87000)}
    add, remove = KEPT.setdefault, KEPT.__delitem__
print("ready", flush=True)
for i in itertools.count(1000000):
    add(i)
    remove(i)
"""


@pytest.mark.parametrize("kind", ["dict", "set"])
def test_stopped_while_a_table_is_made_anew(one_python, kind):
    """A good part of the time the table is the new one, and not yet filled: then another look is needed."""
    with Victim(one_python, None, "-c", RESIZES, kind) as victim:
        for _ in range(12):
            document = holders(victim)
            first = document["holders"][0]
            assert first["path"] == "__main__.KEPT" and first["retained"]["count"] >= 87000, document["holders"][:2]
            assert document["native"]["count"] < 1000, document["native"]


IN_HAND = """
import sys
def load():
    return [("row %d" % i, [i + 0.5]) for i in range(5000)]
def handle(row):
    if row[0] == "row 10":
        print("ready", flush=True)
        sys.stdin.read()
def loop():
    for row in load():
        handle(row)
def call():
    list(map(handle, load()))
if sys.argv[1] == "<module>":
    for row in load():
        handle(row)
globals()[sys.argv[1]]()
"""


@pytest.mark.parametrize("kind", ["loop", "call", "<module>"])
def test_what_a_function_has_in_hand(python, kind):
    """What a loop goes through, and what is given to a call, has no name: the function's stack holds it, not native code.
    (From 3.15 on a loop over a list needs no iterator.)"""
    with Victim(python, None, "-c", IN_HAND, kind) as victim:
        document = holders(victim)
    first = document["holders"][0]
    assert re.fullmatch(re.escape(kind) + r"\(\):<(list_iterator|map|list)>.*", first["path"]), document["holders"][:2]
    assert first["retained"]["count"] >= 0.98 * 15000, first
    assert document["native"]["size"] < 0.05 * first["retained"]["size"], document["native"]


@pytest.mark.parametrize("kind", sorted(PATHS) + ["cycle", "native_array", "forgotten"])
def test_the_text_fits_80_columns(one_python, kind):
    victim, _ = leaks(one_python, kind)
    with victim:
        lines = pyleak("holders", victim.pid, "-n", 3).stdout.splitlines()
        assert all(len(line) <= 80 for line in lines), lines
        assert re.match(r"RSS [\d.]+ MiB: ([\d,]+ )?objects [\d.]+ MiB, free .*, files ", lines[0])


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


def ends_of_the_range():
    """The oldest, the distribution's own and the newest."""
    found = [entry.executable for entry in pythons.pythons()]
    if os.environ.get("PYLEAK_ONE_PYTHON") == "1":
        return [path for path in found if path.startswith("/usr/bin/")][-1:] or found[-1:]
    return sorted({found[0], found[-1], *[path for path in found if path.startswith("/usr/bin/")][-1:]}, key=found.index)


@pytest.mark.parametrize("python", ends_of_the_range(), ids=lambda path: pythons.label(pythons.of(path)))
def test_killed_at_every_step(python):
    """Whenever pyleak dies, the process goes on."""
    with Victim(python, "host.py", "--threads", 3, "--light") as victim:
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


EXECS = """
import os, sys
KEPT = [[i] for i in range(2000)]
print(sys.argv[1], flush=True)
os.execv(sys.executable, [sys.executable, __file__, str(int(sys.argv[1]) + 1)])
"""
FORKS = """
import os, sys, time
KEPT = [[i] for i in range(2000)]
n = 0
while True:
    child = os.fork()
    if not child:
        os._exit(len(KEPT) // 100)
    if os.waitpid(child, 0)[1] != 20 << 8:
        sys.exit("a child was harmed")
    n += 1
    if n % 20 == 1:
        print(n, flush=True)
"""


@pytest.mark.parametrize("program", ["execs", "forks"])
def test_a_process_that_becomes_another(one_python, tmp_path, program):
    """It is another program from one moment to the next, or has children all the time: a report or one line, and it goes on."""
    script = tmp_path / "program.py"
    script.write_text(FORKS if program == "forks" else EXECS)
    with Victim(one_python, script, "0", ready=None) as victim:
        first = int(victim.line())
        for _ in range(15):
            result = pyleak("holders", victim.pid, "--format", "json")
            assert result.status == 0 or program == "execs", result
            assert result.stderr.count("\n") == (1 if result.status else 0), result
            wait_until(lambda: state(victim.pid) in "RSD", 5, "it runs")
            # What it has written meanwhile.
            now = int(victim.line())
            while now <= first:
                now = int(victim.line())
            first = now
        assert victim.alive()


def test_a_stopped_process_stays_stopped(one_python):
    victim, _ = leaks(one_python, "module_dict")
    with victim:
        victim.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: state(victim.pid) == "T", 5, "it is stopped")
        assert holders(victim)["holders"][0]["path"] == "__main__.CACHE"
        assert state(victim.pid) == "T"
        victim.process.send_signal(signal.SIGCONT)
        wait_until(lambda: state(victim.pid) in "RS", 5, "it runs")


COLLECTOR = """
import gc, sys
if sys.argv[1] == "freeze":
    gc.collect()
    getattr(gc, "freeze", lambda: None)()
else:
    gc.disable()
    for _ in range(3):
        gc.collect(1)
    for i in range(20000):
        a = []
        a.append(a)
print("ready %d %d" % (gc.get_freeze_count() if hasattr(gc, "get_freeze_count") else 0, gc.get_stats()[2]["collections"]), flush=True)
sys.stdin.read()
"""


def test_the_state_of_the_collector(python):
    """What it says of itself: frozen objects, and full runs, where that can be read."""
    entry = pythons.of(python)
    version, free_threaded = entry.version[:2], entry.free_threaded
    for kind in ("freeze", "later"):
        with Victim(python, None, "-c", COLLECTOR, kind, ready=None) as victim:
            frozen, full = map(int, victim.line().split()[1:])
            said = holders(victim)["gc"]
            assert said.get("enabled", kind == "freeze") == (kind == "freeze") and ("enabled" in said or version < (3, 7)), said
            assert ("frozen" in said) == (version >= (3, 8) and not free_threaded), said
            # Asking makes some objects more.
            assert abs(said.get("frozen", frozen) - frozen) <= 2, (said, frozen)
            assert ("full" in said) == ((3, 8) <= version <= (3, 13) and not free_threaded), said
            assert said.get("full", full) == full and said.get("since_full", 3) >= (3 if kind == "later" else 0), (said, full)
            text = pyleak("holders", victim.pid, "-n", 1).stdout
            assert ("gc.freeze() has taken" in text) == (said.get("frozen", 0) > 0), text
            if kind == "later" and "full" in said:
                assert ("last full run: %d younger" % said["since_full"] if full else "there has not been a full run yet") in text, text


RESERVED = """
import mmap, sys
reserved = mmap.mmap(-1, 1 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
for i in range(0, 100, 3):
    reserved[i * (1 << 40) // 100] = 1
CACHE = [[i] for i in range(50000)]
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_reservation_of_a_terabyte(one_python):
    """Address space that nothing is in costs nothing: neither the process, nor us."""
    if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 7):
        skip_here("scan")
    with Victim(one_python, None, "-c", RESERVED, ready=None) as victim:
        assert victim.line() == "ready"
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        result = pyleak("holders", victim.pid, "--format", "json", "--max-stop", "1s")
        assert result.status == 0 and result.stderr == "", result
        assert result.json()["holders"][0]["path"] == "__main__.CACHE"
        # It would be nine seconds if each page were looked at.
        assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 3


def test_its_own_memory(one_python):
    """60 bytes an object at most, beside the copy, and what any pyleak takes."""
    sys.path.insert(0, str(pythons.ROOT / "tests" / "bench"))
    import holders as bench
    small = bench.measure(PYLEAK, one_python, "few", "")
    large = bench.measure(PYLEAK, one_python, "many", bench.MILLION.replace("111000", "40000"))
    assert large["count"] > 350000
    assert large["own"] - large["copied"] - (small["own"] - small["copied"]) < 60 * large["count"], (small, large)
