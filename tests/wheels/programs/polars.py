# SPDX-License-Identifier: MIT
"""Frames in a list. Their allocator, jemalloc, is linked in: the growth has a name, and no line."""
import polars

KEPT = []
FRAME = polars.DataFrame({"a": list(range(20000))})


def keep(step):
    frame = FRAME.select(polars.col("a") + step)  # leak
    KEPT.append(frame)
    return frame.estimated_size(), frame["a"][0]


def busy(step):
    return FRAME.select((polars.col("a") * 2 + step).sum())["a"][0]
