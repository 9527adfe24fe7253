# SPDX-License-Identifier: MIT
"""A process whose threads stand still at known places; prints what sys._current_frames() says of them.

Runs on Python 3.6 and later. argv: a folder for modules with strange names. After the one line of
JSON it waits to be killed.
"""
import asyncio
import gc
import importlib
import json
import os
import sys
import threading
import time
from _thread import allocate_lock

STOP = allocate_lock()
STOP.acquire()
ready = threading.Semaphore(0)


def stand():
    ready.release()
    STOP.acquire()


def recursion(depth=700):
    if depth:
        return recursion(depth - 1)
    stand()


def generator():
    def numbers(n):
        for i in range(n):
            yield i
            if i == 2:
                stand()

    def outer():
        yield from numbers(5)

    for _ in outer():
        pass
    return [x for x in outer()]


def coroutine():
    async def deepest():
        await asyncio.sleep(0)
        stand()

    async def middle():
        async for _ in ticker():
            await deepest()

    async def ticker():
        yield 1

    async def both():
        async with Manager():
            await asyncio.gather(middle())

    class Manager:
        async def __aenter__(self):
            pass

        async def __aexit__(self, *args):
            pass

    loop = asyncio.new_event_loop()
    loop.run_until_complete(both())


def callback():
    def key(value):
        if value == 3:
            stand()
        return value

    sorted([1, 2, 3], key=lambda value: max([value],
                                            key=key))


def executed():
    exec(compile("\n\ndef f():\n    x = (1 +\n         stand())\n\n\nf()\n", "<exec é>", "exec"),
         {"stand": stand})


def comprehension():
    return {
        name: [stand()
               for _ in range(1)]
        for name in "a"
    }


def context():
    class Context:
        def __enter__(self):
            return self

        def __exit__(self, *args):
            try:
                raise ValueError
            except ValueError:
                pass
            finally:
                stand()

    with Context():
        int("1")


def special():
    class Thing:
        def __getattr__(self, name):
            stand()

        def __del__(self):
            self.missing

    thing = Thing()
    del thing


def collected():
    """The collector runs from within the instructions that make a frame's cells (3.11)."""
    me = threading.get_ident()
    armed = [True]

    def on_collection(phase, info):
        if armed[0] and threading.get_ident() == me and in_cells[0]:
            armed[0] = False
            stand()

    names = ["v%d" % i for i in range(90)]
    source = "def cells():\n    %s = 1\n    def inner():\n        return %s\n    return inner\n" % (
        " = ".join(names), ", ".join(names))
    namespace = {}
    exec(compile(source, "cells.py", "exec"), namespace)
    in_cells = [False]
    gc.callbacks.append(on_collection)
    gc.collect()
    gc.set_threshold(40)
    in_cells[0] = True
    keep = [namespace["cells"]() for _ in range(50)]
    in_cells[0] = False
    gc.set_threshold(700)
    del keep
    stand()


def module_names():
    """Latin-1, UCS-2 and UCS-4 in the names of files and functions."""
    for name, function in ("caf\xe9", "th\xe9"), ("\u65e5\u672c", "\u8336"), ("m\U00020000", "f\U00020001"):
        with open(os.path.join(sys.argv[1], name + ".py"), "w", encoding="utf-8") as file:
            file.write("\n\ndef %s(call):\n    call()\n" % function)
    sys.path.insert(0, sys.argv[1])
    latin = importlib.import_module("caf\xe9")
    two = importlib.import_module("\u65e5\u672c")
    four = importlib.import_module("m\U00020000")
    getattr(latin, "th\xe9")(lambda: getattr(two, "\u8336")(lambda: getattr(four, "f\U00020001")(stand)))


def surrogates():
    exec(compile("stand()", "lone-\udc80\ud800.py", "exec"), {"stand": stand})


SCENARIOS = [recursion, generator, coroutine, callback, executed, comprehension, context, special, module_names,
             surrogates, collected]


def stack_of(frame):
    result = []
    while frame:
        code = frame.f_code
        name = getattr(code, "co_qualname", code.co_name)
        result.append([code.co_filename.encode("utf-8", "replace-surrogates").decode("utf-8"), name,
                       frame.f_lineno or 0])
        frame = frame.f_back
    return result



def observe():
    import codecs
    codecs.register_error("replace-surrogates", lambda error: ("\ufffd".encode("utf-8") *
                                                               (error.end - error.start), error.end))
    for _ in SCENARIOS:
        ready.acquire()
    time.sleep(0.3)  # for the last of them, and the main thread, to stand in STOP.acquire()
    frames = sys._current_frames()
    own = threading.get_ident()
    print(json.dumps({str(ident): stack_of(frame) for ident, frame in frames.items() if ident != own}))
    sys.stdout.flush()
    STOP.acquire()


def main():
    sys.setrecursionlimit(3000)
    threading.stack_size(64 << 20)
    collected_ready = threading.Thread(target=SCENARIOS[-1], daemon=True)
    for scenario in SCENARIOS[:-1]:
        threading.Thread(target=scenario, daemon=True).start()
    time.sleep(0.1)
    collected_ready.start()
    threading.Thread(target=observe, daemon=True).start()
    STOP.acquire()


main()
