# SPDX-License-Identifier: MIT
"""What is freed of blocks that are older than the recording: how much, against what the program says of itself."""
import json
import os

import pytest

import pythons
from programs import Program, recorded

KIB = 1024

# Blocks of all sizes, those of one size not side by side. What malloc adds is its header; 512 is pymalloc's largest.
PROGRAM = """
import json, random
numbers = random.Random(7)
kept = [bytes(numbers.randrange(1, 3000) if numbers.randrange(8) == 0 else numbers.randrange(1, 479)) for _ in range(60000)]
grown = [None] * 200000

def footprint(asked):
    if asked <= 512:
        return -(-asked // 16) * 16
    return max(-(-(asked + 8) // 16) * 16, 32) - 8

meet("ready")
freed = [footprint(sys.getsizeof(block)) for block in kept[::2]]
meet("begin")
kept[::2] = [None] * len(freed)
meet("freed")
before = footprint(8 * 200000)
grown.extend([None] * 10)
meet(json.dumps([len(freed), sum(freed), before, footprint(sys.getsizeof(grown)) - before]))
"""


def older(python, folder, **keywords):
    """What pyleak says of the program, and what it did: blocks and bytes freed, bytes of the table that was too small, and of
    how much the next one is larger."""
    with Program(python, folder, PROGRAM, **keywords) as victim:
        victim.meet("begin")
        with recorded(victim) as record:
            victim.meet("freed")
            victim.tell("go")
            truth = json.loads(victim.line(60))
        return record.document, truth


@pytest.mark.long
def test_exact(python, tmp_path):
    """Of each block, wherever it lay, and of the table that realloc() moved: by the header of its pool, or of its chunk."""
    entry = pythons.of(python)
    document, (count, size, table, larger) = older(python, tmp_path)
    said = document["older"]
    assert count < said["count"] < count + 300, said
    # Without a GIL blocks are mimalloc's: counted, and no more.
    if entry.free_threaded:
        assert not said["sized"] and document["net_growth"] is None, said
        return
    assert said["sized"] == said["count"], said
    assert size + table <= said["size"] < size + table + 64 * KIB, (said, size, table)
    # The new table is in a row, and the old one is set against it.
    assert abs(document["net_growth"] + size - larger) < 64 * KIB, (document["net_growth"], size, larger)


@pytest.mark.parametrize("malloc", ["malloc", "debug"])
def test_without_pymalloc(one_python, malloc, tmp_path):
    """All of it is the C library's; and where something wraps it, what stands before a block is not malloc's."""
    environment = dict(os.environ, PYTHONMALLOC=malloc)
    document, (count, size, table, _) = older(one_python, tmp_path, env=environment)
    said = document["older"]
    assert count < said["count"] < count + 300, said
    if malloc == "debug":
        assert not said["sized"], said
        return
    assert said["sized"] == said["count"], said
    # Of small ones, too, it is the chunk that is rounded up: by less than 16 more each.
    assert size + table <= said["size"] < size + table + 16 * count, (said, size, table)
