# SPDX-License-Identifier: MIT
"""A Python process to attach to, which keeps looking whether it is still right.

    host.py [--library SO] [--threads N] [--pause SECONDS] [--light | --nested] [--end-leader]

Its threads make objects through every allocator and compare them with what they must be. It answers
commands on stdin, one line of JSON each:

    check      {"rounds": [one per thread], "broken": [...], "library": [rounds, broken or null]}
    fork       {"status": of a child that allocates and checks, then exits with 42}
    spawn      {"status": of /bin/true run by subprocess}
    tracemalloc_start, tracemalloc_stop    {}
    exec       replaces the process with `sleep`
    quit

Runs on every Python from 3.6 on.
"""
import argparse
import ctypes
import json
import os
import subprocess
import sys
import threading
import time
import tracemalloc

from nested import nested_round


def one_round(seed):
    """Makes and drops objects of every kind; returns what is wrong, or None."""
    numbers = [seed * 1000 + i for i in range(60)]
    names = {"key-%d-%d" % (seed, i): numbers[i] for i in range(30)}
    text = "".join(chr(97 + (seed + i) % 26) for i in range(700))
    grown = bytearray()
    for i in range(40):
        grown += bytes([i]) * 40
    grown[100:400] = b""
    kept = [bytes([seed % 256]) * n for n in (1, 100, 511, 513, 5000)]
    floats = tuple(i / 4 for i in range(seed % 7 + 30))
    if sum(numbers) != 60 * seed * 1000 + 1770:
        return "a list of ints"
    if sorted(names.values()) != numbers[:30] or names["key-%d-7" % seed] != numbers[7]:
        return "a dict"
    if len(text) != 700 or text[26:52] != text[:26]:
        return "a string"
    if len(grown) != 1300 or grown[99] != 2 or grown[100] != 10 or grown[-1] != 39:
        return "a bytearray"
    if [len(b) for b in kept] != [1, 100, 511, 513, 5000] or set(kept[4]) != {seed % 256}:
        return "bytes"
    if sum(floats) * 4 != len(floats) * (len(floats) - 1) / 2:
        return "floats"
    return None


def light_round(seed):
    """The same with a few blocks only, for tests that go through every step of a pyleak."""
    block = bytes([seed % 256]) * (100 + seed % 600)
    if len(block) != 100 + seed % 600 or block.count(seed % 256) != len(block):
        return "bytes"
    return None


class Worker(threading.Thread):
    def __init__(self, number, options):
        threading.Thread.__init__(self, daemon=True)
        self.number = number
        self.pause = options.pause
        self.make = light_round if options.light else nested_round if options.nested else one_round
        self.rounds = 0
        self.broken = None

    def run(self):
        while True:
            try:
                wrong = self.make(self.rounds * 10 + self.number)
            except BaseException as error:
                wrong = repr(error)
            if wrong:
                self.broken = self.broken or "thread %d, round %d: %s" % (self.number, self.rounds, wrong)
            self.rounds += 1
            if self.pause:
                time.sleep(self.pause)


class Host:
    def __init__(self, options):
        self.library = None
        if options.library:
            self.library = ctypes.CDLL(options.library)
            self.library.victim_broken.restype = ctypes.c_char_p
            self.library.victim_rounds.restype = ctypes.c_ulong
            error = self.library.victim_start()
            if error:
                sys.exit("host.py: %s: %s" % (options.library, os.strerror(error)))
        self.workers = [Worker(i, options) for i in range(options.threads)]
        for worker in self.workers:
            worker.start()

    def check(self):
        found = None
        if self.library:
            broken = self.library.victim_broken()
            found = [self.library.victim_rounds(), broken and broken.decode()]
        return {"rounds": [w.rounds for w in self.workers], "broken": [w.broken for w in self.workers if w.broken],
                "library": found}

    def fork(self):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                if not any(one_round(i) for i in range(30)):
                    code = 42
            finally:
                os._exit(code)
        return {"status": os.waitpid(pid, 0)[1]}

    def spawn(self):
        return {"status": subprocess.call(["/bin/true"])}

    def tracemalloc_start(self):
        tracemalloc.start()
        return {}

    def tracemalloc_stop(self):
        tracemalloc.stop()
        return {}

    def exec(self):
        os.execv("/bin/sleep", ["sleep", "1000"])

    def serve(self):
        for line in iter(sys.stdin.readline, ""):
            command = line.strip()
            if command == "quit":
                os._exit(0)
            sys.stdout.write(json.dumps(getattr(self, command)()) + "\n")
            sys.stdout.flush()
        os._exit(0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--library")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pause", type=float, default=0.01)
    parser.add_argument("--light", action="store_true")
    parser.add_argument("--nested", action="store_true")
    parser.add_argument("--end-leader", action="store_true")
    options = parser.parse_args()
    host = Host(options)
    print("ready", flush=True)
    if options.end_leader:
        threading.Thread(target=host.serve).start()
        host.library.victim_end_leader()
    host.serve()


if __name__ == "__main__":
    main()
