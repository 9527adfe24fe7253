# SPDX-License-Identifier: MIT
"""The oracle's workload: everything an allocator is used for, recorded by tracemalloc or by pyleak.

    workload.py tracemalloc    records itself, prints the figures as JSON
    workload.py tracemalloc N  the same by traceback, of N frames at most, most recent call first
    workload.py allocators     as tracemalloc, but without what it learns of blocks from free lists (3.13+)
    workload.py watched        says "ready", waits for a line, runs, says "done", waits for the end

Both run it before, so that caches, interned strings and lazily made code are there already, and fill
CPython's free lists: what comes from them then is unknown to both. tracemalloc blames a reused
list, dict, tuple or float on its new owner from 3.8 on, which a pure allocator hook cannot.
Runs on every Python from 3.6 on.
"""
import ctypes
import gc
import json
import sys
import threading
import tracemalloc
import zlib

# Made once: tracemalloc keeps every file name that it has seen alive.
MADE_UP = ["made-up-%d.py" % number for number in range(20)]


# workload begins
class Slotted(object):
    __slots__ = ("a", "b")


class Plain(object):
    def method(self):
        return self


def small_strings(keep):
    for i in range(200):
        keep("small string number %d" % (1000 + i))
    for i in range(20):
        keep(("x%d" % i) * 40)


def big_blocks(keep):
    for i in range(20):
        keep(bytes(513 + 100 * i))
        keep(bytearray(b"y") * (600 + i))
        keep("z" * (2000 + i))
    keep(bytes(1 << 20))


def edges_of_small(keep):
    for size in (1, 7, 8, 9, 15, 16, 17, 100, 478, 479, 480, 511, 512, 513):
        keep(bytes(size) + b"!")


def zeroed(keep):
    """calloc: bytes(n), bytearray(n)."""
    for i in range(10):
        keep(bytes(10000 + i))
        keep(bytearray(20000 + i))


def grown(keep):
    """realloc to larger blocks, some of them moved."""
    for i in range(5):
        array = bytearray()
        for j in range(300):
            array.append(j & 127)
        keep(array)
        between = bytearray(4000)
        for j in range(30):
            array.extend(b"0123456789" * 50)
            between = bytearray(4000 + j)
        keep(between)


def shrunk(keep):
    for i in range(5):
        array = bytearray(100000)
        del array[300:]
        keep(array)
        keep(zlib.compress(b"a" * 50000))


def big_list(keep):
    numbers = [None] * 5000
    for i in range(5000):
        numbers[i] = 10 ** 6 + i
    keep(numbers)
    for i in range(0, 5000, 2):
        numbers[i] = None


def big_integers(keep):
    for i in range(50):
        keep(3 ** (500 + i))


def tuples(keep):
    row = [None] * 40
    for i in range(30):
        keep(tuple(row))


def sets(keep):
    for i in range(10):
        keep(set(range(100)))
        keep(frozenset(range(5)))


def big_dict(keep):
    table = {}
    for i in range(500):
        table[i] = None
    keep(table)


def instances(keep):
    for i in range(100):
        made = Slotted()
        made.a = i
        keep(made)


def generator(keep):
    def numbers():
        for i in range(50):
            yield "generated %d" % i

    for text in numbers():
        keep(text)


def comprehension(keep):
    keep(["made in a comprehension %d" % i for i in range(100)])


def recursion(keep, depth=60):
    if depth:
        recursion(keep, depth - 1)
        keep(bytes(depth + 40))


def lambdas(keep):
    make = lambda i: "from a lambda %d" % i  # noqa: E731
    for i in range(30):
        keep(make(i))


def methods(keep):
    plain = Plain()
    for i in range(30):
        keep(bytes(64 + i)
             + b"over two lines")
        plain.method()


def in_threads(keep):
    def work(number):
        for i in range(50):
            keep("thread %d, %d" % (number, i))

    for number in range(4):
        thread = threading.Thread(target=work, args=(number,))
        thread.start()
        thread.join()


def executed(keep):
    """Code that is dead when the figures are read, its address used again."""
    for number in range(len(MADE_UP)):
        text = "\n" * number + "for i in range(10): keep('executed %d' % i)"
        code = compile(text, MADE_UP[number], "exec")  # keeps what it likes
        exec(code, {"keep": keep, "range": range})
        del code


def raw_domain(keep):
    """Locks come from the raw domain, without a block of Python's own."""
    for i in range(20):
        keep(threading.Lock())


def dropped(keep):
    for i in range(200):
        b"dropped" * (i + 1)
    gone = [bytes(200 + i) for i in range(100)]
    del gone[:]


def replaced(keep):
    place = [None] * 10
    keep(place)
    for i in range(100):
        place[i % 10] = bytes(300 + i)
# workload ends


WORKLOADS = [small_strings, big_blocks, edges_of_small, zeroed, grown, shrunk, big_list, big_integers, tuples, sets,
             big_dict, instances, generator, comprehension, recursion, lambdas, methods, in_threads, executed,
             raw_domain, dropped, replaced]


def run():
    """Everything that the workloads keep. The list does not grow meanwhile."""
    places = [None] * 3000
    position = iter(range(3000))

    def keep(thing):
        places[next(position)] = thing

    for workload in WORKLOADS:
        workload(keep)
    return places


def figures(snapshot):
    rows = {}
    for trace in snapshot.traces:
        frame = trace.traceback[0]
        row = rows.setdefault((frame.filename, frame.lineno), [0, 0])
        row[0] += trace.size
        row[1] += 1
    return [[filename, line, row[0], row[1]] for (filename, line), row in rows.items()]


def figures_by_traceback(snapshot):
    order = 1 if sys.version_info < (3, 7) else -1
    return [[[list(frame) for frame in trace.traceback._frames[::order]], trace.size, 1]
            for trace in snapshot.traces]


def fill_free_lists():
    plain = Plain()
    made = [[[] for _ in range(100)], [{} for _ in range(100)], [i / 3 for i in range(150)],
            [[].append for _ in range(300)], [plain.method for _ in range(300)], [[None] * 5 for _ in range(100)]]
    for size in range(1, 21):
        made.append([tuple([None] * size) for _ in range(2100)])
    while made:
        made.pop()
    # 3.14 keeps iterators, slices and the writers of texts too, 3.15 those of bytes.
    for things in [], (), range(3):
        made = [iter(things) for _ in range(100)]
    made = [slice(i) for i in range(100)] + [range(i) for i in range(100)]
    made = zlib.compress(b"a" * 50000)
    del made
    recursion(bytes, 250)


def main():
    for _ in range(2):
        run()
        gc.collect()
    gc.disable()
    fill_free_lists()
    if sys.argv[1] in ("tracemalloc", "allocators"):
        tracemalloc.start(int(sys.argv[2]) if sys.argv[2:] else 1)
        if sys.argv[1] == "allocators" and sys.version_info >= (3, 13):
            ctypes.pythonapi.PyRefTracer_SetTracer(None, None)
        places = run()
        snapshot = tracemalloc.take_snapshot()
        tracemalloc.stop()
        print(json.dumps(figures_by_traceback(snapshot) if sys.argv[2:] else figures(snapshot)))
    else:
        print("ready", flush=True)
        sys.stdin.readline()
        places = run()
        print("done", flush=True)
        sys.stdin.readline()
    del places


if __name__ == "__main__":
    main()
