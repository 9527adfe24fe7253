# SPDX-License-Identifier: MIT
"""A process near the limit of its cgroup: the recorder's memory counts there too."""
import os
import pathlib

import pytest

from helpers import assert_refused, hook_words, pyleak, skip_here, wait_clean
from programs import Program

MIB = 1 << 20

PROGRAM = """
kept = bytearray(int(sys.argv[1]) << 20)
while meet("ready"):
    pass
"""


class Cgroup:
    """One of our own, in the cgroup that we are in, of whichever version has the memory controller."""

    def __init__(self, path, limit, usage, droppable):
        self.path, self.limit, self.usage, self.droppable = path, limit, usage, droppable

    def leave(self, size):
        """Sets the limit so far above what is used."""
        stat = dict(line.split() for line in (self.path / "memory.stat").read_text().splitlines())
        used = int((self.path / self.usage).read_text()) - int(stat[self.droppable])
        (self.path / self.limit).write_text(str(used + size))


@pytest.fixture
def cgroup():
    ours = dict(line.strip().split(":", 2)[1:] for line in open("/proc/self/cgroup"))
    name = "pyleak-test-%d" % os.getpid()
    unified = pathlib.Path("/sys/fs/cgroup" + ours.get("", "/")) / name
    hybrid = pathlib.Path("/sys/fs/cgroup/memory" + ours.get("memory", "/")) / name
    for path, names in ((unified, ("memory.max", "memory.current", "inactive_file")),
                        (hybrid, ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))):
        try:
            path.mkdir()
        except OSError:
            continue
        if (path / names[0]).exists():
            yield Cgroup(path, *names)
            path.rmdir()
            return
        path.rmdir()
    skip_here("cgroup")


def test_near_the_limit(one_python, tmp_path, cgroup):
    enter = lambda: (cgroup.path / "cgroup.procs").write_text(str(os.getpid()))
    with Program(one_python, tmp_path, PROGRAM, 60, preexec_fn=enter) as victim:
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
