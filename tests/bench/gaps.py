#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Measures for how long a process's threads are held by attaching and detaching, and what its running threads see of it.

    tests/bench/gaps.py [--build DIR] [--python PATH] [--threads N,N,...] [--running N] [--busy N] [--rounds N]

A process with so many threads, of which some run (natively, in steps of 100 µs, each of which allocates) and the others
sleep, beside so many busy processes. In each round the longest gap between two steps of any thread is taken twice: of a
stretch in which nobody comes, and of one of the same length in which pyleak attaches, watches and detaches. Held: what
pyleak says of itself (stop_ms). Some three minutes.
"""
import argparse
import json
import pathlib
import signal
import statistics
import subprocess
import sys
import time

PROCESS = r"""
import ctypes, sys, threading, time
library, threads, running = ctypes.CDLL(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
library.gaps_longest.restype = ctypes.c_double
threading.stack_size(65536)
end = threading.Event()
for _ in range(threads - running - 1):
    threading.Thread(target=end.wait, daemon=True).start()
library.gaps_start(running)
print("ready", flush=True)
for line in sys.stdin:
    print(library.gaps_longest(), flush=True)
"""


def ask(process):
    process.stdin.write("?\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def attach(pyleak, pid, watch):
    began = time.monotonic()
    result = subprocess.run([pyleak, "attach", str(pid), "--duration", "%dms" % (watch * 1000), "--format", "json"],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, check=False)
    if result.returncode:
        print(result.stderr.strip(), file=sys.stderr)
        return None, time.monotonic() - began
    return json.loads(result.stdout.splitlines()[-1])["stop_ms"], time.monotonic() - began


def is_clean(pid):
    with open("/proc/%d/maps" % pid) as maps:
        # The landing page stays.
        return not any(line.startswith(("7079", "707a")) and not line.startswith("70797e") for line in maps)


def measure(options, threads):
    running = min(options.running, threads - 1) if threads > 1 else 0
    # The one thread of a process that has no other is the interpreter's own: it has no steps.
    process = subprocess.Popen([options.python, "-c", PROCESS, options.library, str(threads), str(max(running, 1))],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True)
    bare, beside, held, took, right = [], [], [], [], 0
    try:
        assert process.stdout.readline() == "ready\n"
        stretch = options.watch + 0.5
        for _ in range(options.rounds):
            time.sleep(0.2)
            ask(process)
            time.sleep(stretch)
            bare.append(ask(process))
            stop, seconds = attach(options.pyleak, process.pid, options.watch)
            stretch = seconds
            beside.append(ask(process))
            took.append(seconds - options.watch)
            right += stop is not None and is_clean(process.pid)
            if stop is not None:
                held.append(stop)
    finally:
        process.kill()
        process.wait()
    held = held or [float("nan")]
    print("%8d %8d   %2d of %2d %10.2f %10.2f %12.1f %12.1f %10.2f" % (
        threads, max(running, 1), right, options.rounds, statistics.median(held), max(held), statistics.median(bare),
        statistics.median(beside), statistics.median(took)), flush=True)


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default=str(root / "build"))
    parser.add_argument("--python", default="/usr/bin/python3")
    parser.add_argument("--threads", default="1,50,500,2000")
    parser.add_argument("--running", type=int, default=20)
    parser.add_argument("--busy", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--watch", type=float, default=0.3)
    options = parser.parse_args()
    options.pyleak = options.build + "/pyleak"
    options.library = options.build + "/tests/bench/gaps.so"
    subprocess.run(["ninja", "-C", options.build, "tests/bench/gaps.so"], check=True, stdout=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # nobody is left behind
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.busy)]
    print("%8s %8s %10s %10s %10s %12s %12s %10s" % (
        "threads", "running", "attached", "held, ms", "longest", "gap without", "gap with, ms", "took, s"), flush=True)
    try:
        for threads in options.threads.split(","):
            measure(options, int(threads))
    finally:
        for process in busy:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
