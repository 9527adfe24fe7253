# SPDX-License-Identifier: MIT
"""Timers that are a year away."""
import uvloop

LOOP = uvloop.new_event_loop()
KEPT = []


def keep(step):
    for _ in range(20):
        KEPT.append(LOOP.call_later(3e7, print, step))  # leak
    return None, step


async def work(step):
    return step * 2


def busy(step):
    LOOP.call_later(3e7, print).cancel()
    return LOOP.run_until_complete(work(step))
