# SPDX-License-Identifier: MIT
"""What a process has mapped and not written is not brought into its memory by letting it go."""
import re

import pytest

from helpers import pyleak, status, wait_clean
from programs import Program, recorded

MIB = 1 << 20

# A model or an array of which every process has its own copy where it writes, as np.memmap(mode="c") has.
PROGRAM = """
import mmap, tracemalloc
size, tracing = int(sys.argv[2]) << 20, int(sys.argv[3])
with open(sys.argv[1], "w+b") as file:
    file.truncate(size)
    mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
mapped[4096 * 5] = 1
meet("ready")
if tracing:
    tracemalloc.start()
kept = [bytes(100) for _ in range(1000)]
meet("kept")
if tracing:
    tracemalloc.stop()
kept = [bytes(100) for _ in range(1000)]
assert mapped[4096 * 5] == 1 and mapped[4096 * 6] == 0
meet("done")
"""


def rss(pid):
    return int(status(pid)["VmRSS"].split()[0]) * 1024


@pytest.mark.parametrize("tracing", [0, 1])
def test_mapped_file(one_python, tmp_path, tracing):
    """With another hook on top of ours all memory is looked through: that file's pages are still nobody's."""
    with Program(one_python, tmp_path, PROGRAM, tmp_path / "array", 256, tracing) as victim:
        before = rss(victim.pid)
        with recorded(victim, "--verbose", status=None) as record:
            victim.meet("kept")
        assert record.result.status in (0, 1) if tracing else record.result.status == 0, record.result
        assert rss(victim.pid) - before < 24 * MIB, (before, rss(victim.pid))
        held = [float(number) for number in re.findall(r"held process \d+ stopped for ([\d.]+) ms", record.result.stderr)]
        victim.meet("done")
        assert pyleak("detach", victim.pid).status == 0
        assert rss(victim.pid) - before < 24 * MIB
        wait_clean(victim.pid, 1)  # which reads it all by itself
        assert not held or max(held) < 400, held
