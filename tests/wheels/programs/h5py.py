# SPDX-License-Identifier: MIT
"""Files in memory that nobody closes."""
import h5py
import numpy

KEPT = []
ARRAY = numpy.arange(4000)


def keep(step):
    file = h5py.File("kept-%d" % step, "w", driver="core", backing_store=False)  # leak
    file["x"] = ARRAY + step  # leak
    KEPT.append(file)
    return None, int(file["x"][3])


def busy(step):
    # HDF5 has free lists of its own: what is dropped here would be handed to the line above.
    return int((KEPT[0]["x"][:100] * step).sum())
