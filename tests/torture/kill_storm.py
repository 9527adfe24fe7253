#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Kills pyleak at every step it makes, and at random instants; the process must never notice.

    kill_storm.py [--engine E] [--nested | --keep] [--libraries] [--holders] [--steps N] [--random N] [--seconds S]
                  [--workers N] [--python PATH] [--seed N]

Steps: PYLEAK_FAULT=n makes pyleak kill itself at its n-th ptrace request or write into the process.
n goes over every step of an attach, a short watch and a detach (--steps: that many of them, evenly
spread). Random instants: SIGKILL from outside, while the process is busy. Every second round runs
without a guardian, and `pyleak detach` cleans up; the others leave it to the guardian, which has two
seconds. After each round the process must be alive, right, getting on, and without a trace.
--nested: it releases deep nests of lists, dicts and tuples all the time.
--libraries: a library is loaded, used and unloaded all the time; a longer watch hooks it as it comes.
--holders: at its end the report stops the process for a copy of its heap.
--keep: what is killed is an `attach --keep`; the next pyleak that comes adopts or replaces what is
there, and works.
"""
import argparse
import os
import pathlib
import queue
import random
import re
import signal
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
import helpers  # noqa: E402
from helpers import PATIENCE, Pyleak, Trace, Victim, guardians, leftovers, library, pyleak, wait_clean  # noqa: E402

DURATION = "200ms"
LIBRARIES_DURATION = "700ms"  # of which each library stays for 120 ms
COMES = "victim_plugin.so"
GUARDIAN_S = 2.0  # what it promises; a loaded machine gets as much again
LIGHT = ("--threads", 4, "--pause", 0.05, "--light")
BUSY = ("--threads", 4, "--pause", 0.002)
NESTED = ("--threads", 4, "--pause", 0.002, "--nested")


class Round:
    def __init__(self, kind, value, guardian):
        self.kind, self.value, self.guardian = kind, value, guardian

    def __str__(self):
        what = "step %d" % self.value if self.kind == "step" else "after %.4f s" % self.value
        return "killed at %s, %s" % (what, "guardian" if self.guardian else "detach")


def arguments(pid, *more):
    if one_round.keep:
        return ["attach", pid, "--engine", helpers.engine, "--keep", *more]
    more = (*more, "--holders") if one_round.holders else more
    return ["attach", pid, "--engine", helpers.engine, "--duration", one_round.duration, "--format", "json", *more]


def guards(pid):
    """Whether a guardian of this victim runs. It is a fork of the pyleak whose arguments it shows."""
    for guardian in guardians():
        try:
            with open("/proc/%d/cmdline" % guardian, "rb") as file:
                if str(pid).encode() in file.read().split(b"\0"):
                    return True
        except (FileNotFoundError, ProcessLookupError):
            pass
    return False


def one_round(victim, before, round_):
    """Returns whether pyleak was killed (it may have been done before); raises if anything is wrong."""
    environment = {} if round_.guardian else {"PYLEAK_GUARDIAN": "off"}
    if round_.kind == "step":
        environment["PYLEAK_FAULT"] = str(round_.value)
    with Pyleak(*arguments(victim.pid), environment=environment) as running:
        if round_.kind == "random":
            time.sleep(round_.value)
            result = running.finish(signal.SIGKILL, seconds=60)
        else:
            result = running.finish(seconds=60)
    if result.status not in (0, -signal.SIGKILL):
        raise AssertionError("pyleak: %r" % result)
    if one_round.keep:
        next_comes(victim)
    elif round_.guardian:
        took = wait_clean(victim.pid, 2 * GUARDIAN_S)
        deadline = time.monotonic() + 2 * GUARDIAN_S * PATIENCE
        while guards(victim.pid):
            if time.monotonic() > deadline:
                raise AssertionError("the guardian is still there")
            time.sleep(0.01)
        one_round.slowest = max(one_round.slowest, took)
        if took > GUARDIAN_S:
            print("slow: %s: %.2f s" % (round_, took), flush=True)
    else:
        # It lives on with what is left in it. And once every thread has gone on, a call that the dead pyleak
        # began is over: there is nothing more to come.
        victim.check()
        result_detach = pyleak("detach", victim.pid) if leftovers(victim.pid) else None
        if result_detach and result_detach.status and leftovers(victim.pid):
            raise AssertionError("detach: %r" % result_detach)
    differences = before.differences(victim.pid)
    if differences:
        raise AssertionError("; ".join(differences))
    victim.check()
    return result.status != 0


one_round.slowest = 0.0
one_round.keep = one_round.holders = False
one_round.duration = DURATION


def next_comes(victim):
    """Whatever a killed `attach --keep` has left, the next pyleak works, and detach removes it."""
    victim.check()
    # On a busy machine the victim may not get to allocate within the short time.
    for duration in "120ms", "2s":
        result = pyleak("attach", victim.pid, "--engine", helpers.engine, "--duration", duration, "--format", "json")
        if result.status or any(row["allocated"]["count"] for row in result.json()["stats"]):
            break
    if result.status or not any(row["allocated"]["count"] for row in result.json()["stats"]):
        raise AssertionError("the next: %r" % result)
    result = pyleak("detach", victim.pid)
    if result.status and leftovers(victim.pid):
        raise AssertionError("detach: %r" % result)


class Storm:
    def __init__(self, options):
        self.options = options
        self.rounds = queue.Queue()
        self.lock = threading.Lock()
        self.passed = self.survived = self.left_out = 0
        self.failed = []
        self.deadline = time.monotonic() + options.seconds

    def work(self, kind_of_victim):
        victim = None
        while True:
            try:
                round_ = self.rounds.get_nowait()
            except queue.Empty:
                break
            if time.monotonic() > self.deadline or len(self.failed) >= 10:
                with self.lock:
                    self.left_out += 1
                continue
            try:
                if victim is None:
                    victim = Victim(self.options.python, "host.py", *kind_of_victim)
                    victim.check()
                    before = Trace(victim.pid, COMES)
                killed = one_round(victim, before, round_)
                with self.lock:
                    self.passed += 1
                    self.survived += not killed
            except Exception as error:  # whatever it is, the round has failed, and the next one tells more
                ended = "" if victim is None or victim.alive() else "; the process has ended: %s" % (
                    victim.process.returncode)
                with self.lock:
                    self.failed.append("%s: %s%s" % (round_, str(error) or repr(error), ended))
                    print("FAILED: " + self.failed[-1], flush=True)
                if victim:
                    victim.end()
                victim = None
        if victim:
            victim.end()

    def run(self, kind_of_victim, rounds, seconds):
        self.deadline = time.monotonic() + seconds
        for round_ in rounds:
            self.rounds.put(round_)
        workers = [threading.Thread(target=self.work, args=(kind_of_victim,)) for _ in range(self.options.workers)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()


def whole_run(python, kind_of_victim):
    """The number of steps, and the seconds, of a pyleak that nobody kills."""
    with Victim(python, "host.py", *kind_of_victim) as victim:
        started = time.monotonic()
        result = pyleak(*arguments(victim.pid, "--verbose"))
        seconds = time.monotonic() - started
        pyleak("detach", victim.pid)
    match = re.search(r"(\d+) ptrace steps", result.stderr)
    if result.status or not match:
        sys.exit("kill_storm.py: %r" % result)
    return int(match.group(1)), seconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", default="breakpoint")
    parser.add_argument("--nested", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--libraries", action="store_true")
    parser.add_argument("--holders", action="store_true")
    parser.add_argument("--steps", type=int, default=0, help="how many steps to be killed at; 0: every one")
    parser.add_argument("--random", type=int, default=300, help="how many random instants")
    parser.add_argument("--seconds", type=float, default=360, help="time for all; what does not fit counts as skipped")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--python", default="/usr/bin/python3")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    options = parser.parse_args()
    helpers.engine = options.engine
    one_round.keep, one_round.holders = options.keep, options.holders
    light, busy = (NESTED, NESTED) if options.nested else (LIGHT, BUSY)
    if options.libraries:
        one_round.duration = LIBRARIES_DURATION
        light, busy = (kind + ("--library", library("loader")) for kind in (light, busy))
    rng = random.Random(options.seed)
    started = time.monotonic()

    steps, seconds = max(whole_run(options.python, light) for _ in range(3))
    # The watch makes more steps in one run than in another; go on a little, so that the last step of
    # the detaching is among them.
    last = steps + steps // 10 + 5
    chosen = list(range(1, last + 1))
    if options.steps:
        chosen = sorted(rng.sample(chosen, min(options.steps, last)))
    rng.shuffle(chosen)  # if time ends, what was left out is spread over all
    storm = Storm(options)
    print(options.engine + ": %d steps in %.2f s; killed at %d of them, and at %d random instants; seed %d" % (
        steps, seconds, len(chosen), options.random, options.seed), flush=True)
    storm.run(light, [Round("step", n, n % 2) for n in chosen], options.seconds * (0.65 if options.random else 1))
    print("steps: %d rounds right (%d of them ended before the step), %d failed, %d left out" % (
        storm.passed, storm.survived, len(storm.failed), storm.left_out), flush=True)
    instants = [Round("random", rng.uniform(0, seconds * 1.2), i % 2) for i in range(options.random)]
    storm.run(busy, instants, options.seconds - (time.monotonic() - started))
    print("the guardian took at most %.2f s; %.0f s in all" % (one_round.slowest, time.monotonic() - started))
    print("%d passed, %d failed, %d skipped" % (storm.passed, len(storm.failed), storm.left_out))
    sys.exit(1 if storm.failed else 0)


if __name__ == "__main__":
    main()
