# SPDX-License-Identifier: MIT
"""A process near the limit of its cgroup: the recorder's memory counts there too."""
import fcntl
import os
import re
import signal

import pytest

from cgroups import cgroup  # noqa: F401, a fixture
from helpers import Pyleak, assert_refused, hook_words, leftovers, pyleak, wait_clean, wait_hooked, wait_until
from programs import Program, at

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


def lock(file):
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def writes_memory(pid, victim):
    """Has adopted the probe: the file that it has for the claim is open for reading only."""
    for fd in os.listdir("/proc/%d/fd" % pid):
        try:
            if os.readlink("/proc/%d/fd/%s" % (pid, fd)) == "/proc/%d/mem" % victim:
                flags = re.search(r"flags:\s*(\d+)", open("/proc/%d/fdinfo/%s" % (pid, fd)).read()).group(1)
                if int(flags, 8) & 3 == os.O_RDWR:
                    return True
        except OSError:
            pass
    return False


def test_another_reader_has_the_claim(one_python, tmp_path, cgroup):
    """For a moment: what was switched off is removed all the same."""
    with Program(one_python, tmp_path, GROWS, 60, 11, 40, preexec_fn=cgroup.enter) as victim:
        cgroup.leave(16 * MIB)
        assert pyleak("attach", victim.pid, "--keep").status == 0
        with Pyleak("attach", victim.pid) as running, open("/proc/%d/mem" % victim.pid) as claim:
            wait_until(lambda: writes_memory(running.process.pid, victim.pid), 20, "a reader")
            wait_until(lambda: lock(claim), 20, "the claim")
            victim.meet("grown")
            assert "has only" in running.finish().stderr
            assert leftovers(victim.pid)
        wait_clean(victim.pid, 1)
        victim.meet("alive")


def test_killed_while_it_gives_up(one_python, tmp_path, cgroup):
    """At any step of giving the tables back: the process lives below its limit, and detach removes what is left."""
    def grown(**environment):
        with Program(one_python, tmp_path, GROWS, 60, 14, 40, preexec_fn=cgroup.enter) as victim:
            cgroup.leave(16 * MIB)
            assert pyleak("attach", victim.pid, "--keep").status == 0
            with Pyleak("attach", victim.pid, "--verbose", environment=environment) as running:
                victim.meet("grown")
                result = running.finish()
            victim.meet("alive")
            if environment:
                assert result.status == -signal.SIGKILL, result
            assert pyleak("detach", victim.pid).status == 0
            wait_clean(victim.pid, 1)
            victim.meet("alive")
            cgroup.leave(200 * MIB)
            return result

    steps = int(re.search(r"(\d+) ptrace steps", grown().stderr).group(1))
    for step in 1, steps * 2 // 3:
        grown(PYLEAK_FAULT=str(step))


PATHS = """
kept = []
def descend(levels, path):
    if not levels:
        kept.append(object())  # at made
    elif path & 3 == 0:
        descend(levels - 1, path >> 2)
    elif path & 3 == 1:
        descend(levels - 1, path >> 2)
    elif path & 3 == 2:
        descend(levels - 1, path >> 2)
    else:
        descend(levels - 1, path >> 2)
meet("ready")
for number in range(8):
    for path in range(number << 13, (number + 1) << 13):
        descend(8, path)
    time.sleep(0.1)
meet("grown")
"""


def test_tracebacks_leave_room(one_python, tmp_path, cgroup):
    """What 65,536 tracebacks take is more than there is; cut to their lines when half of it is gone, recording goes on."""
    with Program(one_python, tmp_path, PATHS, preexec_fn=cgroup.enter) as victim:
        cgroup.leave(20 * MIB)
        with Pyleak("attach", victim.pid, "--format", "json", "--frames", "16") as running:
            wait_hooked(victim.pid, running)
            victim.meet("grown", 90)
            result = running.finish(signal.SIGINT)
        assert result.status == 0 and "has ended" not in result.stderr, result
        assert "at their limit" in result.stderr, result
        assert at(result.json(), victim)["made"][1] == 65536 + 1  # and the list
        cgroup.leave(200 * MIB)
