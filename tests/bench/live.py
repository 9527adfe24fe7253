#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Measures what the live view costs: pyleak itself, and the process beside what a report at the end costs it.

    tests/bench/live.py [--build DIR] [--python PATH] [--lines N] [--rounds N]

pyleak: its CPU time over wall time, on a process that keeps allocating on N lines (20,000), 200 x 50 cells, from when
there is a verdict on each row on. The process: units of work per second of its CPU time, with a probe that a report
reads and with one that a view shows, in turns within one process. Three minutes with one Python.
"""
import argparse
import fcntl
import os
import pathlib
import pty
import signal
import statistics
import struct
import subprocess
import sys
import termios
import threading
import time

MANY_LINES = r"""
import sys, time
lines, functions, keep, rounds = int(sys.argv[1]), [], [], 0
for number in range(lines // 100):
    body = ["def allocate(keep):"] + ["    keep.append([%d, %d])" % (number, i) for i in range(100)]
    scope = {}
    exec(compile("\n" * (101 * (number % 10)) + "\n".join(body), "/srv/module_%d.py" % (number // 10), "exec"), scope)
    functions.append(scope["allocate"])
print("ready", flush=True)
while True:
    for function in functions:
        function(keep)
    rounds += 1
    if rounds % 5 == 0:
        keep.clear()
    time.sleep(0.2)
"""

WORK = r"""
import json, sys, time
print("ready", flush=True)
for line in sys.stdin:
    end, units, started = time.monotonic() + float(line), 0, time.process_time()
    while time.monotonic() < end:
        keep = []
        for i in range(1000):
            keep.append([i, {"k": i}])
            json.dumps({"a": [i] * 10})
        units += 1
    print(units / (time.process_time() - started), flush=True)
"""

SETTLE, WATCH, STRETCH = 50, 20, 6 # seconds


def start(python, program, *arguments):
    process = subprocess.Popen([python, "-c", program, *map(str, arguments)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


class View:
    """`pyleak attach` on a terminal that is read."""

    def __init__(self, pyleak, pid):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        self.process = subprocess.Popen([pyleak, "attach", str(pid)], stdin=slave, stdout=slave,
                                        env={**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8"})
        os.close(slave)
        self.written = 0
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        try:
            while data := os.read(self.master, 65536):
                self.written += len(data)
        except OSError:
            pass  # it has ended

    def cpu(self):
        with open("/proc/%d/schedstat" % self.process.pid) as file:
            return int(file.read().split()[0]) / 1e9

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait() == 0, "pyleak failed"
        self.reader.join()
        os.close(self.master)


def view_itself(pyleak, python, lines):
    target = start(python, MANY_LINES, lines)
    view = View(pyleak, target.pid)
    try:
        time.sleep(SETTLE)
        cpu, wall, written = view.cpu(), time.monotonic(), view.written
        time.sleep(WATCH)
        share = (view.cpu() - cpu) / (time.monotonic() - wall)
        assert view.written > written, "it draws"
        with open("/proc/%d/status" % view.process.pid) as file:
            rss = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
    finally:
        view.end()
        target.kill()
        target.wait()
    return share, rss


def process_watched(pyleak, python, rounds):
    """The rate under a view over the rate under a report, of each round."""
    target = start(python, WORK)

    def rate():
        time.sleep(1)
        target.stdin.write("%d\n" % STRETCH)
        target.stdin.flush()
        return float(target.stdout.readline())

    ratios = []
    for _ in range(rounds):
        report = subprocess.Popen([pyleak, "attach", str(target.pid)], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        reported = rate()
        report.send_signal(signal.SIGTERM)
        assert report.wait() == 0, "pyleak failed"
        view = View(pyleak, target.pid)
        ratios.append(rate() / reported)
        view.end()
    target.kill()
    target.wait()
    return ratios


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].strip())
    parser.add_argument("--build", default=pathlib.Path(__file__).resolve().parents[2] / "build", type=pathlib.Path)
    parser.add_argument("--python", default="/usr/bin/python3")
    parser.add_argument("--lines", default=20000, type=int)
    parser.add_argument("--rounds", default=6, type=int)
    options = parser.parse_args()
    pyleak = str(options.build.resolve() / "pyleak")
    share, rss = view_itself(pyleak, options.python, options.lines)
    print("pyleak, %d lines: %.2f %% of one CPU, RSS %d MiB" % (options.lines, 100 * share, rss // 1024), flush=True)
    ratios = process_watched(pyleak, options.python, options.rounds)
    print("the process, view over report: %.3f (%s)" % (statistics.median(ratios),
                                                        " ".join("%.3f" % ratio for ratio in sorted(ratios))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
