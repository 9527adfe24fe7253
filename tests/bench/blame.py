#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Which line is blamed for a leak of objects that CPython parks, by pyleak, tracemalloc and memray: README's table.

    blame.py PYTHON...      (PYLEAK_BUILD: the build to use)

A share is of the blocks that tests/victims/parked.py leaks: those that are found on the line that leaks them, and
not on the one that makes and drops objects of the same type. memray is asked where the Python has it; tracemalloc up to 3.7, which do not repair it.
"""
import json
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

import pythons  # noqa: E402
from helpers import Victim, line_of  # noqa: E402
from test_free_lists import PARKED, detach, plant, read, tell  # noqa: E402

KINDS = ["lists", "dicts", "tuples", "floats"]
LEAKED = 500 * 40
PLACES = "leak", "churn"
MEMRAY = """
import collections, json, os, runpy, sys, tempfile
import memray
path, kind = sys.argv[1:]
parked = runpy.run_path(path, run_name="parked")
with tempfile.TemporaryDirectory() as folder:
    output = os.path.join(folder, "memray.bin")
    with memray.Tracker(output, trace_python_allocators=True):
        parked["KINDS"][kind]()
    counts = collections.Counter()
    for record in memray.FileReader(output).get_leaked_allocation_records(merge_threads=True):
        stack = record.stack_trace(max_stacks=1)
        if stack and os.path.realpath(stack[0][1]) == os.path.realpath(path):
            counts[stack[0][2]] += record.n_allocations
print(json.dumps([memray.__version__, counts]))
"""


def share(figures, kind):
    """Of what is on both lines, how much is on the right one; figures are blocks by line."""
    right, wrong = (figures.get(line_of(PARKED, "%s: %s" % (kind, place)), 0) for place in PLACES)
    # But for the few that were parked before.
    assert right + wrong >= 0.99 * LEAKED, "%s: %d leaked blocks are nowhere" % (kind, LEAKED - right - wrong)
    return right / (right + wrong)


def by_pyleak(python):
    shares = {}
    with Victim(python, "parked.py") as victim:
        plant(victim.pid)
        for kind in KINDS:
            tell(victim, "leak " + kind, "leaked")
            shares[kind] = share({line: count for line, (_, count) in read(victim.pid).items()}, kind)
        detach(victim)
    return "pyleak", shares


def by_tracemalloc(python):
    shares = {}
    for kind in KINDS:
        answer = json.loads(subprocess.check_output([python, str(PARKED), "tracemalloc", kind]))
        shares[kind] = share({int(line): count for line, (_, count) in answer.items()}, kind)
    return "`tracemalloc`", shares


def by_memray(python):
    shares, version = {}, None
    for kind in KINDS:
        answer = subprocess.run([python, "-c", MEMRAY, str(PARKED), kind], stdout=subprocess.PIPE, check=True).stdout
        version, found = json.loads(answer)
        shares[kind] = share({int(line): count for line, count in found.items()}, kind)
    return "memray " + version, shares


def has_memray(python):
    return subprocess.run([python, "-c", "import memray"], stderr=subprocess.DEVNULL, check=False).returncode == 0


def main():
    print("| | %s |\n|---|%s" % (" | ".join(KINDS), "---|" * len(KINDS)))
    known = {python.executable: python for python in pythons.pythons()}
    for path in sys.argv[1:]:
        python = known.get(path)
        if not python:
            sys.exit("blame.py: %s is not one of %s (PYLEAK_PYTHONS names more)" % (path, ", ".join(known)))
        ways = [by_pyleak] + [by_tracemalloc] * (python.version < (3, 8)) + [by_memray] * has_memray(path)
        for way in ways:
            name, shares = way(path)
            print("| %s, Python %s | %s |" % (name, pythons.version_text(python), " | ".join(
                "%.0f %%" % (100 * shares[kind]) for kind in KINDS)), flush=True)


if __name__ == "__main__":
    main()
