# SPDX-License-Identifier: MIT
"""Growth of the resident size that is in no row is named; in all, no more than a twentieth is not."""
import json
import os
import re
import signal
import struct
import time

import pytest

from helpers import PATIENCE, Pyleak, probe_maps, state, wait_hooked
from programs import Program, control, recorded

MIB = 1 << 20

PROGRAM = """
import ctypes, mmap, sqlite3, tempfile
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.calloc.restype = ctypes.c_void_p
libc.calloc.argtypes = [ctypes.c_size_t] * 2
libc.malloc.argtypes = [ctypes.c_size_t]
libc.syscall.restype = ctypes.c_long
kept = []
older = libc.calloc(64 << 20, 1)
def of_a_file(size):
    file = tempfile.NamedTemporaryFile(dir=sys.argv[1], suffix=".big")
    file.truncate(size)
    view = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    sum(view[::4096])
    kept.append((file, view))
def shared(size):
    view = mmap.mmap(-1, size)
    for at in range(0, size, 4096): view[at] = 1
    kept.append(view)
def by_itself(size):
    # As an allocator does that is linked in and asks the kernel: no function that could be hooked.
    at = libc.syscall(ctypes.c_long(%d), None, ctypes.c_size_t(size), ctypes.c_long(3), ctypes.c_long(0x22),
                      ctypes.c_long(-1), ctypes.c_long(0))
    ctypes.memset(at, 1, size)
def from_before(size):
    ctypes.memset(older, 1, size)
def unseen(size):
    # What ctypes calls is called by no library's word.
    for block in [libc.malloc(500) for i in range(size // 512)]: ctypes.memset(block, 1, 500)
def later(size):
    kept.append(bytes(size))  # at later
def written(size):
    ctypes.memset(id(kept[-1]) + 4096, 1, size - 8192)
def database(size):
    made = sqlite3.connect(":memory:")
    made.execute("create table t(x)")
    made.executemany("insert into t values(?)", (("x" * 1000,) for i in range(size // 1024)))
    kept.append(made)
def small(size):
    kept.append([bytes(100) for i in range(size // 144)])
def deep(depth):
    return list(map(deep, [depth - 1])) if depth else time.sleep(1000)
def stacks(size):
    for i in range(size >> 17): threading.Thread(target=deep, args=(250,), daemon=True).start()
    time.sleep(0.5)
command = meet("ready")
while True:
    name, size = command.split()
    globals()[name](int(size) << 20)
    command = meet("done")
""" % {"x86_64": 9, "aarch64": 222}.get(os.uname().machine, 9)


def tell(victim, *commands):
    for command in commands:
        victim.tell(command)
        assert victim.line(60) == "done"


# What is done, and the part of the growth that has most of it.
CASES = {"of_a_file 40": "files", "shared 40": "tracked", "by_itself 40": "mapped", "from_before 40": "mapped",
         "unseen 30": None, "later 40": None, "database 20": "tracked", "small 40": "tracked", "stacks 4": None}


@pytest.mark.parametrize("command", CASES)
def test_nearly_all_is_named(one_python, tmp_path, command):
    with Program(one_python, tmp_path, PROGRAM, tmp_path) as victim:
        with recorded(victim) as record:
            tell(victim, command)
    growth = record.document["account"]["growth"]
    # Where hardly anything grew, noise is what there is.
    assert abs(growth["unexplained"]) < max(0.05 * growth["rss"], 256 << 10), growth
    if CASES[command]:
        assert growth[CASES[command]] > 0.85 * (growth["rss"] - growth["pyleak"]), growth


@pytest.mark.alike
def test_all_at_once(python, tmp_path):
    """Together too, on each Python; but for one without a GIL, whose memory cannot be told from others'."""
    with Program(python, tmp_path, PROGRAM, tmp_path) as victim:
        with recorded(victim) as record:
            tell(victim, "of_a_file 20", "by_itself 20", "from_before 20", "unseen 10", "small 20")
    growth = record.document["account"]["growth"]
    if record.document["python"].endswith("t"):
        return
    assert growth["rss"] > 85 * MIB and abs(growth["unexplained"]) < 0.05 * growth["rss"], growth
    places = record.document["places"]
    (file,) = [place for place in places if place["kind"] == "file" and place["name"].endswith(".big")]
    assert abs(file["size"] - 20 * MIB) < MIB and file["droppable"]
    assert {"own": 20 * MIB, "large": 20 * MIB} == pytest.approx(
        {place["kind"]: place["size"] for place in places if place["kind"] in ("own", "large")}, abs=MIB), places


def test_comes_first(one_python, tmp_path):
    """Above the rows, in words; and no row fills the memory then."""
    with Program(one_python, tmp_path, PROGRAM, tmp_path) as victim:
        with Pyleak("diff", victim.pid, "--interval", "300ms", "--count", 5) as running:
            wait_hooked(victim.pid, running)
            while running.process.poll() is None:
                tell(victim, "of_a_file 4", "small 1")
                time.sleep(0.03)
            result = running.finish()
    assert result.status == 0, result
    text = re.split(r"^window 5 of 5.*\n", result.stdout, flags=re.MULTILINE)[-1]
    assert re.match(r"Most of the growth of \+[\d.]+ \wiB is in no row: \+[\d.]+ \wiB mapped files\n", text), result
    assert re.search(r"\nmapped file \S+\.big: \+[\d.]+ \wiB; the kernel can drop this, and read it again\n", text), text
    assert "fills" not in text


def test_while_hooks_are_planted(one_python, tmp_path):
    """That takes seconds where the machine is busy: what the process grows by meanwhile is not of the time that is told."""
    for _ in range(30):
        with Program(one_python, tmp_path, PROGRAM, tmp_path) as victim:
            with Pyleak("attach", victim.pid, "--duration", "500ms", "--format", "json") as running:
                deadline = time.monotonic() + 20
                while not probe_maps(victim.pid) and time.monotonic() < deadline:
                    pass
                os.kill(running.process.pid, signal.SIGSTOP)
                caught = state(victim.pid) not in "tT" and not mode(victim.pid)
                if caught:
                    tell(victim, "small 40")
                os.kill(running.process.pid, signal.SIGCONT)
                document = running.finish().json()
        if caught:
            break
    assert caught, "it was never stopped in between"
    growth = document["account"]["growth"]
    assert abs(growth["rss"]) < 4 * MIB and abs(growth["unexplained"]) < MIB, growth
    assert document["window_s"] < 1 + PATIENCE, document["window_s"]


def mode(pid):
    """0: the recorder is not armed, or not there yet."""
    try:
        return control(pid)["mode"]
    except (AssertionError, OSError, struct.error):
        return 0


def test_written_later(one_python, tmp_path):
    """What was allocated in an earlier window and is written to now is the line's that allocated it."""
    with Program(one_python, tmp_path, PROGRAM, tmp_path) as victim:
        with Pyleak("diff", victim.pid, "--interval", "400ms", "--count", 3, "--format", "json", "-n", 0) as running:
            wait_hooked(victim.pid, running)
            tell(victim, "later 40")
            documents = [json.loads(running.process.stdout.readline())]
            tell(victim, "written 40")
            documents += map(json.loads, running.finish().stdout.splitlines())
    touched = [(row["lineno"], row["touched"], row["size_diff"]) for document in documents for row in document["stats"]
               if row["touched"] > MIB]
    line = victim.lines["later"]
    assert touched == [(line, pytest.approx(40 * MIB, abs=MIB), 0)], touched
    grown = [document["account"]["growth"]["untouched"] for document in documents]
    assert max(grown) == pytest.approx(40 * MIB, abs=MIB), grown
