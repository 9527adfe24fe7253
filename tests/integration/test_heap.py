# SPDX-License-Identifier: MIT
"""pyleak heap: the objects of a process by type, as the interpreter itself counts them."""
import json
import os
import platform
import re
import shutil
import subprocess

import pytest

import pythons
from conftest import all_pythons
from helpers import PYLEAK, Trace, Victim, assert_refused, pyleak, skip_here, status, wait_until


def heap(victim, *arguments):
    result = pyleak("heap", victim.pid, "--format", "json", "-n", 0, *arguments)
    assert result.status == 0, result
    return result, json.loads(result.stdout)


def check(document, expected, slack=0):
    rows = {row["type"]: row for row in document["stats"]}
    for name, (count, size) in expected["exactly"].items():
        assert abs(rows[name]["count"] - count) <= slack, (name, rows[name], count)
        # Rounded up, with what the collector and the interpreter keep before an object; or without the table of keys
        # that all instances of a class share.
        assert 0.6 * size <= rows[name]["size"] <= 2.5 * size, (name, rows[name], size)
    for name, (count, size) in expected["at_least"].items():
        assert count <= rows[name]["count"] <= 1.02 * count + 20, (name, rows[name], count)
        assert rows[name]["size"] >= 0.95 * size, (name, rows[name], size)
    # From 3.14 on what a bytearray holds is an object of its own.
    count, size = expected["bytearray"]
    assert rows["bytearray"]["count"] == count
    assert size < rows["bytearray"]["size"] + rows["bytes"]["size"] < 1.2 * size


def check_owners(document, expected):
    """The blocks of a deque, the nodes of an OrderedDict, buffers, digits: they are their object's."""
    rows = {row["type"]: row for row in document["stats"]}
    rows.setdefault("_struct.Struct", rows.get("Struct"))  # up to 3.8
    for name, (count, size) in expected.items():
        assert rows[name]["count"] >= count, (name, rows[name])
        assert 0.95 * size <= rows[name]["size"], (name, rows[name], size)
        # Of those that nobody else has.
        if rows[name]["count"] <= 1.02 * count and not name.startswith("_struct"):
            assert rows[name]["size"] < 1.3 * size + 65536, (name, rows[name], size)


def check_traced(document, expected):
    """Where blocks cannot be walked the process is stopped once, and what something leads to is counted."""
    # One of ten thousand is missed, or one that was freed is found, now and then: as the memory around it happens to look.
    check(document, expected, 1)
    assert document["stop_ms"] > 0 and document["other"] is None and not document["arenas"] and not document["heap"]
    assert document["total"]["size"] == sum(row["size"] for row in document["stats"]) < document["rss"]
    assert document["total"]["count"] == sum(row["count"] for row in document["stats"])
    assert document["unreached"]["count"] < 0.02 * document["total"]["count"]


def test_as_the_interpreter_counts(python):
    """Exactly, also where freed memory looks like objects; nothing is touched."""
    with Victim(python, "heap.py", ready=None) as victim:
        expected = json.loads(victim.line())
        before = Trace(victim.pid)
        result, document = heap(victim)
        if expected["free_threaded"]:
            assert not before.differences(victim.pid)
            check_traced(document, expected)
            return
        assert result.stderr == ""
        assert not before.differences(victim.pid)
        check(document, expected)
        assert document["kind"] == "heap" and document["arenas"] and document["heap"]
        assert document["stop_ms"] == 0 and document["unreached"] is None
        rows = document["stats"]
        assert [row["size"] for row in rows] == sorted((row["size"] for row in rows), reverse=True)
        assert document["total"]["size"] == sum(row["size"] for row in rows) + document["other"]["size"]
        assert document["total"]["count"] == sum(row["count"] for row in rows) + document["other"]["count"]
        assert document["total"]["size"] < document["rss"]
        # Nearly everything has an owner, and what is free is not among it.
        assert all(document["other"][key] < 0.05 * document["total"][key] for key in ("size", "count")), document["other"]
        check_owners(document, expected["owners"])


OWN = [entry for entry in all_pythons() if not entry.root and not entry.free_threaded]
ENDS = [entry.executable for entry in OWN[:1] + OWN[1:][-1:]]
ends = pytest.mark.parametrize("python", ENDS, ids=[pythons.label(pythons.of(executable)) for executable in ENDS])
ALLOCATORS = {"jemalloc": "libjemalloc.so.2", "tcmalloc": "libtcmalloc_minimal.so.4"}


