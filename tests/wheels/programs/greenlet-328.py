# SPDX-License-Identifier: MIT
"""https://github.com/python-greenlet/greenlet/issues/328: of each greenlet under Python 3.11 its data stack stays."""
import greenlet

MAIN = greenlet.getcurrent()


def work(step):
    return step


def keep(step):
    for _ in range(10):
        greenlet.greenlet(work, MAIN).switch(step)  # leak
    return None, step


def busy(step):
    return sorted(str(i) for i in range(step % 100))
