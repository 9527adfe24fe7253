# SPDX-License-Identifier: MIT
"""https://github.com/apache/arrow/issues/47702: with pyarrow 21 memory grows by what to_pandas() makes. Arrow has given each
block back (total_allocated_bytes() is 0): its mimalloc keeps them. So no line has them, and the allocator is named."""
import numpy
import pyarrow

TABLE = pyarrow.table({"a": numpy.arange(500000)})


def keep(step):
    frame = TABLE.to_pandas()  # leak
    return TABLE.nbytes, int(frame["a"].iloc[step])


def busy(step):
    return int(TABLE["a"].to_numpy()[:step].sum())
