# SPDX-License-Identifier: MIT
"""Columns of strings, which are Arrow's in pandas 3."""
import pandas

KEPT = []
WORDS = ["word %d" % i for i in range(3000)]
SERIES = pandas.Series(WORDS, dtype="str")


def keep(step):
    series = SERIES.str.upper()  # leak
    KEPT.append(series)
    return series.array._pa_array.nbytes, series[step % 3000]


def busy(step):
    return int(SERIES.str.len().sum()) + step
