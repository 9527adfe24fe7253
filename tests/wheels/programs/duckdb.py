# SPDX-License-Identifier: MIT
"""Tables in memory. DuckDB has jemalloc linked in."""
import duckdb

CONNECTION = duckdb.connect(config={"threads": 1})


def keep(step):
    CONNECTION.execute("CREATE TABLE t_%d AS SELECT random() AS a FROM range(30000)" % step)  # leak
    return 240000, step


def busy(step):
    return CONNECTION.execute("SELECT sum(range) + %d FROM range(30000)" % step).fetchall()
