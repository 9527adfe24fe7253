# SPDX-License-Identifier: MIT
"""Allocation-bound loops, each timed bare, under tracemalloc and with the recorder.

    loops.py [--python PYTHON] [--rounds N] [--modes bare,tm1,…] [LOOP…]

A mode is bare, hook (the entries planted, recording off), tmN or plN (N frames), atN (as plN, but
without trust in the GIL: a slot for each thread, atomic adds) or sN (--sample N KiB, 1 frame).
Every measurement is a process of its own, the best of 25 short runs; the modes take turns. Prints,
for each loop, the median over rounds of time / bare time, and the geometric mean.
"""
import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time


def ints_kept(n):
    keep = []
    for i in range(n):
        keep.append(i + 1000000)
    return keep


def ints_dropped(n):
    for i in range(n):
        i + 1000000


def floats_list(n):
    return [i * 0.5 for i in range(n)]


def lists_kept(n):
    keep = []
    for i in range(n // 4):
        keep.append([i, i])
    return keep


class Node:
    def __init__(self, value, parent):
        self.value = value
        self.parent = parent
        self.children = []


def classes(n):
    root = Node(0, None)
    for i in range(n // 10):
        node = Node(i, root)
        root.children.append(node)
        for k in range(2):
            node.children.append(Node(k, node))
    return root


def strings(n):
    keep = []
    for i in range(n // 4):
        keep.append("key-%d" % i + "/value")
    return "".join(keep)


DOCUMENT = json.dumps([{"id": i, "name": "user%d" % i, "tags": ["a%d" % k for k in range(5)], "score": i * 1.25}
                       for i in range(200)])


def json_loads(n):
    for _ in range(n // 2500):
        json.loads(DOCUMENT)


def json_dumps(n):
    value = json.loads(DOCUMENT)
    for _ in range(n // 5000):
        json.dumps(value, indent=1)


def dicts(n):
    keep = []
    for i in range(n // 8):
        keep.append({"a": i, "b": i + 1000})
    return keep


def deep(n, depth=40):
    """Small objects at the bottom of a deep stack, through a call each."""
    if depth:
        return deep(n, depth - 1)

    def make(i):
        return [str(i)]
    return [make(i) for i in range(n // 8)]


def generators(n):
    def numbers(k):
        for i in range(k):
            yield i + 100000
    total = 0
    for _ in range(n // 50):
        total += sum(numbers(20))
    return total


def evaluated(n):
    """New code all the time, most of it equal to what was there before."""
    for i in range(n // 200):
        eval("x + %d" % (i % 50), {"x": i})


LOOPS = [ints_kept, ints_dropped, floats_list, lists_kept, classes, strings, json_loads, json_dumps, dicts, deep,
         generators, evaluated]


def child(mode, name, size):
    loop = {f.__name__: f for f in LOOPS}[name]
    loop(size // 10)
    if mode.startswith("tm"):
        import tracemalloc
        tracemalloc.start(int(mode[2:]))
    elif mode != "bare":
        sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
        import selfload
        if mode == "hook":
            selfload.plant(1, mode=selfload.OFF)
        elif mode.startswith("pl"):
            selfload.plant(int(mode[2:]))
        elif mode.startswith("at"):
            selfload.plant(int(mode[2:]), mode=selfload.THREADS)
        elif mode.startswith("s"):
            selfload.plant(1, sample=int(mode[1:]) * 1024)
    best = []
    for _ in range(25):
        start = time.perf_counter()
        kept = loop(size)
        best.append(time.perf_counter() - start)
        del kept
    print(min(best))
    sys.stdout.flush()
    os._exit(0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=60000)
    parser.add_argument("--modes", default="bare,hook,pl1,pl16,tm1,tm16")
    parser.add_argument("--child", nargs=2)
    parser.add_argument("loops", nargs="*")
    options = parser.parse_args()
    if options.child:
        child(options.child[0], options.child[1], options.size)
    modes = options.modes.split(",")
    names = options.loops or [f.__name__ for f in LOOPS]
    ratios = {}
    print("%-14s" % "", *("%6s" % mode for mode in modes))
    for name in names:
        times = {mode: [] for mode in modes}
        for _ in range(options.rounds):
            for mode in modes:
                text = subprocess.check_output([options.python, os.path.abspath(__file__), "--size", str(options.size),
                                                "--child", mode, name])
                times[mode].append(float(text))
        row = {mode: statistics.median(t / b for t, b in zip(times[mode], times["bare"])) for mode in modes}
        for mode in modes:
            ratios.setdefault(mode, []).append(row[mode])
        print("%-14s" % name, *("%6.2f" % row[mode] for mode in modes), flush=True)
    print("%-14s" % "geometric mean", *("%6.2f" % math.exp(statistics.mean(map(math.log, ratios[mode]))) for mode in modes))


if __name__ == "__main__":
    main()
