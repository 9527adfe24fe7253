#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What pyleak holders costs: time, stop, and its own memory, for a heap of so many objects.

    tests/bench/holders.py [--pyleak PYLEAK] [--python PYTHON] [--million|--large]...

--million: a million objects of a service (dicts of lists of texts, numbers and tuples); --large: 16.7 million, lists of
numbers that came from arrays. Own memory is the largest resident size that pyleak had, with all that it copied, and what of it is
left when that copy is taken off, for each object. On a quiet machine, or the times say nothing."""
import argparse
import json
import os
import re
import subprocess
import sys
import time

MILLION = """
CACHE = {}
for i in range(111000):
    CACHE["user:%d" % i] = [i + 0.5, "name %d" % i, (i + 1000000, "text %d" % i), {"value": i + 2000000}]
"""
LARGE = """
CACHE = {}
for i in range(1000):
    CACHE[i] = list(range(100000000 + i * 16700, 100000000 + (i + 1) * 16700))
"""
PROGRAM = "import sys\n%s\nprint('ready', flush=True)\nsys.stdin.read()\n"


def measure(pyleak, python, name, program):
    victim = subprocess.Popen([python, "-c", PROGRAM % program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert victim.stdout.readline() == b"ready\n"
        before = time.monotonic()
        running = subprocess.Popen([pyleak, "holders", str(victim.pid), "--format", "json", "--verbose"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        output, errors = running.stdout.read(), running.stderr.read()
        _, status, usage = os.wait4(running.pid, 0)
        seconds = time.monotonic() - before
        assert status == 0, errors
        document = json.loads(output)
        count, own = document["total"]["count"], usage.ru_maxrss * 1024
        copied = re.search(rb"some [\d.]+ \S+: ([\d.]+) (\w+) are copied", errors)
        copied = float(copied[1]) * {b"KiB": 1 << 10, b"MiB": 1 << 20, b"GiB": 1 << 30}[copied[2]]
        print("%-8s Python %s: %d objects, RSS %.0f MiB: %.2f s (%.2f s of CPU), stopped %.0f ms, own memory %.0f MiB (%.0f B an object; "
              "without the copy %.0f MiB, %.1f B an object); first: %s" % (
                  name, document["python"], count, document["rss"] / 2**20, seconds, usage.ru_utime + usage.ru_stime, document["stop_ms"], own / 2**20,
                  own / count, (own - copied) / 2**20, (own - copied) / count, document["holders"][0]["path"]), flush=True)
        return {"count": count, "own": own, "copied": copied, "text": errors.decode()}
    finally:
        victim.kill()
        victim.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pyleak", default="build/pyleak")
    parser.add_argument("--python", default="/usr/bin/python3")
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--phases", action="store_true", help="what --verbose says of them")
    options = parser.parse_args()
    for name, wanted, program in (("million", options.million, MILLION), ("large", options.large, LARGE)):
        if wanted or not (options.million or options.large):
            measured = measure(options.pyleak, options.python, name, program)
            if options.phases:
                print(measured["text"])


if __name__ == "__main__":
    sys.exit(main())
