# SPDX-License-Identifier: MIT
"""Leaks of types whose freed blocks CPython parks: the line that leaks is not the line that churns.

    parked.py tracemalloc KIND    records itself, prints {line: [size, count]} of this file as JSON
    parked.py                     says "ready" and obeys, one command a line:
        leak KIND     60 are made and dropped at one line, 40 kept at another, over and over; "leaked"
        deep          makes and drops nests of 100,000; "dropped"
        fork          {"status": of a child that does so, leaks too, and exits with 42}
        hold          starts a thread that stays in the finalizer of a list's item; "held"
        sleep         starts a thread for each type, in the finalizer of an attribute of a subclass's instance; "asleep"
        wake          ends them; "woken"
        live          objects of all these types live, die, are weakly referred to, resurrected and collected; "lived"
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
import weakref

try:
    from contextvars import copy_context
except ImportError:  # 3.6
    copy_context = None

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


def handed_on():
    """One block that goes to and fro, while nothing else is allocated."""
    table, two = {"a": None}, [None, None]
    for _ in range(ROUNDS * 40):
        for _, _ in table.items():  # handed_on: churn
            pass
        kept.append(tuple(two))  # handed_on: leak


class Thing(object):
    def method(self):
        return self


def methods():
    thing = Thing()
    for _ in range(ROUNDS):
        temporary = [thing.method for _ in range(60)]  # methods: churn
        del temporary
        kept.extend(thing.method for _ in range(40))  # methods: leak


def builtins():
    for _ in range(ROUNDS):
        temporary = [kept.append for _ in range(60)]  # builtins: churn
        del temporary
        kept.extend(kept.append for _ in range(40))  # builtins: leak


def frames():
    """Whoever calls makes the frame (up to 3.10), or whoever asks for it."""
    for _ in range(ROUNDS):
        temporary = [(lambda: sys._getframe())() for _ in range(60)]  # frames: churn
        del temporary
        kept.extend((lambda: sys._getframe())() for _ in range(40))  # frames: leak


def contexts():
    for _ in range(ROUNDS):
        temporary = [copy_context() for _ in range(60)]  # contexts: churn
        del temporary
        kept.extend(copy_context() for _ in range(40))  # contexts: leak


def slices():
    """One is kept for the next use."""
    for _ in range(ROUNDS):
        temporary = [slice(None) for _ in range(60)]  # slices: churn
        del temporary
        kept.extend(slice(None) for _ in range(40))  # slices: leak


KINDS = {"lists": lists, "dicts": dicts, "keyed": keyed, "tuples": tuples, "floats": floats, "arithmetic": arithmetic,
         "handed_on": handed_on, "methods": methods, "builtins": builtins, "frames": frames, "slices": slices}
if copy_context:
    KINDS["contexts"] = contexts
    [copy_context() for _ in range(3)]  # some are parked, as in any process that uses them


class Lazarus(list):
    saved = []

    def __del__(self):
        if len(self) < 3:
            self.append(len(self) * 0.5)
            Lazarus.saved.append(self)


class Table(dict):
    pass


class Pair(tuple):
    __slots__ = ()


class Number(float):
    pass


def live():
    """Whoever finds something wrong raises, and the process ends."""
    dead = []
    for i in range(300):
        Lazarus([[i]] if i % 2 else [])
        things = [Table(a=i), Pair((i, [i])), Number(i), Thing().method, sys._getframe(), slice(i, [i]), (i, {"a": i})]
        watched = [things[0], Number(i), Thing(), (lambda: i), (x for x in things)]
        if copy_context:
            context = copy_context()
            watched += [context]
            assert context.run(lambda: [len(copy_context()), i])[1] == i
        references = [weakref.ref(thing, dead.append) for thing in watched
                      if type(thing).__weakrefoffset__]
        if i % 50 == 7:
            things.append(things)
            assert any(thing is things for thing in gc.get_objects())
            assert all(type(thing) is not None and sys.getrefcount(thing) > 0 for thing in gc.get_objects())
        assert things[5] == slice(i, [i]) and things[6] == (i, {"a": i}) and things[2] == i and things[1] == (i, [i])
        expected = len(dead) + len(references)
        del things, watched
        if copy_context:
            del context
        gc.collect()
        assert len(dead) == expected, (len(dead), expected, references)
        for thing in Lazarus.saved:
            assert thing[-1] == (len(thing) - 1) * 0.5, thing
        if len(Lazarus.saved) > 20:
            del Lazarus.saved[:]
            gc.collect()


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


class Items(list):
    pass


class Amount(float):
    pass


class Row(tuple):
    pass


class Attributes(dict):
    __slots__ = ()


def drop_attribute(kind):
    """The interpreter knows by then which deallocator of the base it will call. No exact list or dict is on its way."""
    thing = kind()
    thing.__dict__ = Attributes(kept=Hold())
    del thing


sleepers = []


def fork():
    child = os.fork()
    if child == 0:
        code = 1
        try:
            deep(20000)
            live()
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
    if command == "live":
        live()
        return "lived"
    if command == "fork":
        return json.dumps(fork())
    if command == "hold":
        threading.Thread(target=make_and_drop, daemon=True).start()
        Hold.held.wait()
        return "held"
    if command == "sleep":
        for kind in (Items, Table, Row, Amount):
            Hold.held.clear()
            sleepers.append(threading.Thread(target=drop_attribute, args=(kind,), daemon=True))
            sleepers[-1].start()
            Hold.held.wait()
        return "asleep"
    if command == "wake":
        Hold.go_on.set()
        for sleeper in sleepers:
            sleeper.join()
        return "woken"
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
elif __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        print(obey(line.strip()), flush=True)
