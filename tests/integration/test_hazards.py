# SPDX-License-Identifier: MIT
"""One hazard, one victim, one test: each victim in tests/victims does what a careless tracer breaks.

Each is attached to three times while it works, and must get on and be right meanwhile and after.
"""
import signal
import time

import pytest

import helpers
from helpers import Trace, Victim, attach, leftovers, library, pyleak, skip_here, wait_clean, wait_hooked, wait_until

pytestmark = pytest.mark.usefixtures("engine")

WATCHED_S = 1.0


def watch(victim, times=3):
    """pyleak comes and goes; returns the last report."""
    victim.check()  # by then no thread is half born, with all signals blocked
    before = Trace(victim.pid)
    for _ in range(times):
        with attach(victim.pid) as running:
            wait_hooked(victim.pid, running)
            first = victim.check()
            time.sleep(WATCHED_S)
            wait_until(lambda: victim.check()["library"][0] > first["library"][0], 10, "the library's threads get on")
            result = running.finish(signal.SIGTERM)
        assert result.status == 0, result
        victim.check()
    assert not before.differences(victim.pid)
    return result.json()


def test_redzone(host):
    watch(host("--library", library("redzone")))


def test_registers(host):
    watch(host("--library", library("registers")))


def test_vectors(host):
    watch(host("--library", library("vectors")))


def test_hooked(host):
    """The call that stops at a breakpoint keeps the registers that calls keep, and errno."""
    document = watch(host("--library", library("hooked")))
    assert document["lost"]["events"] == 0


def test_sigmask(host):
    watch(host("--library", library("sigmask")))


def test_tinystack(host):
    watch(host("--library", library("tinystack")))


def test_altstack(host):
    watch(host("--library", library("altstack")))


@pytest.mark.long
def test_handlers(host):
    """Handlers on an alternate stack go through hooks, in the midst of one."""
    document = watch(host("--library", library("handlers")))
    assert document["lost"]["events"] == 0


def test_signals(host):
    watch(host("--library", library("signals")))


def test_blocked(host):
    watch(host("--library", library("blocked")))


def test_mallocs(host):
    document = watch(host("--library", library("mallocs")))
    assert document["lost"]["events"] == 0


def test_loader(host):
    victim = host("--library", library("loader"))
    for _ in range(3):
        with attach(victim.pid) as running:
            wait_hooked(victim.pid, running)
            time.sleep(WATCHED_S)
            victim.check()
            result = running.finish(signal.SIGTERM)
        assert result.status == 0, result
        victim.check()
        assert not leftovers(victim.pid)


def test_churn(host):
    """Threads that live for microseconds: each is traced from its first instruction on."""
    victim = host("--library", library("churn"))
    before = Trace(victim.pid)
    for _ in range(3):
        with attach(victim.pid) as running:
            wait_hooked(victim.pid, running)
            time.sleep(WATCHED_S)
            victim.check()
            result = running.finish(signal.SIGTERM)
        assert result.status == 0, result
    victim.check()
    before.masks = {}
    assert not before.differences(victim.pid)


def test_children(host):
    """fork, vfork and posix_spawn in C; the child allocates through the hooks."""
    watch(host("--library", library("children")))


def test_fork(host):
    """os.fork() in Python: the child makes objects, is right, and is not counted."""
    victim = host("--threads", 0)
    with attach(victim.pid, "--limit", 0) as running:
        wait_hooked(victim.pid, running)
        for _ in range(5):
            assert victim.ask("fork") == {"status": 42 << 8}
        result = running.finish(signal.SIGTERM)
    assert result.status == 0, result
    # The child runs one_round() 30 times, the parent never: its lines may not show.
    lines = [row for row in result.json()["stats"] if row["function"].endswith("one_round")]
    assert not lines, lines
    victim.check()
    wait_clean(victim.pid, 1)


def test_spawn(host):
    victim = host("--threads", 1)
    with attach(victim.pid) as running:
        wait_hooked(victim.pid, running)
        for _ in range(5):
            assert victim.ask("spawn") == {"status": 0}
        result = running.finish(signal.SIGTERM)
    assert result.status == 0, result
    victim.check()
    wait_clean(victim.pid, 1)


