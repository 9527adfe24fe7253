# SPDX-License-Identifier: MIT
"""Processes that lock all that they map (mlockall): the recorder's tables are gigabytes of addresses, and no memory."""
import os
import signal

import pytest

from cgroups import cgroup  # noqa: F401, a fixture
from helpers import TABLES_FIRST, pyleak, skip_here, status, wait_clean
from programs import Program, at, recorded
from test_doctor import doctor

MIB = 1 << 20
STEP = 1 if os.environ.get("PYLEAK_EVERY_PYTHON") else 6

PROGRAM = """
import ctypes, resource
libc = ctypes.CDLL(None, use_errno=True)
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4
limit, user, flags = (int(word) for word in sys.argv[1:])
if limit:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
if user:
    os.setuid(user)
if libc.mlockall(flags):
    sys.exit("mlockall: " + os.strerror(ctypes.get_errno()))
kept = []
meet("ready")
while True:
    kept.extend(bytes(100) for _ in range(50)) # at kept
    meet("again")
"""


def kib(pid, field):
    return int(status(pid)[field].split()[0])


def table_flags(pid):
    """What the kernel says of the mapping of the tables."""
    with open("/proc/%d/smaps" % pid) as file:
        inside = False
        for line in file:
            if line.startswith("%x-" % TABLES_FIRST):
                inside = True
            elif inside and line.startswith("VmFlags:"):
                return line.split()[1:]
    raise AssertionError("no tables in process %d" % pid)


# The limits of what it may lock, the user that it becomes, what it locks: in the last cases not even the code and
# the data of the probe may be locked whole.
@pytest.mark.parametrize("limit, user, flags", [(0, 0, 2), (0, 0, 3), (0, 0, 7), (2 << 20, 65534, 2), (600 << 10, 65534, 2),
                                               (64 << 10, 65534, 2)])
def test_locks_what_it_maps(one_python, tmp_path, cgroup, limit, user, flags):
    if user and os.geteuid() != 0:
        skip_here("user")
    tmp_path.chmod(0o755)
    with Program(one_python, tmp_path, PROGRAM, limit, user, flags, preexec_fn=cgroup.enter) as victim:
        cgroup.leave(200 * MIB)
        resident, locked = kib(victim.pid, "VmRSS"), kib(victim.pid, "VmLck")
        with recorded(victim) as record:
            assert "lo" not in table_flags(victim.pid)
            assert kib(victim.pid, "VmLck") - locked < 2048
            victim.meet("again")
            victim.meet("again")
            assert kib(victim.pid, "VmRSS") - resident < 16 * 1024
        size, count = at(record.document, victim)["kept"]
        assert 100 <= count <= 104 and size > 13000
        wait_clean(victim.pid, 1)
        assert kib(victim.pid, "VmLck") - locked < 4096  # its own: the blocks that it kept
        victim.meet("again")


LATER = """
import ctypes
kept = []
meet("ready")
kept.extend(bytes(100) for _ in range(300000)) # at kept
if ctypes.CDLL(None).mlockall(1 | 4):
    sys.exit("mlockall")
meet("locked")
meet("end")
"""


def test_locks_the_tables(one_python, tmp_path):
    """Once there are many: pages that are locked cannot be given back, and are unmapped with the rest. (Removal said "Invalid
    argument", and so did each detach.)"""
    with Program(one_python, tmp_path, LATER) as victim:
        with recorded(victim) as record:
            victim.meet("locked")
            assert "lo" in table_flags(victim.pid)
        assert at(record.document, victim)["kept"][1] >= 300000
        wait_clean(victim.pid, 1)
        victim.meet("end")


def test_killed_while_it_maps(one_python, tmp_path):
    """SIGKILL at some of the steps of planting and removing, of which the first ones map without access, unlock, and give access: the
    next pyleak takes what is left with it."""
    with Program(one_python, tmp_path, PROGRAM, 0, 0, 2) as victim:
        locked = kib(victim.pid, "VmLck")
        for step in list(range(1, 60, STEP)) + list(range(60, 1000, 5 * STEP)):
            result = pyleak("attach", victim.pid, "--duration", "1ms",
                            environment={"PYLEAK_FAULT": str(step), "PYLEAK_GUARDIAN": "off"})
            victim.meet("again")
            if result.status == 0:
                break
            assert result.status == -signal.SIGKILL, (step, result)
            assert kib(victim.pid, "VmLck") - locked < 4096, step
            assert pyleak("attach", victim.pid, "--duration", "1ms").status == 0, step
            wait_clean(victim.pid, 1)
            victim.meet("again")
        assert result.status == 0 and step > 60, (step, result)
        wait_clean(victim.pid, 1)
        victim.meet("again")


def test_doctor_says_so(one_python, tmp_path):
    with Program(one_python, tmp_path, PROGRAM, 0, 0, 3) as victim:
        text = doctor(victim.pid)["space"]["text"]
        assert "of its memory (mlock), the tables are not locked" in text


def test_no_huge_pages(host):
    """Where they are "always", each page of the tables that is touched would take 2 MiB."""
    victim = host()
    assert pyleak("attach", victim.pid, "--keep").status == 0
    assert "nh" in table_flags(victim.pid)
    assert pyleak("detach", victim.pid).status == 0
    victim.check()
