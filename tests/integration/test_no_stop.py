# SPDX-License-Identifier: MIT
"""A process is hooked and let go while it runs: nobody waits for anybody."""
import os
import re
import resource
import signal
import struct
import subprocess
import time

import pytest

import helpers
from helpers import PATIENCE, Trace, Victim, attach, leftovers, library, maps, pyleak, skip_here, wait_clean, wait_until



@pytest.fixture(autouse=True)
def inline():
    helpers.engine = "inline"

SPAWNER = r"""
import ctypes, os, sys, threading, time
fifo = sys.argv[1]
libc = ctypes.CDLL(None)
returned = []
def spawn():
    actions = ctypes.create_string_buffer(512)
    libc.posix_spawn_file_actions_init(actions)
    libc.posix_spawn_file_actions_addopen(actions, 5, fifo.encode(), os.O_RDONLY, 0)
    pid = ctypes.c_int()
    arguments = (ctypes.c_char_p * 2)(b"true", None)
    code = libc.posix_spawn(ctypes.byref(pid), b"/bin/true", actions, None, arguments, None)
    returned.append(time.monotonic())
    os.waitpid(pid.value, 0)
    if code:
        returned.append(code)
thread = threading.Thread(target=spawn)
thread.start()
print("ready", flush=True)
kept, rounds = [], 0
for line in sys.stdin:
    kept = [[rounds] * 20 for _ in range(1000)]
    rounds += 1
    print(repr(returned[0] if returned else None), flush=True)
"""


class Spawner(Victim):
    """A thread of it waits in posix_spawn(), whose child opens a FIFO that nobody writes to."""

    def __init__(self, python, path):
        self.fifo = str(path / "fifo")
        os.mkfifo(self.fifo)
        (path / "spawner.py").write_text(SPAWNER)
        super().__init__(python, str(path / "spawner.py"), self.fifo)
        wait_until(lambda: "D" in self.states(), 10, "a thread in vfork")

    def states(self):
        found = []
        for tid in os.listdir("/proc/%d/task" % self.pid):
            with open("/proc/%d/task/%s/stat" % (self.pid, tid)) as file:
                found.append(file.read().rsplit(")", 1)[1].split()[0])
        return found

    def returned(self):
        self.tell("?")
        answer = self.line()
        return None if answer == "None" else float(answer)

    def let_on(self):
        descriptor = os.open(self.fifo, os.O_WRONLY)
        os.close(descriptor)


@pytest.mark.alike
def test_vfork(python, tmp_path):
    """Hooked, recorded and let go of while one of its threads cannot be stopped by anybody."""
    with Spawner(python, tmp_path) as victim:
        before = Trace(victim.pid)
        with attach(victim.pid, "--duration", "700ms") as running:
            while running.process.poll() is None:
                assert victim.returned() is None
                time.sleep(0.05)
            result = running.finish()
        assert result.status == 0, result
        assert result.json()["stats"], result
        assert "D" in victim.states()
        assert not before.differences(victim.pid)
        victim.let_on()
        wait_until(victim.returned, 5, "the thread goes on")


@pytest.mark.alike
def test_vfork_ends(python, tmp_path):
    """The thread goes on at once when its child has gone on, while pyleak is there, and is not held by it."""
    with Spawner(python, tmp_path) as victim:
        with attach(victim.pid) as running:
            wait_until(lambda: len([m for m in maps(victim.pid) if m[0] >> 32 == 0x7079]) or None, 20, "a probe")
            victim.returned()
            began = time.monotonic()
            victim.let_on()
            wait_until(victim.returned, 5, "the thread goes on")
            assert victim.returned() - began < 0.5 * PATIENCE
            result = running.finish(signal.SIGTERM)
        assert result.status == 0, result
        assert not leftovers(victim.pid)


