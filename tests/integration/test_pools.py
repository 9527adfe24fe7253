# SPDX-License-Identifier: MIT
"""Allocators that are linked into a library. Those of Apache Arrow are called by words: their blocks are on their lines.
Of others it is said what they took, and that the lines are not known."""
import os
import re
import signal

import pytest

import pythons
from helpers import BUILD, Pyleak, hook_words, library, pyleak, skip_here, wait_clean, wait_hooked
from programs import Program, at, recorded

LIBRARY = str(BUILD / "tests" / "victims" / "libarrow_victim.so")

PROGRAM = """
import ctypes
library = ctypes.PyDLL(sys.argv[1])
take, resize, drop, allocated = library.arrow_take, library.arrow_resize, library.arrow_drop, library.arrow_allocated
take.restype = resize.restype = ctypes.c_void_p
allocated.restype = ctypes.c_int64
take.argtypes = [ctypes.c_int, ctypes.c_int64]
resize.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
drop.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int64]
before = take(0, 7777)
meet("ready")
mine = [take(0, 10000) for i in range(50)]  # at own
others = [take(1, 3000) for i in range(20)]  # at other
wrapped = [take(2, 5000) for i in range(30)]  # at wrapped
for i in range(30): ctypes.memset(mine[i], i, 10000)
nothing = [take(0, 0) for i in range(10)]  # at nothing
assert len(set(nothing)) == 1 and not take(1, 1 << 50)
grown = [resize(0, block, 10000, 20000) for block in mine[:10]]  # at grown
assert all(ctypes.string_at(grown[i], 10000) == bytes([i]) * 10000 for i in range(10))
assert not resize(2, mine[10], 10000, 1 << 50)
shrunk = [resize(1, block, 3000, 0) for block in others[:5]]
again = [resize(0, block, 0, 4000) for block in nothing]  # at again
for block in mine[40:]: drop(0, block, 10000)
for block in wrapped[20:]: drop(2, block, 5000)
drop(0, before, 7777)
assert allocated(0) == 30 * 10000 + 10 * 20000 + 20 * 5000 + 10 * 4000, allocated(0)
meet("end")
for block in mine[10:40]: drop(0, block, 10000)
assert allocated(1) == 15 * 3000
print("right", flush=True)
"""


@pytest.mark.parametrize("again", [False, True], ids=["first", "second-attach"])
def test_pools(one_python, tmp_path, again):
    if not os.path.exists(LIBRARY):
        skip_here("c++")
    with Program(one_python, tmp_path, PROGRAM, LIBRARY) as program:
        if again:
            with recorded(program):
                pass
            wait_clean(program.pid, 20)
        with recorded(program) as record:
            program.meet("end")
        found = at(record.document, program)
        # ctypes makes some objects on each line.
        for name, size, count in (("own", 30 * 10000, 30), ("other", 15 * 3000, 15), ("wrapped", 20 * 5000, 20),
                                  ("grown", 10 * 20000, 10), ("again", 10 * 4000, 10)):
            native = [row for row in record.document["stats"]
                      if row["domain"] == "native" and row["lineno"] == program.lines[name]]
            assert (sum(row["size"] for row in native), sum(row["count"] for row in native)) == (size, count), name
        assert found["nothing"][0] < 4000
        assert record.document["freed_before"] == {"size": 7777, "count": 1}
        # What the pools map themselves is in no row beside that.
        assert record.document["total"]["size"] < 1 << 20
        assert not hook_words(program.pid)
        program.tell("go")
        assert program.line(20) == "right"


LINKED_IN = """
import ctypes
take = ctypes.PyDLL(sys.argv[1]).pool_take
take.restype = ctypes.c_void_p
take.argtypes = [ctypes.c_size_t]
meet("ready")
kept = [take(10000) for i in range(2000)]  # at taken
meet("end")
"""


def test_an_allocator_that_is_linked_in(one_python, tmp_path):
    with Program(one_python, tmp_path, LINKED_IN, library("pool")) as program:
        with recorded(program) as record:
            program.meet("end")
        text = pyleak("attach", program.pid, "-d", "200ms").stdout
        program.tell("go")
    document = record.document
    (pool,) = document["pools"]
    assert os.path.basename(pool["object"]) == "victim_pool.so" and pool["allocator"] == "jemalloc"
    # 2000 blocks fill five mappings of 4 MiB, of which the last is used in part.
    assert pool["mapped"] == 5 * (4 << 20), pool
    assert 2000 * 10000 <= pool["size"] <= 2000 * 10000 + 5 * 16384, pool
    assert pool["lines"] == [{"filename": program.path, "lineno": program.lines["taken"]}]
    # Never a row.
    assert document["total"]["size"] < 1 << 20
    growth = document["account"]["growth"]
    assert growth["pools"] == pool["size"] and abs(growth["unexplained"]) < 1 << 20 and growth["untouched"] == 0, growth
    # Nothing to say where nothing grew.
    assert "linked in" not in text


