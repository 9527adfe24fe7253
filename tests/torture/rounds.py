# SPDX-License-Identifier: MIT
"""One round of a storm over a busy program, from which nothing but its own answers may tell."""
import time

from helpers import Pyleak, hook_words, leftovers, pyleak, wait_clean


def one_round(number, pid, chance, kill_within, patience):
    """Two of three are an attach of a random length and its detach; in the third pyleak is killed within so many seconds, and
    its guardian, or every other time `pyleak detach`, cleans up."""
    if number % 3 < 2:
        result = pyleak("attach", pid, "-d", "%dms" % chance.choice((5, 50, 200, 500)), "--format", "json",
                        "--frames", chance.choice((1, 16, 128)))
        if result.status or result.json()["lost"]["events"]:
            raise AssertionError("pyleak: %r" % result)
    else:
        with Pyleak("attach", pid, "-d", "60s") as running:
            time.sleep(chance.random() * kill_within)
            running.process.kill()
            running.process.wait()
        if number % 2:
            result = pyleak("detach", pid)
            if result.status:
                raise AssertionError("pyleak detach: %r" % result)
    wait_clean(pid, patience)
    if leftovers(pid) or hook_words(pid):
        raise AssertionError("left: %s %s" % (leftovers(pid), hook_words(pid)))
