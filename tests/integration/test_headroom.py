# SPDX-License-Identifier: MIT
"""A process near the limit of its cgroup: the recorder's memory counts there too."""

from cgroups import cgroup  # noqa: F401, a fixture
from helpers import assert_refused, hook_words, pyleak, wait_clean
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
