# SPDX-License-Identifier: MIT
"""The process that is measured. It runs one of loops/*.py and answers commands on stdin, JSON lines.

    target.py LOOP [EMPTY_HOOK_SO]

    calibrate SECONDS   {"units": what takes about so long}
    run UNITS           {"wall": s, "cpu": s of this process}, with the loop at the bottom of 20 frames
    tracemalloc FRAMES  starts it; 0 stops it
    hook 0|1            the empty hook of empty_hook.c
    threads N           starts N threads which allocate every few milliseconds
    fill BLOCKS         makes so many blocks of 48 bytes on one line: {"wall", "cpu", "rss", "live"}
    drop                frees them
    churn BLOCKS        makes and frees blocks of 48 bytes, what lives stays: {"wall", "cpu"}

Runs on every Python from 3.6 on. The blocks are bytes: a header of 33 bytes, and 15.
"""
import ctypes
import gc
import importlib
import json
import os
import resource
import sys
import threading
import time

STACK = 20 # frames above the loop: what a request handler of a web framework has, or half of it


def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def descend(depth, function, *arguments):
    if depth:
        return descend(depth - 1, function, *arguments)
    return function(*arguments)


def measured(function, *arguments):
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    descend(STACK, function, *arguments)
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def fill(keep, blocks, letter=b"x"):
    for i in range(blocks):
        keep[i] = letter * 15


def churn(blocks, letter=b"x"):
    for _ in range(blocks // 100):
        keep = [None] * 100
        for i in range(100):
            keep[i] = letter * 15


class Target:
    def __init__(self, loop, hook):
        self.loop = loop
        self.hook_library = hook and ctypes.PyDLL(hook)
        self.keep = []

    def calibrate(self, seconds):
        units = 1
        while True:
            took = measured(self.loop, units)["cpu"]
            if took > float(seconds) / 4:
                return {"units": max(1, int(units * float(seconds) / took))}
            units *= 2

    def run(self, units):
        self.loop(max(1, int(units) // 10)) # whatever is only done once
        return measured(self.loop, int(units))

    def tracemalloc(self, frames):
        import tracemalloc
        if int(frames):
            tracemalloc.start(int(frames))
        else:
            tracemalloc.stop()
        return {}

    def hook(self, on):
        self.hook_library.empty_hook(int(on))
        return {}

    def threads(self, count):
        def work():
            while True:
                json.loads(json.dumps([{"a": i} for i in range(20)]))
                time.sleep(0.005)
        for _ in range(int(count)):
            threading.Thread(target=work, daemon=True).start()
        return {}

    def fill(self, blocks):
        self.keep = [None] * int(blocks)
        result = measured(fill, self.keep, int(blocks))
        result["rss"] = rss()
        result["live"] = len(self.keep)
        return result

    def drop(self):
        self.keep = []
        return {}

    def churn(self, blocks):
        return measured(churn, int(blocks))

    def serve(self):
        for line in iter(sys.stdin.readline, ""):
            words = line.split()
            sys.stdout.write(json.dumps(getattr(self, words[0])(*words[1:])) + "\n")
            sys.stdout.flush()
        os._exit(0)


def main():
    sys.dont_write_bytecode = True
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    Target(importlib.import_module("loops." + sys.argv[1]).loop, sys.argv[2] if len(sys.argv) > 2 else None).serve()


if __name__ == "__main__":
    main()
