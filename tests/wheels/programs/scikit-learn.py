# SPDX-License-Identifier: MIT
"""Models, kept."""
import numpy
from sklearn.neighbors import KDTree

KEPT = []
POINTS = numpy.random.RandomState(1).rand(2000, 8)


def keep(step):
    KEPT.append(KDTree(POINTS))  # leak
    return None, int(KEPT[-1].query(POINTS[:1], k=2)[1][0][0])


def busy(step):
    return int(KDTree(POINTS[:200 + step % 100]).query(POINTS[:1], k=2)[1][0][0])
