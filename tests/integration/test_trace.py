# SPDX-License-Identifier: MIT
"""pyleak leaves no trace: mappings, hooks, descriptors, signals, and the state of every thread."""
import os
import signal

import pytest

import helpers
from helpers import HOOKS, Trace, Victim, attach, hook_words, leftovers, probe_maps, pyleak, status, wait_clean, \
    wait_hooked, wait_until

pytestmark = pytest.mark.usefixtures("engine")

ENDS = {"SIGINT": (signal.SIGINT, []), "SIGTERM": (signal.SIGTERM, []), "duration": (None, ["--duration", "1s"])}


def no_trace(python, end):
    with Victim(python, "host.py", "--threads", 3) as victim:
        victim.check()
        before = Trace(victim.pid)
        assert not leftovers(victim.pid)
        with attach(victim.pid, *ENDS[end][1]) as running:
            wait_hooked(victim.pid, running)
            # The look for traces does see them while they are there.
            assert len(hook_words(victim.pid)) >= HOOKS
            assert probe_maps(victim.pid)
            assert all("w" not in m[2] or "x" not in m[2] for m in probe_maps(victim.pid))
            traced = status(victim.pid)["TracerPid"]
            assert traced == (str(running.pid) if helpers.engine == "breakpoint" else "0")
            victim.check()
            result = running.finish(ENDS[end][0])
        assert result.status == 0, result
        assert result.json()["total"]["count"] > 0
        assert not before.differences(victim.pid)
        victim.check()


def test_no_trace(python):
    no_trace(python, "SIGTERM")


@pytest.mark.parametrize("end", ["SIGINT", "duration"])
def test_no_trace_after(one_python, end):
    no_trace(one_python, end)


def test_no_trace_after_diff(host):
    victim = host("--threads", 3)
    before = Trace(victim.pid)
    result = pyleak("diff", victim.pid, "--engine", helpers.engine, "--interval", "500ms", "--format", "json")
    assert result.status == 0, result
    assert not before.differences(victim.pid)
    victim.check()


def test_cycles(host):
    """Attaching again and again: the same report each time, and nothing piles up."""
    cycles = int(os.environ.get("PYLEAK_CYCLES", "10"))
    victim = host("--threads", 3)
    before = Trace(victim.pid)
    for _ in range(cycles):
        result = pyleak("attach", victim.pid, "--engine", helpers.engine, "--duration", "100ms", "--format", "json")
        assert result.status == 0, result
        assert result.json()["stats"]
        assert not before.differences(victim.pid)
    victim.check()


def killed(python, guardian):
    """SIGKILL of pyleak: the process goes on, and its guardian, or else the next pyleak, cleans up."""
    environment = {} if guardian == "guardian" else {"PYLEAK_GUARDIAN": "off"}
    with Victim(python, "host.py", "--threads", 3) as victim:
        before = Trace(victim.pid)
        with attach(victim.pid, environment=environment) as running:
            wait_hooked(victim.pid, running)
            victim.check()
            running.finish(signal.SIGKILL)
        if guardian == "detach":
            victim.check()
            assert len(hook_words(victim.pid)) >= HOOKS
            assert probe_maps(victim.pid)
            result = pyleak("detach", victim.pid)
            assert result.status == 0, result
        else:
            wait_clean(victim.pid, 2.5)
        assert not before.differences(victim.pid)
        victim.check()


@pytest.mark.long
def test_killed(python):
    killed(python, "guardian")


def test_killed_without_guardian(one_python):
    killed(one_python, "detach")


def test_killed_then_attached_again(host):
    """What a killed pyleak left is found by the next `attach`, which works and then removes it."""
    victim = host()
    before = Trace(victim.pid)
    with attach(victim.pid, environment={"PYLEAK_GUARDIAN": "off"}) as running:
        wait_hooked(victim.pid, running)
        running.finish(signal.SIGKILL)
    wait_until(lambda: status(victim.pid)["TracerPid"] == "0", 5, "no tracer")
    result = pyleak("attach", victim.pid, "--engine", helpers.engine, "--duration", "1s", "--format", "json")
    assert result.status == 0, result
    assert any(row["filename"].endswith("host.py") for row in result.json()["stats"])
    assert not before.differences(victim.pid)
    victim.check()


def test_terminal_gone(host):
    """SIGHUP ends pyleak as SIGTERM does."""
    victim = host()
    before = Trace(victim.pid)
    with attach(victim.pid) as running:
        wait_hooked(victim.pid, running)
        running.finish(signal.SIGHUP)
    wait_clean(victim.pid, 2.5)
    assert not before.differences(victim.pid)
    victim.check()
