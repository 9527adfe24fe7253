# SPDX-License-Identifier: MIT
"""The recorder against tracemalloc, both in this process, over the same allocations: every traceback's
size and count must be equal.  check.py [FRAMES]

tracemalloc 3.8+ moves a block from a free list to the line that uses it again (in
_PyTraceMalloc_NewReference), which no allocator hook can see. So on these versions the lines that make
dicts, tuples and lists of passing life are left out of the comparison, and elsewhere up to 4 blocks of
at most 512 bytes may be at another traceback."""
import gc
import os
import sys
import threading
import tracemalloc

import selfload

FRAMES = int(sys.argv[1]) if len(sys.argv) > 1 else 1


class Slots:
    __slots__ = ("a", "b")

    def __init__(self, i):
        self.a = i + 1000000
        self.b = str(i) + "xyz"


def objects(keep, n):
    for i in range(n):
        keep.append(Slots(i))
        keep.append(bytes(i % 3000))
        keep.append("a%d" % i)
        keep.append(bytearray(i))


def recursive(keep, depth):
    if depth:
        recursive(keep, depth - 1)
        recursive(keep, depth - 1)
    keep.append(bytes(100 + depth))


def generated(keep, n):
    """Code that comes and goes: different code at equal addresses, and equal code over and over."""
    for i in range(n):
        scope = {"keep": keep}
        exec(compile("def f(k):\n" + "\n" * (i % 7) + "    k.append(bytes(%d))\n" % (i % 5 + 40), "<made %d>" % (i % 11), "exec"),
             scope)
        scope["f"](keep)
        del scope
        keep.append(bytes(eval("%d + 1000" % i)))


def grown(keep, n):
    for i in range(n):
        block = bytearray(b"x")
        for _ in range(12):
            block += bytes(len(block))
        keep.append(block)


def closures(keep, n):
    def cell(value):
        def inner():
            return value
        return inner
    for i in range(n):
        keep.append(cell(i))


def generators(keep, n):
    def numbers(k):
        for i in range(k):
            yield bytes(i + 30)
    for i in range(n):
        keep.extend(numbers(i % 9))


def threads(keep, n):
    def run():
        objects(mine, n)
    everyone = []
    for _ in range(4):
        mine = []
        keep.append(mine)
        everyone.append(threading.Thread(target=run))
    for thread in everyone:
        thread.start()
    for thread in everyone:
        thread.join()


def forked():
    pid = os.fork()
    if pid == 0:
        objects([], 1000)
        os._exit(0 if selfload.control()["next_site"] == 0 else 1)
    assert os.waitpid(pid, 0)[1] == 0, "the child of a fork recorded"


def work():
    keep = []
    objects(keep, 2000)
    recursive(keep, 8)
    generated(keep, 300)
    grown(keep, 100)
    closures(keep, 500)
    generators(keep, 300)
    threads(keep, 300)
    half = keep[::2]
    del keep
    return half


def main():
    work()
    gc.disable()
    tracemalloc.start(FRAMES)
    selfload.plant(FRAMES)
    keep = work()
    forked()
    selfload.set_mode(selfload.OFF)
    snapshot = tracemalloc.take_snapshot()
    counters = selfload.control()
    left = selfload.remove()
    tracemalloc.stop()
    mine, theirs = {}, {}
    for frames, (allocated, born, freed, dead) in selfload.Reader().sites():
        key = tuple(frame[:2] for frame in frames)
        row = mine.setdefault(key, [0, 0])
        row[0] += allocated - freed
        row[1] += born - dead
    for trace in snapshot.traces:
        key = tuple((frame.filename, frame.lineno) for frame in trace.traceback)
        key = key if sys.version_info < (3, 7) else key[::-1]  # oldest frame first since 3.7
        row = theirs.setdefault(key, [0, 0])
        row[0] += trace.size
        row[1] += 1
    wrong = equal = few = 0
    for key in sorted(set(mine) | set(theirs)):
        a, b = mine.get(key, [0, 0]), theirs.get(key, [0, 0])
        inside = [name for name, line in key if name == __file__]
        moved = abs(a[1] - b[1])
        if a == b:
            equal += a != [0, 0]
        elif sys.version_info >= (3, 8) and 0 < moved <= 4 and abs(a[0] - b[0]) <= 512 * moved:
            few += 1
        elif not any("selfload.py" in name or "/ctypes/" in name for name, _ in key[:2]) and inside and not (key[0][0] == __file__ and key[0][1] in LEFT_OUT):
            wrong += 1
            print("recorder %s, tracemalloc %s: %s" % (a, b, key))
    print("%s, %d frames: %d tracebacks equal, %d but for a free list, %d not; %d hooks ours; %s" % (
        sys.version.split()[0], FRAMES, equal, few, wrong, left, counters))
    del keep
    sys.exit(wrong != 0 or left != 12)


def lines_of(function, count):
    return set(range(function.__code__.co_firstlineno, function.__code__.co_firstlineno + count))


LEFT_OUT = lines_of(main, 12) | lines_of(forked, 6)
if sys.version_info >= (3, 8):
    LEFT_OUT |= lines_of(generated, 10) | lines_of(closures, 8) | lines_of(generators, 6) | lines_of(work, 10)
main()
