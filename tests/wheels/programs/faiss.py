# SPDX-License-Identifier: MIT
"""Indexes, kept."""
import faiss
import numpy

faiss.omp_set_num_threads(1)
KEPT = []
POINTS = numpy.random.RandomState(1).rand(300, 32).astype("float32")


def keep(step):
    index = faiss.IndexFlatL2(32)
    index.add(POINTS)  # leak
    KEPT.append(index)
    return None, index.ntotal


def busy(step):
    index = faiss.IndexFlatL2(32)
    index.add(POINTS[:100 + step % 100])
    return int(index.search(POINTS[:1], 1)[1][0][0])
