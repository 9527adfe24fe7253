# SPDX-License-Identifier: MIT
"""Tensors that were read, kept."""
import numpy
from safetensors import numpy as safetensors

KEPT = []
DATA = safetensors.save({"t%d" % i: numpy.ones(4000, dtype=numpy.float32) for i in range(5)})


def keep(step):
    tensors = safetensors.load(DATA)  # leak
    KEPT.append(tensors)
    return sum(one.nbytes for one in tensors.values()), float(tensors["t0"][step % 4000])


def busy(step):
    return len(safetensors.save({"a": numpy.zeros(step % 1000 + 1)}))