def test_leader(host):
    """A process whose main thread has ended: watched all the same, or refused; never harmed."""
    victim = host("--library", library("leader"), "--end-leader")
    result = pyleak("attach", victim.pid, "--engine", helpers.engine, "--duration", "1s", "--format", "json")
    if result.status:
        assert result.status == 1 and result.stdout == "" and result.stderr.count("\n") == 1, result
    else:
        assert result.json()["stats"], result
    victim.check()


def test_seccomp(host):
    """A filter that kills on our remote call: suspended where pyleak may, else refused."""
    victim = host("--library", library("seccomp"))
    result = pyleak("attach", victim.pid, "--engine", helpers.engine, "--duration", "1s", "--format", "json")
    if result.status:
        assert result.status == 1 and result.stdout == "" and "seccomp" in result.stderr, result
    else:
        assert result.json()["stats"], result
    victim.check()
    wait_clean(victim.pid, 1)


def refused_or_right(victim, word):
    first = victim.check()
    before = Trace(victim.pid)
    result = pyleak("attach", victim.pid, "--engine", helpers.engine, "--duration", "1s", "--format", "json")
    if result.status:
        assert result.status == 1 and result.stdout == "" and word in result.stderr, result
        assert result.stderr.count("\n") == 1, result
    wait_until(lambda: victim.check()["library"][0] > first["library"][0], 10, "the library's threads get on")
    assert not before.differences(victim.pid)
    return result


def test_sigtrap(host):
    """A program with a SIGTRAP handler of its own keeps it, and every SIGTRAP of its own reaches it."""
    refused_or_right(host("--library", library("sigtrap")), "SIGTRAP")


def test_nosignals(host):
    """A thread that blocks SIGTRAP would be killed by a breakpoint whose tracer is gone: refused by that engine."""
    result = refused_or_right(host("--library", library("nosignals")), "SIGTRAP")
    assert result.status == (1 if helpers.engine == "breakpoint" else 0), result


@pytest.mark.parametrize("threads", [1, 8, 50])
def test_threads(host, threads):
    """A thread is held for a short time; with breakpoints all of them, together."""
    victim = host("--threads", threads, "--pause", 0.05, "--light")
    with attach(victim.pid) as running:
        wait_hooked(victim.pid, running)
        victim.check()
        result = running.finish(signal.SIGTERM)
    assert result.status == 0, result
    assert 0 < result.json()["stop_ms"] < 1000
    victim.check()
    wait_clean(victim.pid, 1)


def test_tracemalloc(host):
    """tracemalloc.start() after us hooks on top of us: pyleak leaves a pass-through, and the program runs."""
    victim = host("--threads", 2)
    with attach(victim.pid) as running:
        wait_hooked(victim.pid, running)
        victim.ask("tracemalloc_start")
        result = running.finish(signal.SIGTERM)
    assert result.stdout, result
    victim.check()
    # tracemalloc puts back what it found: our pass-through.
    victim.ask("tracemalloc_stop")
    victim.check()
    assert pyleak("detach", victim.pid).status == 0
    victim.check()
    wait_clean(victim.pid, 1)


DENIED = """
import ctypes, sys, time
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
if int(sys.argv[1]) and libc.mlockall(2):  # MCL_FUTURE
    sys.exit("mlockall")
if libc.prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0):
    print("none", flush=True)
print("ready", flush=True)
while True:
    kept = [[i] for i in range(1000)]
    time.sleep(0.001)
"""


@pytest.mark.parametrize("locks", [0, 1])
def test_mdwe(one_python, locks):
    """A process that may never make memory executable that was not mapped so (systemd's MemoryDenyWriteExecute)."""
    with Victim(one_python, None, "-c", DENIED, str(locks), ready=None) as victim:
        if victim.line() == "none":
            skip_here("mdwe")
        before = Trace(victim.pid)
        result = pyleak("attach", victim.pid, "--engine", helpers.engine, "--duration", "300ms", "--format", "json")
        assert result.status == 0, result
        assert result.json()["stats"], result
        assert not before.differences(victim.pid)
        assert victim.alive()
