# SPDX-License-Identifier: MIT
"""pyleak heap: the objects of a process by type, as the interpreter itself counts them."""
import json
import os
import re
import subprocess

from helpers import Trace, Victim, assert_refused, pyleak


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
