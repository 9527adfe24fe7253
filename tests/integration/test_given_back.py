# SPDX-License-Identifier: MIT
"""What the recorder's map needed at a peak is given back after it, while the process goes on, and whenever pyleak dies."""
import random
import re
import signal
import struct

import pytest

from helpers import TABLES_FIRST, Pyleak, pyleak, wait_clean, wait_until
from programs import Program, assert_nothing_lost, at, recorded

# Some 240 MiB, which have two to four chunks of the map (for 64 MiB each) to themselves.
COUNT = 1000000
CHUNK = 16 << 10
PROGRAM = """
COUNT = %d
few = [bytes(300) for _ in range(1000)]
meet("ready")
while True:
    kept = [bytes(200) for _ in range(COUNT)]  # at kept
    if meet("full") == "stop":
        break
    kept = None
    meet("empty")
few.extend(bytes(300) for _ in range(100))  # at few
meet("done")
meet("alive")
""" % COUNT


def tables_kib(pid):
    with open("/proc/%d/smaps" % pid) as file:
        inside, size = False, 0
        for line in file:
            if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
                inside = line.startswith("%x-" % TABLES_FIRST)
            elif inside and line.startswith("Rss:"):
                size += int(line.split()[1])
    return size


def marks(pid):
    """Words of the directory of chunks that say that one is about to leave: such an address no process has."""
    found = 0
    with open("/proc/%d/maps" % pid) as file, open("/proc/%d/mem" % pid, "rb", buffering=0) as memory:
        start, end = next(map(lambda word: int(word, 16), line.split()[0].split("-")) for line in file
                          if line.startswith("%x-" % TABLES_FIRST))
        with open("/proc/%d/pagemap" % pid, "rb", buffering=0) as pagemap:
            # The directory is among the first tables.
            for page in range(start, min(end, start + (256 << 20)), 4096):
                if page % (4096 * 512) == start % (4096 * 512):
                    pagemap.seek(page // 4096 * 8)
                    present = struct.unpack("<512Q", pagemap.read(4096))
                if not present[(page - start) // 4096 % 512] >> 63:
                    continue
                memory.seek(page)
                for word in struct.unpack("<512Q", memory.read(4096)):
                    found += word >> 62 in (2, 3) and TABLES_FIRST <= word & (1 << 62) - 1 < end
    return found


def assert_all(found, victim):
    """The list is one block more, with a word for each and what it has in reserve; and what assert_kept() allows."""
    rest = found[0] - COUNT * (victim.header + 200)
    assert COUNT + 1 <= found[1] <= COUNT + 4 and 8 * COUNT <= rest < 9.2 * COUNT, found


def until_given_back(victim, peak):
    wait_until(lambda: tables_kib(victim.pid) < peak - CHUNK, 30, "the tables of the peak (%d KiB) are given back" % peak)


@pytest.mark.long
def test_after_a_peak(python, tmp_path):
    with Program(python, tmp_path, PROGRAM) as victim:
        with recorded(victim) as record:
            victim.meet("full")
            peak = tables_kib(victim.pid)
            victim.meet("empty")
            until_given_back(victim, peak)
            victim.meet("full")
            victim.tell("stop")
            assert victim.line(60) == "done"
        found = at(record.document, victim)
        assert_all(found["kept"], victim)
        assert found["few"][1] in (100, 101), found
        assert_nothing_lost(record.document)
        wait_clean(victim.pid, 1)
        victim.meet("alive")


def test_killed_while_it_gives_back(one_python, tmp_path):
    """At some of its steps: the process goes on, nothing is forgotten, and the next pyleak goes on with it."""
    with Program(one_python, tmp_path, PROGRAM) as victim:
        # What was left by several that were killed is beyond the usual limit: samples would be taken.
        assert pyleak("attach", victim.pid, "--keep", "--tables", "512M").status == 0

        def after_a_peak(environment):
            with Pyleak("attach", victim.pid, "--format", "json", "--limit", 0, "--verbose", environment=environment) as running:
                victim.meet("full")
                peak = tables_kib(victim.pid)
                victim.meet("empty")
                wait_until(lambda: running.process.poll() is not None or tables_kib(victim.pid) < peak - CHUNK, 30, "less tables")
                if running.process.poll() is None:
                    running.process.send_signal(signal.SIGTERM)
                return running.finish(signal.SIGTERM)

        result = after_a_peak({})
        assert result.status == 0 and "were given back" in result.stderr, result
        steps = int(re.search(r"(\d+) ptrace steps", result.stderr).group(1))
        assert steps > 60, result
        for step in sorted(random.sample(range(1, steps // 2), 3)):
            result = after_a_peak({"PYLEAK_FAULT": str(step), "PYLEAK_GUARDIAN": "off"})
            assert result.status == -signal.SIGKILL, (step, result)
        # What is left of the last ones is mended by the next that gives back.
        assert after_a_peak({}).status == 0
        assert marks(victim.pid) == 0
        with Pyleak("attach", victim.pid, "--format", "json", "--limit", 0) as running:
            victim.meet("full")
            victim.tell("stop")
            assert victim.line(60) == "done"
            document = running.finish(signal.SIGTERM).json()
        assert_all(at(document, victim)["kept"], victim)
        assert_nothing_lost(document)
        assert pyleak("detach", victim.pid).status == 0
        wait_clean(victim.pid, 1)
        victim.meet("alive")
