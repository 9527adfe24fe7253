# SPDX-License-Identifier: MIT
"""Greenlets in the midst of their work, kept."""
import greenlet

KEPT = []
MAIN = greenlet.getcurrent()


def work(step):
    MAIN.switch(step)  # leak


def keep(step):
    for _ in range(10):
        one = greenlet.greenlet(work)  # leak
        one.switch(step)  # leak
        KEPT.append(one)
    return None, step


def busy(step):
    return greenlet.greenlet(int).switch(step)
