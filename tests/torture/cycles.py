#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Attaches to a busy process and lets it go, over and over; the process must never notice.

    cycles.py [--libraries] [--rounds N] [--engine E] [--workers N] [--seconds S] [--python PATH]

The process allocates in 4 threads and checks its own data; --libraries: and loads and unloads a library all the time.
After each cycle it must be alive and right, with its mappings as they were; at the end its RSS must be where it was
after the first cycles.
The last line of the output is "N passed, N failed, N skipped" (skipped: there was no time for them).
"""
import argparse
import pathlib
import statistics
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
from helpers import Trace, Victim, library, pyleak, status  # noqa: E402

WARM_UP = 10
RSS_ALLOWED = 16 << 20  # arenas come and go with what the threads do at the moment


def rss(pid):
    return int(status(pid)["VmRSS"].split()[0]) * 1024


class Worker(threading.Thread):
    def __init__(self, number, options, deadline):
        threading.Thread.__init__(self)
        self.number, self.options, self.deadline = number, options, deadline
        self.passed, self.stops, self.failed, self.grown = 0, [], [], 0

    def cycle(self, victim, before):
        # From a few microseconds of recording to a tenth of a second, with every number of frames.
        # Long ones see a library come.
        durations = (1, 30, 200, 500) if self.options.libraries else (1, 10, 30, 100)
        arguments = ["--duration", "%dms" % durations[self.passed % 4],
                     "--frames", (1, 16, 128)[self.passed % 3]]
        result = pyleak("attach", victim.pid, "--engine", self.options.engine, "--format", "json", *arguments)
        if result.status:
            raise AssertionError("pyleak: %r" % result)
        document = result.json()
        if document["lost"] != {"events": 0, "sites": 0} or document["total"]["size"] < 0:
            raise AssertionError("figures: %s %s" % (document["lost"], document["total"]))
        self.stops.append(document["stop_ms"])
        differences = before.differences(victim.pid)
        if differences:
            raise AssertionError("; ".join(differences))
        victim.check()

    def run(self):
        victim = None
        for number in range(self.number, self.options.rounds, self.options.workers):
            if time.monotonic() > self.deadline or len(self.failed) >= 5:
                break
            try:
                if victim is None:
                    more = ["--library", library("loader")] if self.options.libraries else []
                    victim = Victim(self.options.python, "host.py", "--threads", 4, "--pause", 0.002, *more)
                    victim.check()
                    before, first_rss, since = Trace(victim.pid, "victim_plugin.so"), None, self.passed
                self.cycle(victim, before)
                self.passed += 1
                if self.passed - since == WARM_UP:
                    first_rss = rss(victim.pid)
                elif first_rss:
                    self.grown = rss(victim.pid) - first_rss
            except Exception as error:  # whatever it is, the cycle has failed, and the next one tells more
                code = victim.process.poll() if victim else None
                self.failed.append("cycle %d: %s%s" % (
                    number, str(error) or repr(error), "" if code is None else "; the process has ended: %s" % code))
                print("FAILED: " + self.failed[-1], flush=True)
                if victim:
                    victim.end()
                victim = None
        if victim:
            victim.end()
        if self.grown > RSS_ALLOWED:
            self.failed.append("RSS grew by %d KiB in %d cycles" % (self.grown >> 10, self.passed))
            print("FAILED: " + self.failed[-1], flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--engine", default="inline")
    parser.add_argument("--libraries", action="store_true")
    parser.add_argument("--workers", type=int, default=2, help="processes that are attached to at a time")
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--python", default="/usr/bin/python3")
    options = parser.parse_args()
    started = time.monotonic()
    workers = [Worker(number, options, started + options.seconds) for number in range(options.workers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    passed, failed = sum(worker.passed for worker in workers), sum(len(worker.failed) for worker in workers)
    stops = sorted(stop for worker in workers for stop in worker.stops) or [0]
    print("%s: %d cycles in %.0f s; stopped for %.1f ms (median), %.1f ms (longest); RSS grew by %s KiB" % (
        options.engine, passed, time.monotonic() - started, statistics.median(stops), stops[-1],
        ", ".join(str(worker.grown >> 10) for worker in workers)))
    print("%d passed, %d failed, %d skipped" % (passed, failed, max(0, options.rounds - passed - failed)))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
