# SPDX-License-Identifier: MIT
"""What happens while pyleak plants, records and removes happens at random instants here: signals to pyleak, and the
end, an execve and stops of the process. Each test prints its seed; PYLEAK_SEED repeats one."""
import fcntl
import os
import random
import select
import signal
import subprocess
import tempfile
import time

import pytest

import helpers
from helpers import PATIENCE, PYLEAK, Pyleak, Trace, Victim, leftovers, pyleak, state, wait_hooked, wait_until

ROUNDS = int(os.environ.get("PYLEAK_ROUNDS", "10"))
SPAN = 0.3  # an attach of 150 ms, from its start to its end
HOST = ("host.py", "--threads", 3, "--light", "--pause", 0.001)

EXECUTES_IN_A_THREAD = """
import os, sys, threading, time
def work():
    while True:
        [bytes(100 + i) for i in range(20)]
        time.sleep(0.001)
def execute(delay):
    time.sleep(delay)
    os.execv("/bin/sleep", ["sleep", "1000"])
for i in range(3):
    threading.Thread(target=work, daemon=True).start()
print("ready", flush=True)
threading.Thread(target=execute, args=(float(sys.stdin.readline()),), daemon=True).start()
while True:
    time.sleep(0.002)
"""


@pytest.fixture
def chance():
    seed = int(os.environ.get("PYLEAK_SEED", random.randrange(1 << 30)))
    print("seed", seed)
    return random.Random(seed)


def short_attach(pid):
    return Pyleak("attach", pid, "--engine", helpers.engine, "--duration", "150ms", "--format", "json")


def assert_one_line(result):
    assert result.status in (0, 1), result
    assert result.stderr.count("\n") == (1 if result.status else 0), result


def test_signals_to_pyleak(engine, one_python, chance):
    """^C, SIGTERM and SIGHUP end it early and cleanly, whatever it is at. ^Z does nothing."""
    with Victim(one_python, *HOST) as victim:
        before = Trace(victim.pid)
        for _ in range(ROUNDS):
            with short_attach(victim.pid) as running:
                time.sleep(0.02 + chance.random() * SPAN)
                if running.process.poll() is None:
                    running.process.send_signal(signal.SIGTSTP)
                    assert state(running.pid) != "T"
                result = running.finish(chance.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
            # Before it is ready for a signal it is not ready for the process either.
            assert result.status in (0, -signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP), result
            assert result.stderr == ""
            wait_until(lambda: not before.differences(victim.pid), 2, "no trace is left")
            victim.check()


def test_signals_blocked_from_the_start(engine, one_python):
    """Whoever starts pyleak may have all signals blocked, which is inherited."""
    def block():
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
    with Victim(one_python, *HOST) as victim:
        for how in (None, signal.SIGTERM, signal.SIGINT):
            before = Trace(victim.pid)
            duration = ["--duration", "200ms"] if how is None else []
            with Pyleak("attach", victim.pid, "--engine", engine, *duration, preexec_fn=block) as running:
                if how:
                    wait_hooked(victim.pid, running)
                assert running.finish(how, seconds=10).status == 0
            assert not before.differences(victim.pid)


def test_end_of_the_process(engine, one_python, chance):
    for _ in range(ROUNDS):
        with Victim(one_python, *HOST) as victim:
            with short_attach(victim.pid) as running:
                time.sleep(chance.random() * SPAN)
                victim.process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM]))
                victim.process.wait(10 * PATIENCE)
                assert_one_line(running.finish(seconds=10))


def test_execve_in_a_thread(engine, one_python, chance):
    """The thread becomes the leader, all others end, and nothing of pyleak is in the new program."""
    for _ in range(ROUNDS):
        with Victim(one_python, None, "-c", EXECUTES_IN_A_THREAD) as victim:
            victim.tell(str(chance.random() * SPAN))
            with short_attach(victim.pid) as running:
                assert_one_line(running.finish(seconds=15))

            def sleeps():
                with open("/proc/%d/comm" % victim.pid) as file:
                    return file.read().strip() == "sleep"
            wait_until(sleeps, 5, "the other program runs")
            wait_until(lambda: state(victim.pid) == "S", 5, "and goes on")
            assert not leftovers(victim.pid)


