# SPDX-License-Identifier: MIT
"""What a process does while the inline engine records: forks, children, exec, its own end."""
import os
import signal
import time

import pytest

from helpers import Pyleak, status, wait_clean, wait_until
from programs import Program, assert_nothing_lost, at, control, recorded

# Keeps 1000 blocks at a line of its own; the child frees them and makes its own elsewhere.
FORKER = """
import signal
kept = [None] * 2000
def parent(first):
    for i in range(first, first + 1000):
        kept[i] = b"p" * (100 + i % 50)  # at parent
def child():
    for turn in range(20):
        mine = [b"c" * (50 + i) for i in range(1000)]  # at child
        for i, block in enumerate(mine):
            assert block == b"c" * (50 + i)
        for i in range(1000):
            if kept[i] is not None:
                assert kept[i] == b"p" * (100 + i % 50), i
        if turn == 10:
            kept[:] = [None] * 2000
    return 42
def fork(end):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = child()
        finally:
            if end == "exit":
                sys.exit(code)
            os._exit(code)
    return os.waitpid(pid, 0)[1]
"""


def expected(program, times=1):
    sizes = sum(program.header + 100 + i % 50 for i in range(1000))
    return times * sizes, times * 1000


@pytest.mark.alike
def test_fork(python, tmp_path):
    fork(python, tmp_path, "exit")


def test_fork_and_exit_at_once(one_python, tmp_path):
    fork(one_python, tmp_path, "_exit")


def fork(python, tmp_path, end):
    """The child allocates, frees what it inherited, and ends either way; the parent's figures are its own."""
    with Program(python, tmp_path, FORKER + """
meet("ready")
parent(0)
codes = [fork(sys.argv[1]) for _ in range(3)]
parent(1000)
meet(str(set(codes)))
""", end) as victim:
        with recorded(victim) as record:
            victim.tell("go")
            assert victim.line(60) == str({42 << 8})
    found = at(record.document, victim)
    assert found["parent"] == expected(victim, 2)
    assert found["child"] == (0, 0)
    rows = [row for row in record.document["stats"] if row["lineno"] == victim.lines["child"]
            and row["filename"] == victim.path]
    assert not rows, rows
    assert_nothing_lost(record.document)


@pytest.mark.alike
def test_fork_from_threads(python, tmp_path):
    """Forks in the midst of other threads' allocations."""
    with Program(python, tmp_path, FORKER + """
codes = []
def forks():
    for _ in range(8):
        codes.append(fork("_exit"))
running = True
def work():
    while running:
        [str(i) * 20 for i in range(200)]
meet("ready")
parent(0)
workers = [threading.Thread(target=work) for _ in range(2)]
forkers = [threading.Thread(target=forks) for _ in range(3)]
for thread in workers + forkers:
    thread.start()
for thread in forkers:
    thread.join()
running = False
parent(1000)
meet("%d %s" % (len(codes), set(codes)))
""") as victim:
        with recorded(victim) as record:
            victim.tell("go")
            assert victim.line(120) == "24 %s" % {42 << 8}
    found = at(record.document, victim)
    assert found["parent"] == expected(victim, 2)
    assert found["child"] == (0, 0)
    wait_clean(victim.pid, 1)


@pytest.mark.alike
def test_child_is_attached_to(python, tmp_path):
    """A child forked while its parent is recorded: its copy of the probe is replaced by one of its own."""
    with Program(python, tmp_path, FORKER + """
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
meet("ready")
parent(0)
pid = os.fork()
if pid == 0:
    signal.sigwait({signal.SIGUSR1})
    parent(1000)
    mine = [bytes(50) for i in range(1000)]  # at mine
    open(sys.argv[1], "w").close()
    signal.sigwait({signal.SIGUSR1})
    os._exit(child())
meet(str(pid))
meet(str(os.waitpid(pid, 0)[1]))
""", tmp_path / "worked") as victim:
        with recorded(victim) as record:
            victim.tell("go")
            pid = int(victim.line(60))
            assert control(pid)["mode"] == 0
            with Pyleak("attach", pid, "--engine", "inline", "--format", "json", "--limit", 0) as running:
                wait_until(lambda: running.process.poll() is not None or recording(pid), 10, "a probe of its own")
                os.kill(pid, signal.SIGUSR1)
                wait_until((tmp_path / "worked").exists, 10, "the child has worked")
                result = running.finish(signal.SIGTERM)
            assert result.status == 0, result
            wait_clean(pid, 1)
            os.kill(pid, signal.SIGUSR1)
            victim.tell("go")
            assert victim.line(30) == str(42 << 8)
    found, parent = at(result.json(), victim), at(record.document, victim)
    assert found["parent"] == parent["parent"] == expected(victim)
    assert found["mine"][1] >= 1000 and parent["mine"] == (0, 0)


