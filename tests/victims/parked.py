# SPDX-License-Identifier: MIT
"""Leaks of types whose freed blocks CPython parks: the line that leaks is not the line that churns.

    parked.py tracemalloc KIND    records itself, prints {line: [size, count]} of this file as JSON
    parked.py                     says "ready" and obeys, one command a line:
        leak KIND     60 are made and dropped at one line, 40 kept at another, over and over; "leaked"
        deep          makes and drops nests of 100,000; "dropped"
        fork          {"status": of a child that does so, leaks too, and exits with 42}
        hold          starts a thread that stays in the finalizer of a list's item; "held"
        drain         keeps more of each type than can be parked, and drops none; "drained"
        stats         sys._debugmallocstats() on stderr; "printed"
        quit

Runs on every Python from 3.6 on.
"""
import gc
import json
import os
import sys
import threading
import tracemalloc

ROUNDS = 500
kept = []


def lists():
    for _ in range(ROUNDS):
        temporary = [[] for _ in range(60)]  # lists: churn
        del temporary
        kept.extend([] for _ in range(40))  # lists: leak


def dicts():
    for _ in range(ROUNDS):
        temporary = [{} for _ in range(60)]  # dicts: churn
        del temporary
        kept.extend({} for _ in range(40))  # dicts: leak


def keyed():
    """A dict with a key is two blocks."""
    for i in range(ROUNDS):
        temporary = [{"a": None} for _ in range(60)]  # keyed: churn
        del temporary
        kept.extend({"a": None} for _ in range(40))  # keyed: leak


def tuples():
    for i in range(ROUNDS):
        temporary = [(kept, None) for _ in range(60)]  # tuples: churn
        del temporary
        kept.extend((kept, None) for _ in range(40))  # tuples: leak


def floats():
    x = 1.5
    for _ in range(ROUNDS):
        temporary = [-x for _ in range(60)]  # floats: churn
        del temporary
        kept.extend(-x for _ in range(40))  # floats: leak


def arithmetic():
    """Temporaries of the interpreter's own, which specialised instructions release."""
    x, y, z = 1.5, 2.5, 0.5
    for _ in range(ROUNDS):
        for _ in range(60):
            x * y + z * x - y  # arithmetic: churn
        kept.extend(x * y for _ in range(40))  # arithmetic: leak


KINDS = {"lists": lists, "dicts": dicts, "keyed": keyed, "tuples": tuples, "floats": floats, "arithmetic": arithmetic}


def deep(depth=100000):
    for make in (lambda x: [x], lambda x: (x,), lambda x: {"key": x}, lambda x: [({"key": x},)]):
        thing = None
        for _ in range(depth):
            thing = make(thing)
        del thing


class Hold(object):
    held = threading.Event()
    go_on = threading.Event()

    def __del__(self):
        Hold.held.set()
        Hold.go_on.wait()


def make_and_drop():
    thing = [({"key": [Hold()]},)]
    del thing


def fork():
    child = os.fork()
    if child == 0:
        code = 1
        try:
            deep(20000)
            for leak in KINDS.values():
                leak()
            gc.collect()
            code = 42 if sum(thing for thing in kept if type(thing) is float) else 2
        finally:
            os._exit(code)
    return {"status": os.waitpid(child, 0)[1]}


def obey(command):
    if command.startswith("leak "):
        KINDS[command.split()[1]]()
        return "leaked"
    if command == "deep":
        deep()
        return "dropped"
    if command == "fork":
        return json.dumps(fork())
    if command == "hold":
        threading.Thread(target=make_and_drop, daemon=True).start()
        Hold.held.wait()
        return "held"
    if command == "release":
        Hold.go_on.set()
        return "released"
    if command == "drain":
        kept.append([[i for i in range(3)] for _ in range(200)])
        kept.append([{"a": i, "b": i} for i in range(200)])
        kept.append([i * 0.5 for i in range(400)])
        kept.append([tuple(range(n)) for n in range(1, 21) for _ in range(2100)])
        return "drained"
    if command == "stats":
        sys._debugmallocstats()
        return "printed"
    sys.exit()


def by_tracemalloc(kind):
    kept.extend([None] * 100000)
    del kept[:]
    tracemalloc.start(1)
    KINDS[kind]()
    snapshot = tracemalloc.take_snapshot()
    tracemalloc.stop()
    print(json.dumps({s.traceback[0].lineno: [s.size, s.count] for s in snapshot.statistics("lineno")
                      if s.traceback[0].filename == __file__}))


if sys.argv[1:2] == ["tracemalloc"]:
    by_tracemalloc(sys.argv[2])
else:
    print("ready", flush=True)
    for line in sys.stdin:
        print(obey(line.strip()), flush=True)
