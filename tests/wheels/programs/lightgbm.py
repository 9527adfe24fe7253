# SPDX-License-Identifier: MIT
"""Data sets, kept."""
import lightgbm
import numpy

KEPT = []
POINTS = numpy.random.RandomState(1).rand(5000, 20)
PARAMETERS = {"num_threads": 1, "verbosity": -1}


def keep(step):
    data = lightgbm.Dataset(POINTS, params=PARAMETERS)
    data.construct()  # leak
    KEPT.append(data)
    return None, data.num_data()


def busy(step):
    return lightgbm.Dataset(POINTS[:1000 + step % 100], params=PARAMETERS).construct().num_data()