def recording(pid):
    try:
        return status(pid).get("TracerPid") == "0" and control(pid)["mode"] != 0
    except (AssertionError, OSError):
        return False


MULTIPROCESSING = """
import multiprocessing
def work(i):
    blocks = [b"w" * (200 + i) for _ in range(500)]  # at work
    return sum(map(len, blocks))
def main():
    kept = [None] * 500
    meet("ready")
    for i in range(500):
        kept[i] = bytes(100)  # at main
    with multiprocessing.get_context(sys.argv[1]).Pool(3) as pool:
        right = pool.map(work, range(20)) == [500 * (200 + i) for i in range(20)]
    meet("right" if right else "wrong")
if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(one_python, tmp_path, method):
    with Program(one_python, tmp_path, MULTIPROCESSING, method) as victim:
        with recorded(victim) as record:
            victim.meet("right")
    found = at(record.document, victim)
    assert found["main"] == (500 * (victim.header + 100), 500)
    assert found["work"] == (0, 0)


@pytest.mark.alike
def test_other_programs(python, tmp_path):
    """subprocess (vfork or fork and exec), posix_spawn, system."""
    with Program(python, tmp_path, """
import subprocess
kept = [None] * 500
meet("ready")
for i in range(500):
    kept[i] = bytes(100)  # at main
right = all(subprocess.call(["/bin/true"]) == 0 for _ in range(20))
right &= all(subprocess.call([sys.executable, "-c", "x = [str(i) for i in range(1000)]"], close_fds=False) == 0
             for _ in range(3))
told = subprocess.check_output("echo told", shell=True, preexec_fn=lambda: [str(i) for i in range(100)])
right &= told.strip() == b"told"
right &= os.system("true") == 0
if hasattr(os, "posix_spawn"):
    right &= all(os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1] == 0 for _ in range(10))
meet("right" if right else "wrong")
""") as victim:
        with recorded(victim) as record:
            victim.meet("right")
    assert at(record.document, victim)["main"] == (500 * (victim.header + 100), 500)
    assert_nothing_lost(record.document)


ENDS = {
    "main": "",
    "exit": "sys.exit(3)",
    "_exit": "os._exit(3)",
    "abort": "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.abort()",
    "exception": "sys.stderr.close(); raise RuntimeError",
    "exec": "os.execv('/bin/sleep', ['sleep', '1000'])",
    "execpython": "os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(1000)'])",
    "threads": "threading.Thread(target=lambda: [bytes(i) for i in range(100000)], daemon=True).start()",
}


@pytest.mark.parametrize("how", sorted(ENDS))
def test_end(one_python, tmp_path, how):
    ends(one_python, tmp_path, how)


def test_finalization(python, tmp_path):
    ends(python, tmp_path, "main")


def ends(python, tmp_path, how):
    """The process ends, by itself or by becoming another program: finalised with the probe in place.
    What was recorded is printed, with a note, and the status is 1."""
    with Program(python, tmp_path, """
kept = [None] * 500
meet("ready")
for i in range(500):
    kept[i] = bytes(100)  # at main
meet("done")
""" + ENDS[how] + "\n") as victim:
        with recorded(victim, status=None) as record:
            victim.meet("done")
            time.sleep(0.7)  # what is read while nobody asks, is read twice a second
            victim.tell("go")
            if how.startswith("exec"):
                wait_until(lambda: not [m for m in open("/proc/%d/maps" % victim.pid) if m.startswith("70796c")], 10,
                           "another program")
                record.running.process.wait(10)
            else:
                code = victim.process.wait(20)
                assert code == {"main": 0, "threads": 0, "exception": 1, "abort": -signal.SIGABRT}.get(how, 3)
                record.running.process.wait(10)
        result = record.result
        assert result.status == 1, result
        assert ("another program" if how.startswith("exec") else "ended") in result.stderr, result
        assert result.stderr.count("\n") == 1, result
        assert at(record.document, victim)["main"] == (500 * (victim.header + 100), 500)
        if how.startswith("exec"):
            assert victim.alive()