def words_of_ours(pid, ranges):
    with open("/proc/%d/mem" % pid, "rb", buffering=0) as memory:
        count = 0
        for start, end, _, _ in ranges:
            memory.seek(start)
            words = struct.unpack("<%dQ" % ((end - start) // 8), memory.read(end - start))
            count += sum(helpers.PROBE_FIRST <= word < helpers.PROBE_END for word in words)
    return count


def test_read_only(one_python, tmp_path):
    """Words in pages that are read-only after relocation are hooked, and the pages are read-only again at once."""
    script = tmp_path / "now.py"
    script.write_text("import ctypes, sys\nlibrary = ctypes.CDLL(sys.argv[1])\nprint('ready', flush=True)\n"
                      "for line in sys.stdin:\n    library.native_take(0, 64)\n    print('done', flush=True)\n")

    def mappings():
        return [m for m in maps(victim.pid) if "victim_native_now" in m[3]]

    with Victim(one_python, str(script), library("native_now")) as victim:
        before = mappings()
        relro = [m for m, after in zip(before, before[1:]) if m[2].startswith("r--") and after[2].startswith("rw-")]
        assert relro, before
        with attach(victim.pid) as running:
            wait_until(lambda: words_of_ours(victim.pid, relro) >= 5, 20, "hooked words in %s" % relro)
            wait_until(lambda: mappings() == before, 5, "read-only again")
            victim.tell("?")
            assert victim.line() == "done"
            result = running.finish(signal.SIGTERM)
        assert result.status == 0, result
        assert mappings() == before
        assert not words_of_ours(victim.pid, relro)
        victim.tell("?")
        assert victim.line() == "done"
        wait_clean(victim.pid, 1)


def test_thousand_threads(one_python, tmp_path):
    """Many threads, on a machine that has other things to do: each is seen, one after the other."""
    script = tmp_path / "threads.py"
    script.write_text("import sys, threading, time\nthreading.stack_size(65536)\nend = threading.Event()\n"
                      "threads = [threading.Thread(target=end.wait) for _ in range(1000)]\n"
                      "[thread.start() for thread in threads]\nprint('ready', flush=True)\n"
                      "while True:\n    kept = [[i] for i in range(1000)]\n    time.sleep(0.001)\n")
    burners = [subprocess.Popen([one_python, "-c", "while True: pass"]) for _ in range(4)]
    try:
        with Victim(one_python, str(script)) as victim:
            before = Trace(victim.pid)
            for _ in range(2):
                result = pyleak("attach", victim.pid, "--duration", "300ms", "--format", "json", "--verbose", seconds=60)
                assert result.status == 0, result
                assert result.json()["stats"]
                assert not re.search("cannot be", result.stderr), result
                assert not before.differences(victim.pid)
            assert victim.alive()
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


MANY = """
import sys, threading
threading.stack_size(65536)
end = threading.Event()
for _ in range(2000):
    threading.Thread(target=end.wait, daemon=True).start()
print("ready", flush=True)
kept = []
for line in sys.stdin:
    kept.append([[i] for i in range(1000)])
    print("done", flush=True)
"""


def test_held_for_half_a_millisecond(one_python):
    """With 2,000 threads too: what takes longer with their number (/proc/TID/stat adds up all of them) is not done while one of
    them is held. The best of some attaches: others may use the machine."""
    with Victim(one_python, None, "-c", MANY) as victim:
        held = []
        for _ in range(10):
            result = pyleak("attach", victim.pid, "--duration", "50ms", "--format", "json", seconds=60)
            assert result.status == 0, result
            held.append(result.json()["stop_ms"])
            if min(held) <= 0.5 * PATIENCE:
                break
        assert min(held) <= 0.5 * PATIENCE, held
        wait_clean(victim.pid, 1)
        victim.tell("?")
        assert victim.line() == "done"


GUARDED = """
import ctypes, os, sys, time
if ctypes.CDLL(sys.argv[1]).victim_start():
    print("none", flush=True)
print("ready", flush=True)
while True:
    kept = [[i] for i in range(1000)]
    time.sleep(0.001)
"""


def processor_time():
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def test_stacks_in_one_mapping(one_python):
    """Of each of 400 threads its own stack is looked at, and not those of its neighbours in the same mapping, which took 3 s of a
    processor, and of 4,000 threads minutes."""
    with Victim(one_python, None, "-c", GUARDED, library("guards"), ready=None) as victim:
        if victim.line() == "none":
            skip_here("guards")
        before, used = Trace(victim.pid), processor_time()
        result = pyleak("attach", victim.pid, "--duration", "200ms", "--format", "json", seconds=60)
        assert result.status == 0, result
        assert processor_time() - used < 0.5 * PATIENCE
        assert not before.differences(victim.pid)


NEWBORNS = """
import sys, threading, time
threading.stack_size(65536)
end = threading.Event()
print("ready", flush=True)
for _ in range(15000):
    threading.Thread(target=end.wait, daemon=True).start()
    time.sleep(0.0002)
end.wait()
"""


def test_newborns(one_python):
    """Threads are born all the time, each on a stack that may be newer than any look at what is mapped, on a machine on which
    each look takes its time."""
    burners = [subprocess.Popen([one_python, "-c", "while True: pass"]) for _ in range(6)]
    try:
        with Victim(one_python, None, "-c", NEWBORNS) as victim:
            for _ in range(3):
                result = pyleak("attach", victim.pid, "--duration", "200ms", "--format", "json", "--verbose", seconds=60)
                assert result.status == 0, result
                assert not leftovers(victim.pid)
            assert victim.alive()
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


RING = """
import ctypes, struct, sys
parameters = bytearray(120)
struct.pack_into("<II", parameters, 8, 2, 0)  # IORING_SETUP_SQPOLL
libc = ctypes.CDLL(None)
made = libc.syscall(425, 4, (ctypes.c_char * 120).from_buffer(parameters))
print("ready" if made >= 0 else "none", flush=True)
sys.stdin.readline()
"""


def test_a_thread_of_the_kernel(one_python):
    """io_uring's workers count among the threads of the process (uvloop has them): they never run its code, and cannot be
    looked at."""
    with Victim(one_python, None, "-c", RING, ready=None) as victim:
        if victim.line() == "none":
            skip_here("io_uring")
        if len(os.listdir("/proc/%d/task" % victim.pid)) < 2:
            skip_here("io_uring", "its workers are no threads of the process before Linux 5.12")
        before = time.monotonic()
        with attach(victim.pid, "--duration", 0.2) as running:
            result = running.finish()
        assert result.status == 0, result
        assert time.monotonic() - before < 5 * PATIENCE
        wait_clean(victim.pid, 1)


SEQUENCES = """
import ctypes, json, sys
library = ctypes.CDLL(sys.argv[1])
library.victim_broken.restype = ctypes.c_char_p
if library.victim_start():
    sys.exit("none")
print("ready", flush=True)
while True:
    library.rseq_serve()
    if not sys.stdin.readline():
        break
    broken = library.victim_broken()
    print(json.dumps({"rounds": [library.victim_rounds()], "broken": [], "library": [0, broken and broken.decode()]}), flush=True)
"""


@pytest.mark.long
def test_rseq(one_python):
    """No thread of it ever sleeps, one of them is to carry the calls, and each is in a restartable sequence nearly all the time:
    it must not go on where it was held, nor be sent elsewhere from there. 200 times with PYLEAK_CYCLES=200."""
    if not os.path.exists(library("rseq")):
        skip_here("rseq")
    with Victim(one_python, None, "-c", SEQUENCES, library("rseq"), ready=None) as victim:
        if victim.line() != "ready":
            skip_here("rseq")
        before = Trace(victim.pid)
        for _ in range(int(os.environ.get("PYLEAK_CYCLES", "10"))):
            result = pyleak("attach", victim.pid, "--duration", "20ms", "--format", "json")
            assert result.status == 0, result
            victim.check()
        assert not before.differences(victim.pid)


BUSY = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
print("ready", flush=True)
while True:
    kept = [[i] for i in range(1000)]
"""


def assert_anything_runs(processor, victim, process):
    """Else nobody is left there to end but who never sleeps."""
    try:
        return process.wait(30 * PATIENCE)
    except subprocess.TimeoutExpired:
        victim.process.kill()
        process.wait()
        raise AssertionError("nothing runs on processor %d any more" % processor) from None


@pytest.mark.parametrize("step", [None, 9, 15, 22, 29, 50, 78])
def test_nobody_starves(one_python, step):
    """A thread is lent our priority while it is held. With one processor, one that never sleeps kept it, and nothing else ran there any
    more: not even pyleak, nor what is left of it when it is killed."""
    processor = min(os.sched_getaffinity(0))
    there = ["taskset", "--cpu-list", str(processor)]
    with Victim(one_python, None, "-c", BUSY, processor) as victim:
        for _ in range(1 if step else 3):
            with attach(victim.pid, "--duration", "300ms", prefix=there,
                        environment={"PYLEAK_FAULT": str(step)} if step else None) as running:
                assert assert_anything_runs(processor, victim, running.process) == (-signal.SIGKILL if step else 0)
            with subprocess.Popen(there + ["true"]) as another:
                assert_anything_runs(processor, victim, another)
        assert victim.alive()
        wait_clean(victim.pid, 20)


SPINNERS = """
import hashlib, threading
def run():
    while True:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 1000000)
for _ in range(4):
    threading.Thread(target=run, daemon=True).start()
print("ready", flush=True)
run()
"""


def test_nobody_spins(one_python):
    """What lends the priority waited for a lock of a thread that ran, and the kernel let it spin until that thread slept: up to a second
    of two processors, now and then."""
    with Victim(one_python, None, "-c", SPINNERS) as victim:
        for _ in range(20):
            used = processor_time()
            assert pyleak("attach", victim.pid, "--duration", "50ms").status == 0
            assert processor_time() - used < 0.3 * PATIENCE
        wait_clean(victim.pid, 1)


def may_come_first():
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        return False
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return True


def turns(pid):
    """How often it slept, and what it has computed, in milliseconds."""
    with open("/proc/%d/status" % pid) as file:
        of = dict(line.split(":", 1) for line in file)
    with open("/proc/%d/schedstat" % pid) as file:
        computed = int(file.read().split()[0])
    return int(of["voluntary_ctxt_switches"]), computed / 1e6


def test_in_grains(one_python):
    """Where a processor is rare nobody takes a turn from those who wait for theirs (tests/bench/gaps.py has what they see of it): we
    compute in grains of a quarter of a millisecond, and while we wait, and of what we start, nothing comes first."""
    if not may_come_first():
        skip_here("realtime")
    burners = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(3 * len(os.sched_getaffinity(0)))]
    try:
        with Victim(one_python, None, "-c", MANY) as victim, attach(victim.pid, "--duration", "20s") as running:
            mine = running.process.pid
            wait_until(lambda: helpers.guardians(), 30, "a guardian")
            policies = set()
            wait_until(lambda: policies.add(os.sched_getscheduler(mine) & ~os.SCHED_RESET_ON_FORK) or len(policies) == 2, 30,
                       "grains, and an end of them")
            time.sleep(1)
            slept, computed = turns(mine)
            assert os.sched_getscheduler(mine) & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER
            # The start of a program is as that of any other: some turns.
            assert slept > computed - 15, (slept, computed)
            for guardian in helpers.guardians():
                assert os.sched_getscheduler(guardian) == os.SCHED_OTHER
            running.process.send_signal(signal.SIGINT)
            assert running.process.wait(60) == 0
            wait_clean(victim.pid, 1)
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
