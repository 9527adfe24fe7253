# SPDX-License-Identifier: MIT
"""Who can be attached to, who is refused, and what happens when a process ends while it is watched."""
import os
import shutil
import signal
import subprocess
import time

import pytest

import helpers
from helpers import (BUILD, HOOKS, PATIENCE, PYLEAK, VICTIMS, Pyleak, Trace, Victim, assert_refused, attach, hook_words,
                     line_of, pyleak, skip_here, state, status, wait_clean, wait_hooked, wait_until)

# The tables of the inline engine die with the process: what is reported is their last reading.
INLINE_READS_S = 3

pytestmark = pytest.mark.usefixtures("engine")


def refused(pid, *words, **keywords):
    for command in (["attach", "--duration", "1s"], ["diff", "--interval", "1s"]):
        assert_refused(pyleak(*command, "--engine", helpers.engine, pid, seconds=20, **keywords), *words)


def unused_pid():
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    return process.pid


def test_no_such_process():
    refused(unused_pid(), "no (such )?process")


def test_not_python():
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            refused(process.pid, "python")
            assert process.poll() is None
        finally:
            process.kill()


def test_zombie():
    process = subprocess.Popen(["/bin/true"])
    try:
        wait_until(lambda: state(process.pid) == "Z", 5, "a zombie")
        refused(process.pid, "zombie: it has ended, and its parent %d has not noticed" % os.getpid())
    finally:
        process.wait()


def test_itself():
    """A process cannot trace itself; init-like and kernel processes are not Python."""
    kernel = os.path.exists("/proc/2/status") and "VmSize" not in status(2)
    refused(2 if kernel else 1, "thread of the kernel" if kernel else ".")


def test_32_bit():
    program = BUILD / "tests" / "victims" / "narrow"
    if not program.exists():
        skip_here("32-bit", "the compiler cannot")
    try:
        process = subprocess.Popen([str(program)])
    except OSError as error:
        skip_here("32-bit", str(error))
    with process:
        try:
            refused(process.pid, "32-bit|python|architecture")
            assert process.poll() is None
        finally:
            process.kill()


def test_already_traced(host):
    victim = host()
    with subprocess.Popen([str(BUILD / "tests" / "victims" / "tracer"), str(victim.pid)],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tracer:
        assert tracer.stdout.readline() == b"traced\n"
        refused(victim.pid, "traced", str(tracer.pid))
        assert status(victim.pid)["TracerPid"] == str(tracer.pid)
        tracer.stdin.close()
        tracer.wait()
    victim.check()


def test_other_user(host, tmp_path):
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        skip_here("user")
    victim = host()
    copy = tmp_path / "pyleak"  # the build directory may be closed to others
    shutil.copy(PYLEAK, copy)
    for part in [tmp_path, *tmp_path.parents]:
        if not part.stat().st_mode & 0o005:
            os.chmod(part, part.stat().st_mode | 0o055)
        if part.parent.samefile("/tmp"):
            break
    for command in (["attach", "--duration", "1s"], ["diff", "--interval", "1s"]):
        process = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(copy), *command,
                                  "--engine", helpers.engine, str(victim.pid)], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30)
        assert process.returncode == 1
        assert process.stdout == b""
        assert process.stderr.count(b"\n") == 1, process.stderr
    victim.check()