@ends
def test_without_arenas(python):
    """With PYTHONMALLOC=malloc all of it is the C library's, and can be walked; one line says what that means."""
    with Victim(python, "heap.py", ready=None, env={**os.environ, "PYTHONMALLOC": "malloc"}) as victim:
        expected = json.loads(victim.line())
        result, document = heap(victim)
        assert "arenas of Python were not found" in result.stderr and result.stderr.count("\n") == 1
        assert not document["arenas"] and document["heap"] and document["stop_ms"] == 0
        check(document, expected)


def another(python, allocator, malloc, *command):
    path = os.path.join("/usr/lib/x86_64-linux-gnu", ALLOCATORS[allocator]) if allocator else ""
    if path and not os.path.exists(path):
        skip_here("allocator", allocator)
    return Victim(python, *(command or ["heap.py"]), ready=None, env={**os.environ, "PYTHONMALLOC": malloc, "LD_PRELOAD": path})


@ends
@pytest.mark.parametrize("malloc", ["pymalloc", "malloc"])
@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_another_allocator(python, allocator, malloc):
    """Nothing is missing where malloc is not glibc's: neither all of it, nor what is larger than 512 bytes."""
    with another(python, allocator, malloc) as victim:
        expected = json.loads(victim.line())
        before = Trace(victim.pid)
        result, document = heap(victim)
        assert result.stderr == "" and not before.differences(victim.pid)
        check_traced(document, expected)


ARRAYS = """
import sys
try:
    import numpy
except ImportError:
    sys.exit(print("none", flush=True))
plain, turned = numpy.ones((1000, 500)), numpy.ones((500, 1000)).T.copy(order="K")
views = [plain[i:] for i in range(100)]
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_what_numpy_has(one_python, allocator):
    """No chunk says how large the data are: the array does. Views have none."""
    with another(one_python, allocator, "pymalloc", None, "-c", ARRAYS) as victim:
        if victim.line() == "none":
            skip_here("numpy")
        row, = (row for row in heap(victim)[1]["stats"] if row["type"] == "numpy.ndarray")
        assert row["count"] >= 102 and 8_000_000 <= row["size"] <= 9_000_000, row


@ends
def test_debug_hooks(python):
    """Objects do not begin where their blocks do."""
    with another(python, None, "debug") as victim:
        expected = json.loads(victim.line())
        check_traced(heap(victim)[1], expected)


CYCLES = """
import collections, gc, json, sys
gc.collect()
gc.disable()
class Kept:
    pass
class Lost:
    pass
kept = []
for i in range(2000):
    one = Kept()
    one.call, one.items = (lambda one=one: one), [one, {one}]
    kept.append(one)
seen = collections.Counter((type(one).__module__ + "." + type(one).__name__).replace("builtins.", "")
                           for one in gc.get_objects())
for i in range(3000):
    one = Lost()
    one.me = [one]
