# SPDX-License-Identifier: MIT
"""A process whose memory grows in one of the ways that a verdict tells apart: growth.py KIND.

What grows is allocated on the line marked `grows here`, in a service that answers 100 requests a
second or so. Runs on every Python from 3.6 on.
"""
import collections
import functools
import gc
import importlib.util
import math
import os
import random
import sys
import tempfile
import time

TICK = 0.01
kept = []


def make(number):
    return b"-" * (60 + number % 2)  # grows here


def steady(tick):
    kept.extend(make(tick) for _ in range(20))


def bursty(tick):
    """Nothing for most of the time, then a batch that stays."""
    if random.random() < 0.015:
        kept.extend(make(tick) for _ in range(random.randrange(1000, 2000)))


@functools.lru_cache(maxsize=4000)
def cached(key):
    return make(key)


def lru(tick):
    """A cache that random keys fill, until it evicts as many as come in."""
    for _ in range(25):
        cached(random.randrange(6000))


class Node:
    def __init__(self, number):
        self.cycle = self
        self.text = make(number)


def garbage(tick):
    """Cycles pile up until the collector runs."""
    for _ in range(20):
        Node(tick)
    if tick % 130 == 129:
        gc.collect()


queue = collections.deque()


def noise(tick):
    """Requests in flight, now more and now fewer."""
    queue.extend(make(tick) for _ in range(random.randrange(0, 300)))
    while len(queue) > random.randrange(200, 3000):
        queue.popleft()


def imports(tick):
    """Modules are imported while the program warms up, and then no more."""
    if tick < 250 and tick % 2 == 0:
        with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
            file.write("\n".join("def f%d(x=%d):\n    return x" % (i, i) for i in range(40)))
            file.flush()
            spec = importlib.util.spec_from_file_location("module%d" % tick, file.name)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            kept.append(module)
    make(tick)


sessions = collections.deque()


def day(tick):
    """People come in the morning and leave in the evening: a day of 4 seconds."""
    wanted = 3000 + 2500 * math.sin(2 * math.pi * time.monotonic() / 4)
    while len(sessions) < wanted:
        sessions.append(make(tick))
    while len(sessions) > wanted:
        sessions.popleft()


KINDS = {function.__name__: function for function in (steady, bursty, lru, garbage, noise, imports, day)}


def main():
    work = KINDS[sys.argv[1]]
    random.seed(20)
    if work is garbage:
        gc.disable()
    print("ready", flush=True)
    sys.stdin.readline()
    tick = 0
    while os.getppid() != 1:
        work(tick)
        tick += 1
        time.sleep(TICK)


if __name__ == "__main__":
    main()
