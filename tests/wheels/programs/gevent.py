# SPDX-License-Identifier: MIT
"""Greenlets that wait for ever: ten thousand of them, or what is run of that."""
import gevent
from gevent.event import Event

KEPT = []
NEVER = Event()


def wait(step):
    NEVER.wait()  # leak
    return step


def keep(step):
    KEPT.extend(gevent.spawn(wait, step) for _ in range(10))  # leak
    gevent.sleep(0)
    return None, len(KEPT)


def busy(step):
    done = [gevent.spawn(int, step) for _ in range(10)]
    gevent.joinall(done)
    return sum(one.value for one in done)
