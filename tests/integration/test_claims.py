# SPDX-License-Identifier: MIT
"""One pyleak at a time is at work in a process: nobody but who may trace it can keep another one out, and who does is
named."""
import os
import signal
import subprocess
import sys

import pytest

from helpers import Pyleak, hook_words, pyleak, skip_here, wait_clean, wait_hooked

LOCKER = """
import fcntl, os, sys
os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
file = os.open(sys.argv[2], os.O_RDONLY)
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


class Locker:
    def __init__(self, path, user):
        self.process = subprocess.Popen([sys.executable, "-c", LOCKER, str(user), path], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.locked = self.process.stdout.readline() == b"locked\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def root():
    if os.geteuid() != 0:
        skip_here("user")


def test_another_user(root, host):
    """/proc/PID is everybody's to open, and no lock on it means anything; what means something he cannot open."""
    victim = host()
    with Locker("/proc/%d" % victim.pid, 65534) as first, Locker("/proc/%d/mem" % victim.pid, 65534) as second:
        assert first.locked and not second.locked
        result = pyleak("attach", victim.pid, "-d", "100ms")
        assert result.status == 0 and result.stdout, result
    victim.check()


@pytest.mark.parametrize("command", ["attach", "diff", "detach", "doctor"])
def test_who_holds_it(root, host, command):
    victim = host()
    with Locker("/proc/%d/mem" % victim.pid, 0) as locker:
        assert locker.locked
        result = pyleak(command, victim.pid)
        assert result.status == 1, result
        said = result.stdout if command == "doctor" else result.stderr
        assert "locked by process %d (python3) of user 0" % locker.process.pid in said, result
        assert "--force" in said
    victim.check()


def test_force(root, host):
    victim = host()
    with Locker("/proc/%d/mem" % victim.pid, 0):
        result = pyleak("attach", victim.pid, "-d", "200ms", "--force")
        assert result.status == 0 and result.stdout, result
        assert pyleak("attach", victim.pid, "--keep", "--force").status == 0
        assert hook_words(victim.pid)
        assert pyleak("detach", victim.pid, "--force").status == 0
        wait_clean(victim.pid, 1)
        # The guardian passes as well.
        with Pyleak("attach", victim.pid, "--force") as running:
            wait_hooked(victim.pid, running)
            running.finish(signal.SIGKILL)
        wait_clean(victim.pid, 20)
    victim.check()


def test_force_does_not_pass_a_pyleak(host):
    victim = host()
    with Pyleak("attach", victim.pid) as running:
        wait_hooked(victim.pid, running)
        result = pyleak("attach", victim.pid, "-d", "100ms", "--force")
        assert result.status == 1, result
        assert "recorded by another pyleak, process %d: end that one first" % running.pid in result.stderr, result
        assert running.finish(signal.SIGTERM).status == 0
    victim.check()
    wait_clean(victim.pid, 1)
