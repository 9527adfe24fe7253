# SPDX-License-Identifier: MIT
"""A cgroup with a limit of memory, for a victim to live in."""
import os
import pathlib

import pytest

from helpers import skip_here


class Cgroup:
    """One of our own, in the cgroup that we are in, of whichever version has the memory controller."""

    def __init__(self, path, limit, usage, droppable):
        self.path, self.limit, self.usage, self.droppable = path, limit, usage, droppable

    def enter(self):
        """The process that calls this; to be given as preexec_fn."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

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