def test_stopped_and_continued(engine, one_python, chance):
    """No SIGSTOP and no SIGCONT is lost, and none makes planting or removing fail."""
    with Victim(one_python, *HOST) as victim:
        before = Trace(victim.pid)
        for _ in range(ROUNDS):
            with short_attach(victim.pid) as running:
                end = time.monotonic() + SPAN
                while time.monotonic() < end:
                    time.sleep(chance.random() * 0.03)
                    os.kill(victim.pid, chance.choice([signal.SIGSTOP, signal.SIGCONT]))
                last = chance.choice([signal.SIGSTOP, signal.SIGCONT])
                os.kill(victim.pid, last)
                result = running.finish(seconds=20)
            wait_until(lambda: (state(victim.pid) == "T") == (last == signal.SIGSTOP), 2, "the last one counts")
            os.kill(victim.pid, signal.SIGCONT)
            victim.check()
            if result.status:
                # It was stopped inside the probe, which must stay until that thread has left it.
                assert "still inside the probe" in result.stderr, result
                assert pyleak("detach", victim.pid).status == 0
            assert not before.differences(victim.pid)


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_closed_descriptor(engine, one_python, closed):
    """The file that takes the number of a closed standard stream is not written to."""
    with Victim(one_python, *HOST) as victim:
        before = Trace(victim.pid)
        answer = subprocess.run([PYLEAK, "attach", str(victim.pid), "--engine", helpers.engine, "--duration", "200ms"],
                                preexec_fn=lambda: os.close(closed), capture_output=True, timeout=30, check=False)
        assert answer.returncode == (1 if closed == 1 else 0), answer
        assert closed != 1 or answer.stderr == b"pyleak: the report could not be written: Bad file descriptor\n"
        assert not before.differences(victim.pid)
        victim.check()


def test_threads_born_at_the_end(engine, one_python, tmp_path):
    """Every thread is let go before the report is printed, those too that were being born at that moment."""
    many = "".join("def f%d(): kept.append(bytes(900))\n" % i for i in range(1500))
    program = "import threading\n" + many + "kept = []\n" \
        "functions = [f for n, f in sorted(globals().items()) if n[0] == 'f' and n[1:].isdigit()]\n" \
        "for f in functions: f()\nprint('ready', flush=True)\n" \
        "def short(): pass\n" \
        "def churn():\n    while True:\n        t = threading.Thread(target=short); t.start(); t.join()\n" \
        "for i in range(3): threading.Thread(target=churn, daemon=True).start()\n" \
        "while True:\n    for f in functions: f()\n    del kept[:-1500]\n"
    with Victim(one_python, None, "-c", program) as victim:
        for _ in range(ROUNDS):
            with Pyleak("attach", victim.pid, "--engine", engine, "--limit", 0) as running:
                wait_hooked(victim.pid, running)
                time.sleep(0.4)
                running.process.send_signal(signal.SIGTERM)
                # Its output is more than this pipe holds and is not read: pyleak stays.
                fcntl.fcntl(running.process.stdout, fcntl.F_SETPIPE_SZ, 4096)
                wait_until(lambda: not helpers.probe_maps(victim.pid), 10, "the probe is gone")
                wait_until(lambda: not leftovers(victim.pid), 3, "every thread is let go")
                assert running.process.poll() is None
                assert running.finish().status == 0


def test_report_that_nobody_reads(engine, one_python):
    """A pager that waits does not make the process wait; ^C lets it go first."""
    many = "".join("def f%d(): kept.append(bytes(900))\n" % i for i in range(2000))
    program = many + "kept = []\nfunctions = [f for n, f in sorted(globals().items()) if n[0] == 'f' and n[1:].isdigit()]\n" \
        "beats = open(%r, 'ab', buffering=0)\nprint('ready', flush=True)\nwhile True:\n" \
        "    for f in functions: f()\n    kept.clear()\n    beats.write(b'x')\n"
    with tempfile.TemporaryDirectory() as folder:
        beats = os.path.join(folder, "beats")
        with Victim(one_python, None, "-c", program % beats) as victim:
            before = Trace(victim.pid)
            with Pyleak("diff", victim.pid, "--engine", engine, "--interval", "600ms", "--count", 9, "--limit", 0) as running:
                # Nobody reads its stdout, which holds 64 KiB; one report is more than that.
                wait_until(lambda: select.select([running.process.stdout], [], [], 0)[0], 20, "the first report begins")
                for _ in range(3):
                    size = os.path.getsize(beats)
                    wait_until(lambda: os.path.getsize(beats) > size, 10, "the process gets on")
                assert running.process.poll() is None
                running.process.send_signal(signal.SIGINT)
                wait_until(lambda: not before.differences(victim.pid), 5, "it is let go though nobody reads")
                result = running.finish()
            assert result.status == 0, result
