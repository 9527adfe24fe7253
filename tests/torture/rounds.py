# SPDX-License-Identifier: MIT
"""Rounds of a storm over a busy program, from which nothing but its own answers may tell."""
import re
import signal
import time

from helpers import Pyleak, hook_words, leftovers, pyleak, wait_clean

WHOLE = ("-d", "50ms")  # an attach that is killed at one of its steps, as long as it takes to have all of them


def steps_of(pid):
    """The number of steps of a pyleak that nobody kills."""
    results = [pyleak("attach", pid, *WHOLE, "-v") for _ in range(3)]
    found = [re.search(r"(\d+) ptrace steps", result.stderr) for result in results]
    if not all(found) or any(result.status for result in results):
        raise AssertionError("pyleak: %r" % results)
    return max(int(match.group(1)) for match in found)


def cycle(pid, chance):
    """An attach of a random length, and its detach."""
    result = pyleak("attach", pid, "-d", "%dms" % chance.choice((5, 50, 200, 500)), "--format", "json",
                    "--frames", chance.choice((1, 16, 128)))
    if result.status or result.json()["lost"]["events"]:
        raise AssertionError("pyleak: %r" % result)


def instant(pid, chance, within):
    """Killed within so many seconds."""
    with Pyleak("attach", pid, "-d", "60s") as running:
        time.sleep(chance.random() * within)
        running.process.kill()
        running.process.wait()


def step(pid, chance, steps, guardian):
    """Kills itself at a random step, one more than there are in a tenth of the rounds; whether it came to that."""
    environment = {"PYLEAK_FAULT": str(chance.randint(1, steps + steps // 10 + 1))}
    if not guardian:
        environment["PYLEAK_GUARDIAN"] = "off"
    result = pyleak("attach", pid, *WHOLE, environment=environment)
    if result.status not in (0, -signal.SIGKILL):
        raise AssertionError("pyleak: %r" % result)
    return result.status != 0


def clean_up(pid, guardian, patience):
    """What a dead pyleak has left is removed, by its guardian or by `pyleak detach`, and nothing stays."""
    if not guardian:
        result = pyleak("detach", pid)
        if result.status:
            raise AssertionError("pyleak detach: %r" % result)
    wait_clean(pid, patience)
    if leftovers(pid) or hook_words(pid):
        raise AssertionError("left: %s %s" % (leftovers(pid), hook_words(pid)))


def one_round(number, pid, chance, kill_within, patience):
    """Two of three are an attach of a random length and its detach; in the third pyleak is killed within so many seconds, and
    its guardian, or every other time `pyleak detach`, cleans up."""
    killed = number % 3 == 2
    if killed:
        instant(pid, chance, kill_within)
    else:
        cycle(pid, chance)
    clean_up(pid, not killed or number % 2 == 0, patience)
