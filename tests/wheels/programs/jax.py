# SPDX-License-Identifier: MIT
"""Arrays, kept. It takes seconds, so that stacks of its threads can be looked at, of which some twenty a second are."""
import time

import jax
import jax.numpy

KEPT = []


@jax.jit
def double(array, number):
    return array * 2 + number


ARRAY = jax.numpy.arange(8000.0)


def keep(step):
    array = double(ARRAY, step)  # leak
    KEPT.append(array)
    return array.nbytes, float(array[1])


def busy(step):
    time.sleep(.003)
    return float(double(ARRAY, step).sum())
