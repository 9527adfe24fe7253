#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Records with pyleak how the memory of tests/victims/growth.py grows, one file for each of its ways:

    tests/unit/data/record_series.py build/pyleak tests/unit/data/series [PYTHON]

A file has one line a snapshot: nanoseconds, live bytes and blocks, and blocks allocated since the
first window; of the row that is largest at the end ('imports': of all rows of importlib's file that
makes the code of modules). test_series.c judges them.
"""
import json
import pathlib
import subprocess
import sys

INTERVAL, WINDOWS = 0.5, 24
ROOT = pathlib.Path(__file__).resolve().parents[3]
KINDS = ("steady", "bursty", "lru", "garbage", "noise", "imports", "day")


def is_wanted(row, kind):
    if kind == "imports":
        return row["filename"] == "<frozen importlib._bootstrap_external>"
    return row["filename"].endswith("growth.py") and row["function"] == "make"


def record(pyleak, python, kind):
    victim = subprocess.Popen([python, str(ROOT / "tests/victims/growth.py"), kind], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    try:
        assert victim.stdout.readline() == "ready\n"
        command = [pyleak, "diff", str(victim.pid), "--interval", "%gs" % INTERVAL, "--count", str(WINDOWS), "--limit",
                   "0", "--format", "json"]
        watcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        victim.stdin.write("go\n")
        victim.stdin.flush()
        documents = [json.loads(line) for line in watcher.stdout]
        assert watcher.wait() == 0
    finally:
        victim.kill()
        victim.wait()
    taken = allocated = 0
    for number, document in enumerate(documents):
        rows = [row for row in document["stats"] if is_wanted(row, kind)]
        if number == 0:
            yield taken, sum(r["size"] - r["size_diff"] for r in rows), sum(r["count"] - r["count_diff"] for r in rows), 0
        taken += int(document["window_s"] * 1e9)
        allocated += sum(row["allocated"]["count"] for row in rows)
        yield taken, sum(row["size"] for row in rows), sum(row["count"] for row in rows), allocated


def main():
    pyleak, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    python = sys.argv[3] if len(sys.argv) > 3 else "/usr/bin/python3"
    version = subprocess.check_output([python, "-c", "import sys; print(sys.version.split()[0])"], text=True).strip()
    folder.mkdir(exist_ok=True)
    for kind in KINDS:
        with open(folder / (kind + ".txt"), "w", encoding="ascii") as file:
            print("# growth.py %s on Python %s, recorded by record_series.py" % (kind, version), file=file)
            for line in record(pyleak, python, kind):
                print(*line, file=file)
        print(kind, flush=True)


main()
