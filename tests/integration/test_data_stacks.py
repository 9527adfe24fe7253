# SPDX-License-Identifier: MIT
"""What CPython maps for itself beside arenas: from 3.11 on the chunks of data stacks, on the line that needed them; and
what is given out and not used yet is told from what is in memory."""
import pytest

import pythons
from programs import Program, at, recorded

MIB = 1 << 20
CHUNK = 16 << 10

# Stacks that stay: of threads that wait at the bottom of a recursion.
PROGRAM = """
sys.setrecursionlimit(100000)
threading.stack_size(256 << 20)
gate = threading.Event()
down = threading.Semaphore(0)
def deep(n):
    a = b = c = d = e = f = g = n
    if n:
        deep(n - 1)  # at deep
    else:
        down.release()
        gate.wait()
threads = []
def start():
    threads.append(threading.Thread(target=deep, args=(5000,)))
    threads[-1].start()
    down.acquire()
def untouched():
    kept.append([bytes(1 << 20) for i in range(40)])  # at untouched
kept = []
start()
meet("ready")
start()
meet("deep")
gate.set()
for thread in threads: thread.join()
meet("back")
untouched()
meet("end")
os._exit(0)
"""


WITH_DATA_STACKS = [python for python in pythons.pythons() if python.version >= (3, 11)]


@pytest.mark.parametrize("python", WITH_DATA_STACKS, ids=repr)
def test_chunks_of_data_stacks_are_on_their_line(python, tmp_path):
    with Program(python.executable, tmp_path, PROGRAM) as program:
        with recorded(program) as before:
            program.meet("deep")
        size = sum(row["size"] for row in before.document["stats"]
                   if row["lineno"] == program.lines["deep"] and row["domain"] == "native")
        # 5000 frames of seven variables, a stack, and what else is in each (80 bytes and more).
        assert 5000 * (80 + 8 * 8) <= size <= 5000 * 400, before.document["stats"][:5]
        assert size % CHUNK == 0
        with recorded(program) as after:
            program.meet("back")
            program.meet("end")
        document = after.document
        assert at(document, program)["deep"][0] <= 2 * CHUNK
        growth = document["account"]["growth"]
        assert at(document, program)["untouched"][0] >= 40 * MIB
        # The C library writes the head of each block; pages of arenas that nobody has used are left out.
        if python.free_threaded and not growth["untouched"]:
            # mimalloc of 3.13 writes the zeros itself.
            assert growth["rss"] > 40 * MIB, growth
        else:
            assert -40 * MIB <= growth["untouched"] <= -38 * MIB, growth
            assert abs(growth["unexplained"]) < 6 * MIB, growth