del one
print(json.dumps(seen), flush=True)
sys.stdin.read()
"""
WITHOUT_GIL = [entry.executable for entry in all_pythons() if entry.free_threaded]


@pytest.mark.parametrize("python", WITHOUT_GIL or [None], ids=[pythons.label(pythons.of(one)) for one in WITHOUT_GIL] or ["none"])
def test_garbage_is_not_counted(python):
    """What gc.get_objects() has is there, but cycles that wait for the collector: how much that is, is said."""
    if not python:
        skip_here("pythons", "one without a GIL")
    with Victim(python, None, "-c", CYCLES, ready=None) as victim:
        seen = json.loads(victim.line())
        document = heap(victim)[1]
        rows = {row["type"]: row["count"] for row in document["stats"]}
        assert seen["__main__.Kept"] == rows["__main__.Kept"] == 2000 and "__main__.Lost" not in rows
        for name in ("function", "list", "set"):
            assert 0.995 * seen[name] <= rows[name] <= 1.01 * seen[name] + 20, (name, rows[name], seen[name])
        # A Lost and its list each; the dict of some of them.
        assert 6000 <= document["unreached"]["count"] <= 9100, document["unreached"]
        result = pyleak("heap", victim.pid, "-n", 3, "--verbose")
        assert "is stopped for some" in result.stderr and "it was stopped for" in result.stderr, result
        assert re.fullmatch(r"not counted, nothing leads to it: size=[\d.]+ \w+, count=%d, average=\d+ B" %
                            document["unreached"]["count"], result.stdout.splitlines()[4]), result.stdout
        assert result.stdout.splitlines()[5].startswith("total: size=")


def test_what_cannot_be_stopped(one_python):
    """Somebody else traces it: what pymalloc has is told all the same, and that it is not all."""
    with another(one_python, "jemalloc", "pymalloc") as victim:
        expected = json.loads(victim.line())
        if not shutil.which("strace"):
            skip_here("strace")
        with subprocess.Popen(["strace", "-q", "-o", "/dev/null", "-p", str(victim.pid)]) as tracer:
            try:
                wait_until(lambda: status(victim.pid)["TracerPid"] != "0", 10, "strace traces it")
                result, document = heap(victim)
                assert "malloc is not glibc's" in result.stderr and str(tracer.pid) in result.stderr, result
                rows = {row["type"]: row["count"] for row in document["stats"]}
                assert rows["__main__.Slot"] == expected["exactly"]["__main__.Slot"][0]
                assert document["stop_ms"] == 0 and document["unreached"] is None
            finally:
                tracer.terminate()


def test_text(one_python):
    with Victim(one_python, "heap.py", ready=None) as victim:
        victim.line()
        _, document = heap(victim, "-s", "count")
        counts = [row["count"] for row in document["stats"]]
        assert counts == sorted(counts, reverse=True)
        result = pyleak("heap", victim.pid, "-s", "count", "-n", 3)
        assert result.status == 0 and result.stderr == ""
        lines = result.stdout.splitlines()
        for line, row in zip(lines, document["stats"][:3]):
            assert re.match(r"%s: size=[\d.]+ \w+, count=%d, average=\d" % (row["type"], row["count"]), line)
        assert re.match(r"%d more types: size=" % (len(document["stats"]) - 3), lines[3])
        assert lines[4].startswith("other blocks: size=") and lines[5].startswith("total: size=") and len(lines) == 7
        # What is in no type: what half of the objects left behind is free.
        assert re.fullmatch(r"RSS [\d.]+ \wiB: free in allocators [\d.]+ \wiB, files [\d.]+ \wiB", lines[6]), lines[6]
        assert 100_000 < document["free"] < document["rss"] - document["total"]["size"]


def test_reports_go_where_they_are_told_to(one_python, tmp_path):
    path = tmp_path / "heap.json"
    with Victim(one_python, "heap.py", ready=None) as victim:
        victim.line()
        assert pyleak("heap", victim.pid, "-o", path).status == 0
        assert json.loads(path.read_text())["kind"] == "heap", "by the name of the file"
        assert_refused(pyleak("heap", victim.pid, "-o", path), "exists; --force")


def test_no_python():
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            assert_refused(pyleak("heap", process.pid), "not a Python process")
        finally:
            process.kill()


# Imports all the time: arenas come and go.
IMPORTS = """
import json, random, time
print("ready", flush=True)
kept = []
while True:
    kept.append([bytes(random.randrange(16, 400)) for _ in range(4000)])
    if len(kept) > 40:
        del kept[random.randrange(40):]
"""


def test_while_arenas_come(one_python):
    """The maps that were read are never older than the arenas that are looked up in them."""
    with Victim(one_python, None, "-c", IMPORTS) as victim:
        for _ in range(40):
            result, document = heap(victim)
            assert document["arenas"] and not result.stderr, result


RESERVES = """
import ctypes, mmap
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
# Private, anonymous, not reserved: a terabyte of addresses, as sanitizers, databases and garbage collectors have.
at = libc.mmap(None, 1 << 40, 3, 0x4022, -1, 0)
assert at not in (None, 2**64 - 1), "no terabyte"
ctypes.memset(at + (1 << 39), 1, 8192)
kept = [bytes(200000) for _ in range(50)]
print("ready", flush=True)
input()
"""


def test_a_reservation(one_python):
    """What is not in memory takes no memory of ours either."""
    with Victim(one_python, None, "-c", RESERVES) as victim:
        wrapper = ["/usr/bin/python3", "-c", "import resource, subprocess, sys, time; started = time.monotonic(); "
                   "print(subprocess.run(sys.argv[1:], check=True, capture_output=True, text=True).stdout); "
                   "print(time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, "
                   "resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime + "
                   "resource.getrusage(resource.RUSAGE_CHILDREN).ru_stime)"]
        lines = subprocess.run(wrapper + [PYLEAK, "heap", str(victim.pid), "--format", "json"], check=True,
                               capture_output=True, text=True).stdout.split("\n")
        kib, cpu = int(lines[-2].split()[1]), float(lines[-2].split()[2])
        # Where the kernel cannot scan (before 6.7) it takes ten times as long.
        scans = tuple(int(n) for n in platform.release().split("-")[0].split(".")[:2]) >= (6, 7)
        assert kib < 64 * 1024 and cpu < (2 if scans else 20), lines[-2]
        rows = {row["type"]: row for row in json.loads(lines[0])["stats"]}
        assert rows["bytes"]["count"] >= 50 and rows["bytes"]["size"] >= 50 * 200000
