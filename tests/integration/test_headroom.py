# SPDX-License-Identifier: MIT
"""A process near the limit of its cgroup: the recorder's memory counts there too."""
import re

import pytest

from cgroups import cgroup  # noqa: F401, a fixture
from helpers import Pyleak, assert_refused, hook_words, pyleak, wait_clean, wait_hooked
from programs import Program

MIB = 1 << 20

PROGRAM = """
kept = bytearray(int(sys.argv[1]) << 20)
while meet("ready"):
    pass
"""


def test_near_the_limit(one_python, tmp_path, cgroup):
    
    with Program(one_python, tmp_path, PROGRAM, 60, preexec_fn=cgroup.enter) as victim:
        cgroup.leave(200 * MIB)
        result = pyleak("attach", victim.pid, "--duration", "50ms")
        assert result.status == 0 and "left of" not in result.stderr, result
        cgroup.leave(16 * MIB)
        result = pyleak("attach", victim.pid, "--duration", "50ms")
        assert result.status == 0, result
        assert "left of its cgroup's" in result.stderr and "--sample" in result.stderr, result
        for arguments in ("--sample", "512KiB"), ("--engine", "breakpoint"):
            result = pyleak("attach", victim.pid, "--duration", "50ms", *arguments)
            assert result.status == 0 and "left of" not in result.stderr, result
        wait_clean(victim.pid, 1)
        before = hook_words(victim.pid)
        cgroup.leave(2 * MIB)
        assert_refused(pyleak("attach", victim.pid, "--duration", "50ms"), "left of its cgroup's", "too little")
        assert hook_words(victim.pid) == before
        doctor = pyleak("doctor", victim.pid)
        assert doctor.status == 1 and "too little for pyleak to begin with" in doctor.stdout, doctor
        cgroup.leave(200 * MIB)
        victim.meet("ready")


GROWS = """
small, total, step = (int(word) for word in sys.argv[1:])
filler = bytearray(small << 20)
kept = []
meet("ready")
for _ in range(total * 1024 // step):
    kept.append([bytes(31) for _ in range(step << 4)])  # 64 bytes each
    time.sleep(0.01)
meet("grown")
while meet("alive"):
    pass
"""


def assert_given_up(result, victim):
    """Told on stderr; what there is is reported; the process lives, and nothing of ours is left in it."""
    assert result.status == 1, result
    assert re.search(r"process %d has only [\d.]+ [KM]iB left of its cgroup's [\d.]+ MiB: recording has ended"
                     % victim.pid, result.stderr), result
    row = max(result.json()["stats"], key=lambda row: row["size"])
    assert row["filename"].endswith("program.py") and row["count"] > 20000, row
    wait_clean(victim.pid, 1)
    victim.meet("alive")


@pytest.mark.parametrize("command", [["attach"], ["attach", "--children"], ["diff", "-i", "60s"]])
def test_gives_up_before_the_limit(one_python, tmp_path, cgroup, command):
    """Without pyleak it lives on 14 of 16 MiB; the recorder would take 4 more."""
    with Program(one_python, tmp_path, GROWS, 60, 14, 40, preexec_fn=cgroup.enter) as victim:
        cgroup.leave(16 * MIB)
        with Pyleak(*command, victim.pid, "--format", "json") as running:
            wait_hooked(victim.pid, running)
            victim.meet("grown")
            assert_given_up(running.finish(), victim)


def test_a_kept_probe_too(one_python, tmp_path, cgroup):
    with Program(one_python, tmp_path, GROWS, 60, 14, 40, preexec_fn=cgroup.enter) as victim:
        cgroup.leave(16 * MIB)
        assert pyleak("attach", victim.pid, "--keep").status == 0
        with Pyleak("attach", victim.pid, "--format", "json") as running:
            victim.meet("grown")
            assert_given_up(running.finish(), victim)
