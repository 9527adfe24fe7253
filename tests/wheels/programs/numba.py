# SPDX-License-Identifier: MIT
"""Arrays of compiled code, kept."""
import numba
import numpy

KEPT = []


@numba.njit
def make(count):
    return numpy.ones(count)


def keep(step):
    KEPT.append(make(5000))  # leak
    return KEPT[-1].nbytes, float(KEPT[-1][step % 5000])


def busy(step):
    return float(make(step % 5000 + 1).sum())