def test_own_user(tmp_path):
    """Without root, a process of the same user can be attached to."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        skip_here("user")
    yama = "/proc/sys/kernel/yama/ptrace_scope"
    if os.path.exists(yama) and open(yama).read().strip() != "0":
        skip_here("user", "Yama lets nobody else trace")
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    # /tmp may be closed by the umask of pytest's base directory: use a place of our own.
    folder = subprocess.run(["mktemp", "-d", "/tmp/pyleak-test-XXXXXX"], stdout=subprocess.PIPE, check=True,
                            universal_newlines=True).stdout.strip()
    try:
        os.chmod(folder, 0o755)
        shutil.copy(PYLEAK, folder)
        script = os.path.join(folder, "victim.py")
        with open(script, "w") as file:
            file.write("import time\nprint('ready', flush=True)\nkept = []\n"
                       "while True:\n    kept.append(bytes(1000))\n    time.sleep(0.01)\n")
        with Victim("setpriv", None, *nobody[1:], "/usr/bin/python3", script) as victim:
            process = subprocess.run([*nobody, os.path.join(folder, "pyleak"), "attach", "--engine", helpers.engine,
                                      "--duration", "1s", "--format", "json", str(victim.pid)],
                                     stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                     timeout=60)
            assert process.returncode == 0, process.stderr
            assert b"victim.py" in process.stdout
            wait_clean(victim.pid, 1)
            assert victim.alive()
    finally:
        shutil.rmtree(folder)


def test_stopped(host):
    """A process stopped by ^Z stays stopped, through attach and after, and goes on when it is told to."""
    victim = host()
    before = Trace(victim.pid)
    os.kill(victim.pid, signal.SIGSTOP)
    wait_until(lambda: state(victim.pid) == "T", 5, "a stopped process")
    with attach(victim.pid, "--duration", "1s") as running:
        wait_until(lambda: running.process.poll() is not None or state(victim.pid) == "T", 5, "still stopped")
        seen = []
        while running.process.poll() is None:
            seen.append(state(victim.pid))
            time.sleep(0.01)
        result = running.finish()
    assert result.status == 0, result
    # A thread that carries our system calls is running for as long as they take.
    assert sum(letter in "Tt" for letter in seen) > 0.9 * len(seen), "it ran meanwhile: %s" % "".join(seen)
    assert state(victim.pid) == "T"
    os.kill(victim.pid, signal.SIGCONT)
    wait_until(lambda: state(victim.pid) in "SR", 5, "a process that goes on")
    victim.check()
    assert not before.differences(victim.pid)


def test_stopped_while_watched(host):
    victim = host()
    with attach(victim.pid) as running:
        wait_hooked(victim.pid, running)
        os.kill(victim.pid, signal.SIGSTOP)
        wait_until(lambda: state(victim.pid) in "Tt", 5, "a stopped process")
        time.sleep(0.3)
        assert state(victim.pid) in "Tt"
        os.kill(victim.pid, signal.SIGCONT)
        victim.check()
        os.kill(victim.pid, signal.SIGSTOP)
        time.sleep(0.2)
        result = running.finish(signal.SIGTERM)
    assert state(victim.pid) == "T"
    os.kill(victim.pid, signal.SIGCONT)
    victim.check()
    if result.status:
        # It was stopped inside the probe, which must stay until that thread has left it.
        assert result.status == 1 and "pyleak detach" in result.stderr, result
        assert result.json()["stats"]
        assert pyleak("detach", victim.pid).status == 0
    wait_clean(victim.pid, 1)
    victim.check()


@pytest.mark.parametrize("how", ["exit", "kill", "exec"])
def test_ends_while_watched(one_python, how):
    """What was recorded is printed, with a note on stderr, and the status is 1."""
    with Victim(one_python, "leak.py") as victim:
        with attach(victim.pid) as running:
            wait_hooked(victim.pid, running)
            victim.tell("leak 500")
            assert victim.line() == "leaked"
            if helpers.engine == "inline":
                time.sleep(INLINE_READS_S * PATIENCE)
            if how == "kill":
                os.kill(victim.pid, signal.SIGKILL)
            else:
                victim.tell("quit" if how == "exit" else "exec")
            result = running.finish(seconds=15)
        assert result.status == 1, result
        assert result.stderr.count("\n") == 1, result
        document = result.json()
        assert document["kind"] == "top"
        line = line_of(VICTIMS / "leak.py", "# leaks here")
        assert [row["count"] for row in document["stats"] if row["lineno"] == line] == [500], document
        if how == "exec":
            assert open("/proc/%d/comm" % victim.pid).read() == "sleep\n"
            wait_clean(victim.pid, 1)


def test_ends_before_the_second_window(host):
    victim = host()
    with Pyleak("diff", victim.pid, "--engine", helpers.engine, "--interval", "30s", "--format", "json") as running:
        wait_hooked(victim.pid, running)
        victim.check()
        os.kill(victim.pid, signal.SIGKILL)
        result = running.finish(seconds=15)
    assert result.status == 1, result
    assert result.stderr.count("\n") >= 1, result


def test_two_at_once(host):
    """A second pyleak is refused while the first one records; the first is not disturbed."""
    victim = host()
    with attach(victim.pid) as running:
        wait_hooked(victim.pid, running)
        assert_refused(pyleak("attach", victim.pid, "--engine", helpers.engine, "--duration", "1s", seconds=20))
        assert len(hook_words(victim.pid)) >= HOOKS
        victim.check()
        assert running.finish(signal.SIGTERM).status == 0
    victim.check()
    wait_clean(victim.pid, 1)


def test_detach_without_a_probe(host):
    """Nothing to remove: said in one line, and nothing changes."""
    victim = host()
    before = Trace(victim.pid)
    result = pyleak("detach", victim.pid)
    assert result.status in (0, 1), result
    assert result.stderr.count("\n") == 1 or result.status == 0, result
    assert not before.differences(victim.pid)
    victim.check()


def test_ending(one_python):
    """A process that is about to end has no memory any more, and is not called a thread of the kernel."""
    if helpers.engine != "inline":
        return  # who is asked is the same
    program = "import mmap; m = mmap.mmap(-1, 1 << 30); [m.__setitem__(i, 1) for i in range(0, 1 << 30, 4096)]; print('ready', flush=True); input()"
    said = set()
    for _ in range(3):
        with Victim(one_python, None, "-c", program) as victim:
            victim.process.kill()
            while victim.process.poll() is None:
                result = pyleak("doctor", victim.pid)
                said.update(line.split("program ")[-1].strip() for line in result.stdout.splitlines() if " no " in line)
                assert "thread of the kernel" not in result.stdout, result
