# SPDX-License-Identifier: MIT
"""Tables, kept."""
import pyarrow

KEPT = []
VALUES = pyarrow.array(range(20000))


def keep(step):
    table = pyarrow.concat_arrays([VALUES, VALUES])  # leak
    KEPT.append(table)
    return table.nbytes, table[step % 40000].as_py()


def busy(step):
    return len(pyarrow.concat_arrays([VALUES, VALUES[:step % 100]]))
