# SPDX-License-Identifier: MIT
"""numpy arrays of 16 KB: made, filled, computed, and dropped again. numpy keeps some below 1 KiB for itself."""
import numpy

STEPS = numpy.arange(2000.0)


def loop(n):
    for _ in range(n):
        kept = []
        for _ in range(50):
            kept.append(numpy.zeros(2000))
            kept.append(numpy.arange(2000.0))
            kept.append(numpy.empty((50, 40)))
            kept.append(STEPS + 1)
