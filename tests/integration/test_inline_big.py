# SPDX-License-Identifier: MIT
"""16.7 million live blocks from one line: counted exactly, cheap to keep, and a snapshot of them takes no time."""
import json
import re

from helpers import PATIENCE, Trace, pyleak, status
from programs import Program, assert_nothing_lost

BLOCKS = 16700000
SIZE = 48


def probe_rss(pid):
    """Bytes of memory that the probe's own mappings take."""
    total, ours = 0, False
    with open("/proc/%d/smaps" % pid) as file:
        for line in file:
            if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
                ours = line.startswith(("70796c", "707a"))
            elif ours and line.startswith("Rss:"):
                total += int(line.split()[1]) * 1024
    return total


def test_many_blocks(one_python, tmp_path, capsys):
    with Program(one_python, tmp_path, """
gc.disable()
kept = [None] * {0}
def run():
    for i in range({0}):
        kept[i] = bytes({1})  # at kept
meet("ready")
run()
meet("done")
del kept[:]
meet("gone")
""".format(BLOCKS, SIZE - 33)) as victim:
        assert victim.header == 33
        before = Trace(victim.pid)
        assert pyleak("attach", victim.pid, "--keep").status == 0
        victim.meet("done", 120)
        added = probe_rss(victim.pid)
        result = pyleak("diff", victim.pid, "--interval", "300ms", "--count", 5, "--format", "json", "--verbose")
        assert result.status == 0, result
        assert status(victim.pid)["TracerPid"] == "0"
        for line in result.stdout.splitlines():
            document = json.loads(line)
            row = document["stats"][0]
            rows = [row for row in document["stats"] if row["lineno"] == victim.lines["kept"]]
            assert [(row["size"], row["count"], row["average"]) for row in rows] == [(BLOCKS * SIZE, BLOCKS, SIZE)]
            assert_nothing_lost(document)
        taken = sorted(float(ms) for ms in re.findall(r"snapshot took ([\d.]+) ms", result.stderr))
        with capsys.disabled():
            print("\n%d live blocks: the probe adds %.1f %% of their size; a snapshot takes %.1f ms (at most %.1f)" % (
                BLOCKS, 100 * added / (BLOCKS * SIZE), taken[len(taken) // 2], taken[-1]))
        assert len(taken) == 6
        assert taken[len(taken) // 2] < 50 * PATIENCE
        assert added <= 0.35 * BLOCKS * SIZE
        victim.meet("gone", 60)
        result = pyleak("attach", victim.pid, "--duration", "100ms", "--format", "json", "--limit", 0)
        rows = [row for row in result.json()["stats"] if row["lineno"] == victim.lines["kept"]
                and row["filename"] == victim.path]
        assert [(row["size"], row["count"]) for row in rows] == [(0, 0)]
        assert pyleak("detach", victim.pid).status == 0
        assert not before.differences(victim.pid)
        victim.tell("go")