def test_an_allocator_that_is_linked_in_by_text(one_python, tmp_path):
    recording = str(tmp_path / "it.pyleak")
    with Program(one_python, tmp_path, LINKED_IN, library("pool")) as program:
        with Pyleak("attach", program.pid, "-o", recording) as running:
            wait_hooked(program.pid, running)
            program.meet("end")
            assert running.finish(signal.SIGTERM).status == 0
        said = pyleak("report", recording).stdout
        assert "allocators that are linked in" in said, said
        assert re.search(r"^victim_pool \(jemalloc linked in\): \+19[.]\d MiB, lines not known; it grew while this ran: "
                         r"\S+program.py:%d$" % program.lines["taken"], said, re.M), said
        program.tell("go")


OLD = """
import ctypes
pool = ctypes.PyDLL(sys.argv[1])
take, mmap = pool.pool_take, ctypes.CDLL(None).mmap
take.restype = mmap.restype = ctypes.c_void_p
take.argtypes = pool.pool_piece.argtypes = [ctypes.c_size_t]
mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
pool.pool_piece(64 << 20)
kept = [take(10000) for i in range(500)]
# Somebody's who is not known: between pages that may not be touched, or it is one mapping with its neighbours.
other = mmap(None, 16 << 20, 3, 0x22, -1, 0)
for page in (other, other + (16 << 20) - 4096):
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), 4096, 0) == 0
meet("ready")
kept = [take(10000) for i in range(2000)]
meet("filled")
ctypes.memset(other + 4096, 1, 8 << 20)
meet("end")
"""


def test_what_an_allocator_had_before(one_python, tmp_path):
    """Memory that it had mapped before it was hooked, and goes on filling: found by what its data point to."""
    with Program(one_python, tmp_path, OLD, library("pool")) as program:
        with recorded(program) as record:
            program.meet("filled")
        (pool,) = record.document["pools"]
        assert os.path.basename(pool["object"]) == "victim_pool.so" and pool["allocator"] == "jemalloc" and not pool["lines"]
        assert 2000 * 10000 <= pool["size"] <= 2000 * 10000 + 5 * 16384, pool
        growth = record.document["account"]["growth"]
        assert growth["pools"] == pool["size"] and abs(growth["unexplained"]) < 1 << 20, growth
        with recorded(program) as record:
            program.meet("end")
        growth = record.document["account"]["growth"]
        assert abs(growth["pools"]) < 1 << 20 and abs(growth["mapped"] - (8 << 20)) < 1 << 20, growth
        assert abs(growth["unexplained"]) < 1 << 20, growth
        program.tell("go")


def test_what_is_not_recorded(one_python, tmp_path):
    """The JSON names the objects that doctor does: the dynamic linker is always one."""
    with Program(one_python, tmp_path, LINKED_IN, library("pool")) as program:
        said = pyleak("doctor", program.pid, "--format", "json").json()["libraries"]
        document = pyleak("attach", program.pid, "-d", "100ms", "--format", "json").json()
        program.meet("end")
        program.tell("go")
    left = {one["path"]: (one["not_recorded"], one["why"]) for one in said if one["not_recorded"]}
    assert left and {one["object"]: (one["words"], one["why"]) for one in document["not_recorded"]} == left


UNSEEN = """
import ctypes
arrow, words = ctypes.PyDLL(sys.argv[1]), ctypes.PyDLL(sys.argv[2])
take = arrow.arrow_take
take.restype = words.words_take.restype = ctypes.c_void_p
take.argtypes = [ctypes.c_int, ctypes.c_int64]
words.words_take.argtypes = [ctypes.c_int, ctypes.c_size_t]
words.words_drop.argtypes = [ctypes.c_int, ctypes.c_void_p]
words.words_keep()
meet("ready")
pools = [take(0, size) for size in (1000, 70000, 200000) for i in range(40)]  # at pools
large = [words.words_take(1, 200000) for i in range(40)]  # at large
small = [words.words_take(1, 1000) for i in range(3000)]  # at small
stay = [words.words_take(1, 70000) for i in range(20)]  # at stay
for block in large + small: words.words_drop(4, block)
meet("end")
"""


# In the distribution's the kept pointer leads to its PLT, whose word is hooked.
ELSEWHERE = [entry for entry in pythons.pythons()
             if not entry.root and not entry.free_threaded and not entry.executable.startswith("/usr/bin/")][-1:]


@pytest.mark.parametrize("python", [entry.executable for entry in ELSEWHERE], ids=map(pythons.label, ELSEWHERE))
def test_frees_that_nobody_saw_beside_pools(python, tmp_path):
    """Blocks of the C library are told from those of Arrow's pools, in front of which are no marks of its."""
    if not os.path.exists(LIBRARY):
        skip_here("c++")
    with Program(python, tmp_path, UNSEEN, LIBRARY, library("words")) as program:
        with recorded(program) as record:
            program.meet("end")
        program.tell("go")
    found = {name: sum(row["count"] for row in record.document["stats"]
                       if row["domain"] == "native" and row["lineno"] == line) for name, line in program.lines.items()}
    assert (found["pools"], found["stay"], found["large"]) == (120, 20, 0), found
    # Some are in the thread's cache, and look as if they were in use.
    assert found["small"] <= 15, found
    assert record.document["freed_unseen"]["count"] >= 3020, record.document["freed_unseen"]
