# SPDX-License-Identifier: MIT
"""Arrays, kept."""
import jax
import jax.numpy

KEPT = []


@jax.jit
def double(array, number):
    return array * 2 + number


ARRAY = jax.numpy.arange(40000.0)


def keep(step):
    array = double(ARRAY, step)  # leak
    KEPT.append(array)
    return array.nbytes, float(array[1])


def busy(step):
    return float(double(ARRAY, step).sum())
