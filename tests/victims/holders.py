# SPDX-License-Identifier: MIT
"""Leaks in one of twelve ways, each held by one thing, says as JSON what there is of it, and waits.

    holders.py KIND

`size` is what sys.getsizeof() says of all objects that were leaked, rounded up as allocators round, and `count` how many.
"""
import asyncio
import ctypes
import functools
import gc
import json
import logging
import sys
import threading

COUNT = 3000
total = {"size": 0, "count": 0}


def note(*objects):
    """Adds what was made for the leak alone."""
    for thing in objects:
        total["size"] += (sys.getsizeof(thing) + 15) // 16 * 16
        total["count"] += 1


def payload(i):
    """A list with things of several types, none of them shared."""
    text, number, pairs = "payload number %d" % i * 3, i + 0.5, {"name": "n%d" % i, "value": i + 100000}
    made = [text, number, pairs, (text, i + 200000)]
    note(text, number, pairs, pairs["name"], pairs["value"], made, made[3], made[3][1])
    return made


def say():
    print(json.dumps(total), flush=True)
    sys.stdin.read()


class Thing:
    pass


CACHE = {}


def module_dict():
    for i in range(COUNT):
        key = "key %d" % i
        note(key)
        CACHE[key] = payload(i)
    note(CACHE)
    say()


service = Thing()


def attribute():
    service.inner = Thing()
    service.inner.store = Thing()
    service.inner.store.items = [payload(i) for i in range(COUNT)]
    note(service.inner.store.items)
    say()


class Report:
    cache = []

    def __init__(self, year):
        self.year = year

    @functools.lru_cache(maxsize=None)
    def total(self, number):
        return payload(number)


def class_attribute():
    Report.cache.extend(payload(i) for i in range(COUNT))
    note(Report.cache)
    say()


def cached_method():
    report = Report(2021)
    for i in range(COUNT):
        report.total(i + 300000)
    say()


class Hub:
    def __init__(self):
        self.tasks = set()


async def wait(event, data):
    await event
    return data


async def serve():
    hub = Hub()
    loop = asyncio.get_event_loop()
    for i in range(COUNT):
        hub.tasks.add(loop.create_task(wait(loop.create_future(), payload(i))))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    say()
    return hub


def tasks():
    asyncio.get_event_loop_policy().new_event_loop().run_until_complete(serve()) if sys.version_info < (3, 14) \
        else asyncio.run(serve())


CALLBACKS = []


def register(data):
    def callback():
        return data
    CALLBACKS.append(callback)


def closures():
    for i in range(COUNT):
        register(payload(i))
    say()


class Keeping(logging.Handler):
    def __init__(self, data):
        logging.Handler.__init__(self)
        self.data = data


def handlers():
    for i in range(COUNT):
        logging.getLogger().addHandler(Keeping(payload(i)))
    say()


LOCAL = threading.local()


def thread_local():
    def work():
        LOCAL.items = [payload(i) for i in range(COUNT)]
        note(LOCAL.items)
        ready.set()
        threading.Event().wait()
    ready = threading.Event()
    threading.Thread(target=work, daemon=True).start()
    ready.wait()
    say()


LAST_ERROR = None


def fails():
    rows = [payload(i) for i in range(COUNT)]
    note(rows)
    raise ValueError("kept")


def exception():
    global LAST_ERROR
    try:
        fails()
    except ValueError as error:
        LAST_ERROR = error
    say()


def cycle():
    gc.collect()
    gc.disable()
    for i in range(COUNT):
        ring = [payload(i)]
        ring.append(ring)
        note(ring)
    del ring
    say()


def take_reference(thing):
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def native_array():
    malloc = ctypes.CDLL(None).malloc
    malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    array = (ctypes.c_void_p * COUNT).from_address(malloc(8 * COUNT))
    for i in range(COUNT):
        made = payload(i)
        take_reference(made)
        array[i] = id(made)
    del made, array
    say()


def forgotten():
    for i in range(COUNT):
        take_reference(payload(i))
    say()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
