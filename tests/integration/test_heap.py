# SPDX-License-Identifier: MIT
"""pyleak heap: the objects of a process by type, as the interpreter itself counts them."""
import json
import os
import re
import subprocess

from helpers import PYLEAK, Trace, Victim, assert_refused, pyleak


def heap(victim, *arguments):
    result = pyleak("heap", victim.pid, "--format", "json", "-n", 0, *arguments)
    assert result.status == 0, result
    return result, json.loads(result.stdout)


def check(document, expected):
    rows = {row["type"]: row for row in document["stats"]}
    for name, (count, size) in expected["exactly"].items():
        assert rows[name]["count"] == count, name
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


def test_as_the_interpreter_counts(python):
    """Exactly, also where freed memory looks like objects; nothing is touched."""
    with Victim(python, "heap.py", ready=None) as victim:
        expected = json.loads(victim.line())
        before = Trace(victim.pid)
        if expected["free_threaded"]:
            assert_refused(pyleak("heap", victim.pid), "without a GIL")
            return
        result, document = heap(victim)
        assert result.stderr == ""
        assert not before.differences(victim.pid)
        check(document, expected)
        assert document["kind"] == "heap" and document["arenas"] and document["heap"]
        rows = document["stats"]
        assert [row["size"] for row in rows] == sorted((row["size"] for row in rows), reverse=True)
        assert document["total"]["size"] == sum(row["size"] for row in rows) + document["other"]["size"]
        assert document["total"]["count"] == sum(row["count"] for row in rows) + document["other"]["count"]
        assert document["total"]["size"] < document["rss"]
        # Nearly everything has an owner, and what is free is not among it.
        assert all(document["other"][key] < 0.1 * document["total"][key] for key in ("size", "count"))


def test_without_arenas(one_python):
    """With PYTHONMALLOC=malloc all of it is the C library's; one line says what that means."""
    with Victim(one_python, "heap.py", ready=None, env={**os.environ, "PYTHONMALLOC": "malloc"}) as victim:
        expected = json.loads(victim.line())
        result, document = heap(victim)
        assert "arenas of Python were not found" in result.stderr and result.stderr.count("\n") == 1
        assert not document["arenas"] and document["heap"]
        check(document, expected)


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
        assert lines[4].startswith("other blocks: size=") and lines[5].startswith("total: size=") and len(lines) == 6


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
        assert kib < 64 * 1024 and cpu < 20, lines[-2]
        rows = {row["type"]: row for row in json.loads(lines[0])["stats"]}
        assert rows["bytes"]["count"] >= 50 and rows["bytes"]["size"] >= 50 * 200000
