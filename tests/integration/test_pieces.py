# SPDX-License-Identifier: MIT
"""Large tables are freed in several short stops, and a pyleak that dies in between leaves what the next one removes."""
import re
import signal

from helpers import TABLES_END, TABLES_FIRST, pyleak, wait_clean
from programs import Program

PROGRAM = """
kept = []
meet("ready")
kept.append([float(i) for i in range(2500000)])
while meet("done"):
    kept.append([str(i) for i in range(1000)])
    assert sum(kept[0]) == 2499999 * 1250000.0
"""


def record(victim):
    """A kept probe whose tables have some 20 MiB."""
    assert pyleak("attach", victim.pid, "--keep").status == 0
    victim.meet("done")


def tables_resident(pid):
    with open("/proc/%d/smaps" % pid) as file:
        text = file.read()
    return sum(int(rss) for start, rss in re.findall(r"^([0-9a-f]+)-[0-9a-f]+ .*\n(?:\w.*\n)*?Rss: +(\d+) kB", text, re.M)
               if TABLES_FIRST <= int(start, 16) < TABLES_END)


def test_in_pieces(one_python, tmp_path):
    with Program(one_python, tmp_path, PROGRAM) as victim:
        record(victim)
        assert tables_resident(victim.pid) > 17000
        result = pyleak("detach", victim.pid, "--verbose")
        assert result.status == 0, result
        freed = re.search(r"(\d+) pieces of its tables were freed before", result.stderr)
        assert freed and int(freed.group(1)) >= 2, result
        wait_clean(victim.pid, 1)
        victim.meet("done")


def test_killed_between_pieces(one_python, tmp_path):
    """SIGKILL after every few steps, further apart as there are more behind: the process goes on, and in the end all is gone."""
    with Program(one_python, tmp_path, PROGRAM) as victim:
        record(victim)
        whole = tables_resident(victim.pid)
        between = step = 0
        while step < 50000:
            step += 4 + step // 16
            result = pyleak("detach", victim.pid, environment={"PYLEAK_FAULT": str(step)})
            victim.meet("done")
            if result.status != -signal.SIGKILL:
                break
            between += 0 < tables_resident(victim.pid) < whole - 4000
        assert result.status == 0, result
        assert between, "no kill came between two pieces"
        wait_clean(victim.pid, 1)
        victim.meet("done")
