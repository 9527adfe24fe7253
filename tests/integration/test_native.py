# SPDX-License-Identifier: MIT
"""Native allocators: every block at the line that asked for it, to the byte, and nothing left behind."""
import json
import os
import signal
import subprocess
import time

import pytest

import pythons
from helpers import (PYLEAK, VICTIMS, Pyleak, Trace, Victim, leftovers, library, line_of, native_words, needs_library, pyleak,
                     skip_here, status, wait_hooked, wait_until)

SCRIPT = VICTIMS / "native.py"
KINDS = ["malloc", "calloc", "realloc", "grown", "posix_memalign", "aligned_alloc", "memalign", "valloc",
         "by_reallocarray", "mmap", "mremap"]
LINES = [line_of(SCRIPT, "# line: %s" % kind) for kind in KINDS]
ALLOCATORS = {"jemalloc": "libjemalloc.so.2", "tcmalloc": "libtcmalloc_minimal.so.4", "mimalloc": "libmimalloc.so.2"}

# One of each way to tell which thread runs: up to 3.11, since 3.12, without a GIL; the distribution's is stripped.
FEW = [entry for entry in pythons.pythons() if not entry.root and
       (entry.executable.startswith("/usr/bin/") or entry.version[:2] in ((3, 6), (3, 12)) or entry.free_threaded)]
few_pythons = pytest.mark.parametrize("python", [entry.executable for entry in FEW], ids=map(pythons.label, FEW))


def native(python, **keywords):
    if pythons.of(python).root:
        needs_library(python, "native")
    return Victim(python, "native.py", library("native"), **keywords)


def read(pid, *arguments):
    result = pyleak("attach", pid, "--duration", "20ms", "--format", "json", "--limit", 0, *arguments)
    assert result.status == 0, result
    return result.json()


def figures(document, domain="native", name="native.py"):
    """{line: (size, count)} of a file."""
    return {row["lineno"]: (row["size"], row["count"]) for row in document["stats"]
            if row["domain"] == domain and os.path.basename(row["filename"]) == name}


def keep(pid, *arguments):
    result = pyleak("attach", pid, "--keep", *arguments)
    assert result.status == 0, result


def detach(victim):
    assert pyleak("detach", victim.pid).status == 0
    assert not leftovers(victim.pid)


def assert_exact(victim, count=200):
    before = figures(read(victim.pid))
    sizes = victim.ask("take %d" % count)
    after = read(victim.pid)
    found = figures(after)
    for line, size, kind in zip(LINES, sizes, KINDS):
        live = tuple(a - b for a, b in zip(found.get(line, (0, 0)), before.get(line, (0, 0))))
        assert live == (size, count), (kind, live, size)
    rows = {row["lineno"]: row for row in after["stats"] if row["domain"] == "native" and row["lineno"] in LINES}
    called = set()
    for line in LINES:
        caller = rows[line]["native"]
        assert os.path.basename(caller["module"]) == "victim_native.so" and caller["symbol"] == "native_take", caller
        # By its DWARF also the line of C.
        assert os.path.basename(caller["filename"]) == "native.c", caller
        called.add(open(os.path.join(VICTIMS, "native.c")).read().splitlines()[caller["lineno"] - 1].strip())
    assert {"return malloc(size);", "return calloc(size / 8, 8);", "return valloc(size);"} <= called, called
    victim.ask("drop")
    found = figures(read(victim.pid))
    assert all(found.get(line, (0, 0)) == before.get(line, (0, 0)) for line in LINES), found
    assert after["lost"] == {"events": 0, "sites": 0}


def test_exact(python):
    with native(python) as victim:
        before = Trace(victim.pid)
        keep(victim.pid)
        assert_exact(victim)
        assert victim.ask("errno") == 0
        assert victim.ask("fork") == 42
        detach(victim)
        assert not before.differences(victim.pid)
        victim.ask("take 10")
        victim.ask("drop")


@few_pythons
def test_domains(python):
    """Python's own blocks are not native ones, though they come from malloc; python plants nothing in libraries."""
    with native(python) as victim:
        keep(victim.pid)
        victim.ask("python 300")
        victim.ask("take 50")
        line = line_of(SCRIPT, "# line: python")
        document = read(victim.pid)
        assert line not in figures(document)
        size, count = figures(document, "python")[line]
        assert count in range(300, 303) and size >= 300 * 5000
        assert figures(document, "python")[LINES[0]][0] <= 50 * 48  # the addresses, as ints
        for domain in "python", "native":
            assert {row["domain"] for row in read(victim.pid, "--domain", domain)["stats"]} == {domain}
        detach(victim)
        victim.ask("drop")
        keep(victim.pid, "--domain", "python")
        assert not [word for word in native_words(victim.pid) if is_library(victim.pid, word)]
        victim.ask("take 10")
        assert not figures(read(victim.pid))
        detach(victim)
    result = pyleak("diff", 1, "--engine", "breakpoint", "--domain", "native")
    assert result.status == 2 and result.stderr.startswith("pyleak: --domain native needs --engine inline"), result


def is_library(pid, address):
    with open("/proc/%d/maps" % pid) as file:
        for line in file:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if start <= address < end:
                return "victim_native" in line
    return False


@few_pythons
def test_threads_without_python(python):
    """They are charged to the function that asked; their stacks have 16 KiB."""
    with native(python) as victim:
        keep(victim.pid)
        assert victim.ask("threads 8 500 700") == 0
        rows = [row for row in read(victim.pid)["stats"] if row["function"] == "native_keep"]
        assert [(row["domain"], os.path.basename(row["filename"]), row["lineno"], row["size"], row["count"])
                for row in rows] == [("native", "victim_native.so", 0, 8 * 500 * 700, 8 * 500)]
        victim.ask("threads_drop")
        assert not [row for row in read(victim.pid)["stats"] if row["function"] == "native_keep" and row["size"]]
        detach(victim)


def assert_taken(victim, count):
    """So many blocks of 1000 bytes, all at line 8 of the program, in take()."""
    found = [row for row in read(victim.pid)["stats"] if row.get("native", {}).get("symbol") == "native_take"]
    assert [(row["filename"], row["lineno"], row["size"], row["count"], row["function"]) for row in found] == [
        ("<string>", 8, count * 1000, count, "take")], found


@pytest.mark.alike
def test_first_thread_without_the_gil(python):
    """It has let go of the GIL when it allocates, as in numpy.zeros(): the line all the same. After the interpreter has
    ended it allocates on."""
    if pythons.of(python).root:
        needs_library(python, "native")
    with Victim(python, None, "-c", DETACHED % library("native")) as victim:
        keep(victim.pid)
        victim.tell("go")
        assert victim.line() == "taken"
        assert_taken(victim, 500)
        victim.tell("go")
        assert victim.line() == "ends"
        assert victim.process.wait(30) == 0


DETACHED = """
import ctypes, sys, threading
library = ctypes.CDLL(%r)
library.native_take.restype = ctypes.c_void_p
library.native_take.argtypes = [ctypes.c_int, ctypes.c_size_t]
kept = []
def take():
    for _ in range(500): kept.append(library.native_take(0, 1000))
def others():
    while True:
        bytes(5000)
        [object() for _ in range(20)]
print("ready", flush=True)
sys.stdin.readline()
threading.Thread(target=others, daemon=True).start()
take()
print("taken", flush=True)
sys.stdin.readline()
print("ends", flush=True)
"""


@pytest.mark.alike
def test_workers_without_the_gil(python):
    """The same for other threads, which come and go, one at the place of another."""
    if pythons.of(python).root:
        needs_library(python, "native")
    with Victim(python, None, "-c", WORKERS % library("native")) as victim:
        keep(victim.pid)
        victim.tell("go")
        assert victim.line(60) == "taken"
        assert_taken(victim, 4 * 30 * 25)
        detach(victim)


WORKERS = """
import ctypes, sys, threading
library = ctypes.CDLL(%r)
library.native_take.restype = ctypes.c_void_p
library.native_take.argtypes = [ctypes.c_int, ctypes.c_size_t]
kept = []
def take():
    for _ in range(25): kept.append(library.native_take(0, 1000))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(30):
    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
print("taken", flush=True)
sys.stdin.readline()
"""


@pytest.mark.alike
@pytest.mark.parametrize("domain", ["all", "python"])
def test_raw_domain_without_the_gil(python, domain):
    """Python's own raw allocator, which some modules call without the GIL: as tracemalloc has it."""
    with Victim(python, None, "-c", UNPACKS % "tracemalloc.start()") as victim:
        victim.tell("go")
        if victim.line() == "lacks it":
            skip_here("module", "lzma in %s" % python)
        expected = json.loads(victim.line())
    assert expected[1] >= 40
    with Victim(python, None, "-c", UNPACKS % "pass") as victim:
        keep(victim.pid, "--domain", domain)
        victim.tell("go")
        assert victim.line() == "has it" and victim.line()
        found = {row["lineno"]: [row["size"], row["count"]] for row in read(victim.pid)["stats"]
                 if row["domain"] == "python" and row["filename"] == "<string>" and row["function"] == "unpack"}
        if domain == "python" and pythons.of(python).version >= (3, 11):
            # Only of the first thread: where no native hooks see mappings go, frames of others are not looked at.
            expected = [expected[0] // 2, expected[1] // 2]
        assert found[12] == expected
        detach(victim)


UNPACKS = """
import json, sys, threading, tracemalloc
try:
    import lzma
except ImportError:
    lzma = None
packed = lzma and lzma.compress(bytes(1000000))[:200]
kept = []
def unpack():
    for _ in range(10):
        kept.append(lzma.LZMADecompressor())
        kept[-1].decompress(packed)
print("ready", flush=True)
sys.stdin.readline()
print("has it" if lzma else "lacks it", flush=True)
%s
if lzma:
    unpack()
    thread = threading.Thread(target=unpack)
    thread.start()
    thread.join()
found = [s for s in tracemalloc.take_snapshot().statistics("lineno") if s.traceback[0].lineno == 12] \\
    if tracemalloc.is_tracing() else []
print(json.dumps([sum(s.size for s in found), sum(s.count for s in found)]), flush=True)
sys.stdin.readline()
"""


@pytest.mark.long
def test_workers_while_the_interpreter_ends(python):
    """Daemon threads allocate on without the GIL while the interpreter takes their thread states and their frames away.
    They never want the GIL again: those of 3.10 that do crash now and then by themselves, in take_gil()."""
    if pythons.of(python).root:
        needs_library(python, "native")
    for round_ in range(8):
        with Victim(python, None, "-c", DAEMONS % library("native")) as victim:
            keep(victim.pid, "--frames", 16 if round_ % 2 else 1)
            victim.tell("go")
            if not round_:
                wait_until(lambda: [row for row in read(victim.pid)["stats"] if row["function"] == "work"
                                    and row.get("native", {}).get("symbol") == "native_take_many"], 10, "they allocate")
            victim.tell("end")
            assert victim.process.wait(30) == 0


DAEMONS = """
import ctypes, sys, threading
library = ctypes.CDLL(%r)
def work(depth):
    if depth: return work(depth - 1)
    library.native_churn()
print("ready", flush=True)
sys.stdin.readline()
for depth in (0, 3, 10, 40, 300):
    threading.Thread(target=work, args=(depth,), daemon=True).start()
sys.stdin.readline()
"""


@few_pythons
def test_with_the_gil_and_without(python):
    """Threads that keep the GIL while they free, and threads that let go of it, all of blocks from one line: whoever has
    the GIL adds to totals of its own, and none is lost."""
    with Victim(python, None, "-c", BOTH % library("native")) as victim:
        keep(victim.pid)
        victim.tell("go")
        assert victim.line(120) == "done"
        rows = [row for row in read(victim.pid)["stats"] if row.get("native", {}).get("symbol") == "native_take_many"]
        assert [(row["filename"], row["size"], row["count"]) for row in rows] == [("<string>", 0, 0)], rows
        assert rows[0]["allocated"] == rows[0]["freed"] == {"size": 4 * 200 * 2000 * 40, "count": 4 * 200 * 2000}, rows
        detach(victim)


BOTH = """
import ctypes, sys, threading
sys.setswitchinterval(1e-5)
kinds = [kind(%r) for kind in (ctypes.PyDLL, ctypes.CDLL)]
for library in kinds:
    library.native_take_many.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    library.native_drop_many.argtypes = [ctypes.c_void_p, ctypes.c_int]
def work(number):
    blocks = (ctypes.c_void_p * 2000)()
    for i in range(200):
        kinds[i %% 2].native_take_many(blocks, 2000, 40)
        kinds[(i // 2 + number) %% 2].native_drop_many(blocks, 2000)
print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("done", flush=True)
sys.stdin.readline()
"""


@few_pythons
def test_freed_from_before(python):
    with native(python) as victim:
        sizes = victim.ask("take 100")
        keep(victim.pid)
        start = read(victim.pid)["freed_before"]
        victim.ask("drop")
        document = read(victim.pid)
        freed = {key: document["freed_before"][key] - start[key] for key in start}
        # Of mappings from before nothing is known; glibc knows the size of a block, which it has rounded up.
        assert 900 <= freed["count"] <= 910
        assert sum(sizes[:9]) <= freed["size"] <= 1.1 * sum(sizes[:9])
        assert "older blocks freed: size=" in pyleak("attach", victim.pid, "--duration", "20ms").stdout
        detach(victim)


@few_pythons
def test_library_loaded_later(python):
    """One that comes while the process is recorded is hooked; so is one that came while nobody looked."""
    with Victim(python, None, "-c", LATER % library("native")) as victim:
        with Pyleak("attach", victim.pid, "--keep") as running:
            assert running.finish(None).status == 0
        victim.tell("load")
        assert victim.line() == "loaded"
        read(victim.pid)  # looks for libraries when it begins
        victim.tell("take")
        assert victim.line() == "taken"
        found = [row for row in read(victim.pid)["stats"] if row["domain"] == "native" and row["size"] == 100 * 1000]
        assert len(found) == 1 and found[0]["count"] == 100, found
        detach(victim)
    with Victim(python, None, "-c", LATER % library("native")) as victim:
        with Pyleak("attach", victim.pid, "--format", "json", "--limit", 0) as running:
            wait_hooked(victim.pid, running)
            time.sleep(0.2)
            victim.tell("load")
            assert victim.line() == "loaded"
            wait_until(lambda: [w for w in native_words(victim.pid) if is_library(victim.pid, w)], 5, "it is hooked")
            time.sleep(0.2)
            victim.tell("take")
            assert victim.line() == "taken"
            document = running.finish(signal.SIGINT).json()
        found = [row for row in document["stats"] if row["domain"] == "native" and row["size"] == 100 * 1000]
        assert len(found) == 1 and found[0]["count"] == 100, found
        assert not leftovers(victim.pid)


LATER = """
import ctypes, sys
print("ready", flush=True)
sys.stdin.readline()
library = ctypes.PyDLL(%r)
library.native_take.restype = ctypes.c_void_p
library.native_take.argtypes = [ctypes.c_int, ctypes.c_size_t]
print("loaded", flush=True)
sys.stdin.readline()
kept = [library.native_take(0, 1000) for _ in range(100)]
print("taken", flush=True)
sys.stdin.readline()
"""


def preloaded(name):
    """The environment for a program that brings this allocator along."""
    path = os.path.join("/usr/lib/x86_64-linux-gnu", ALLOCATORS[name])
    if not os.path.exists(path):
        skip_here("allocator", name)
    return dict(os.environ, LD_PRELOAD=path)


@pytest.mark.parametrize("allocator", ALLOCATORS)
@few_pythons
def test_allocator_of_the_programs_own(python, allocator):
    """Its malloc is the real one; what it maps for itself is not data."""
    with native(python, env=preloaded(allocator)) as victim:
        keep(victim.pid)
        words = native_words(victim.pid)
        assert_exact(victim)
        # Whoever goes on with the probe knows whose malloc() it is, and leaves that object's own mappings alone.
        assert native_words(victim.pid) == words
        callers = {os.path.basename(row["native"]["module"]) for row in read(victim.pid)["stats"] if "native" in row}
        assert not [name for name in callers if allocator in name], callers
        assert victim.ask("fork") == 42
        detach(victim)


@pytest.mark.alike
def test_words_that_the_dynamic_linker_has_yet_to_fill(python):
    """Of libc, which defines what it calls so: setenv() is the first there to call realloc(). Its hook stays, and the
    next one, which goes on with the probe, adds none."""
    with Victim(python, None, "-c", SETS) as victim:
        keep(victim.pid)
        words = native_words(victim.pid)
        for _ in range(2):
            victim.tell("go")
            assert victim.line() == "set"
            assert native_words(victim.pid) == words
            read(victim.pid)
            assert native_words(victim.pid) == words
        detach(victim)
        victim.tell("go")
        assert victim.line() == "set"


SETS = """
import os, sys
print("ready", flush=True)
for i, line in enumerate(sys.stdin):
    for k in range(100): os.putenv("PYLEAK_TEST_%d_%d" % (i, k), "x" * k)
    print("set", flush=True)
"""


@pytest.mark.parametrize("allocator", [None, "jemalloc", "tcmalloc"])
def test_cplusplus_without_memory(one_python, allocator):
    """operator new throws, and whoever called it catches that. (That of mimalloc ends the process by itself.)"""
    if not os.path.exists(library("maps")):
        skip_here("c++")
    with Victim(one_python, None, "-c", TOO_LARGE % library("maps"), env=allocator and preloaded(allocator)) as victim:
        keep(victim.pid)
        victim.tell("go")
        assert victim.line() == "caught"
        victim.tell("go")
        assert victim.process.wait(10) == 0


TOO_LARGE = """
import ctypes, sys
library = ctypes.PyDLL(%r)
library.maps_too_large.argtypes = [ctypes.c_size_t]
print("ready", flush=True)
sys.stdin.readline()
for i in range(100): assert library.maps_too_large(1 << 62) == 1 and library.maps_too_large(1000) == 0
print("caught", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("allocator", [None] + list(ALLOCATORS))
def test_cplusplus(one_python, allocator):
    """Nodes of a map: 32 bytes of links and color, and two ints. With an allocator that has an operator new of its own
    the word of that is hooked, and the extension itself is the caller."""
    if not os.path.exists(library("maps")):
        skip_here("c++")
    with Victim(one_python, None, "-c", MAPS % library("maps"), env=allocator and preloaded(allocator)) as victim:
        keep(victim.pid)
        victim.tell("go")
        assert victim.line() == "kept"
        rows = [row for row in read(victim.pid)["stats"] if row["domain"] == "native" and row["lineno"] == 6]
        size, count = sum(row["size"] for row in rows), sum(row["count"] for row in rows)
        assert 10000 * 40 <= size <= 10000 * 40 + 100 and count in (10001, 10002), rows
        if allocator:
            assert os.path.basename(rows[0]["native"]["module"]) == "victim_maps.so", rows
        victim.tell("go")
        assert victim.line() == "dropped"
        document = read(victim.pid)
        assert not [row for row in document["stats"] if row["domain"] == "native" and row["size"] > 1000], document
        detach(victim)


MAPS = """
import ctypes, sys
library = ctypes.PyDLL(%r)
print("ready", flush=True)
sys.stdin.readline()
library.maps_keep(10000)
print("kept", flush=True)
sys.stdin.readline()
library.maps_drop()
print("dropped", flush=True)
sys.stdin.readline()
"""


def test_numpy():
    """The line that holds the data of arrays, to the byte; numpy lets go of the GIL where it wants zeros."""
    if subprocess.run(["/usr/bin/python3", "-c", "import numpy"], stderr=subprocess.DEVNULL, check=False).returncode:
        skip_here("numpy")
    with Victim("/usr/bin/python3", None, "-c", ARRAYS) as victim:
        with Pyleak("diff", victim.pid, "--interval", "1s", "--format", "json") as running:
            wait_hooked(victim.pid, running)
            victim.tell("go")
            document = running.finish(None).json()
        top = [row for row in document["stats"] if row["domain"] == "native"][0]
        assert top["filename"] == "<string>" and top["lineno"] == 7, top
        assert top["size"] == 100 * 8 * 12345 and top["count"] == 100, top
        zeros = [row for row in document["stats"] if row["domain"] == "native" and row["lineno"] == 10]
        assert [(row["size"], row["count"]) for row in zeros] == [(50 * 8 * 12345, 50)], document["stats"]
        assert "_multiarray_umath" in top["native"]["module"]
        assert not leftovers(victim.pid)


def test_libraries_are_not_brought_into_memory():
    """Of the code of OpenBLAS, 32 MiB, a process has in memory what it runs; that pyleak looks for words to hook, and
    for instructions to use, is no reason for more."""
    if subprocess.run(["/usr/bin/python3", "-c", "import numpy"], stderr=subprocess.DEVNULL, check=False).returncode:
        skip_here("numpy")
    with Victim("/usr/bin/python3", None, "-c", ARRAYS) as victim:
        before = int(status(victim.pid)["RssFile"].split()[0])
        read(victim.pid)
        assert int(status(victim.pid)["RssFile"].split()[0]) - before < 1 << 10


ARRAYS = """
import numpy, sys, time
print("ready", flush=True)
sys.stdin.readline()
kept = []
for i in range(100):
    kept.append(numpy.empty(12345))
    time.sleep(0.001)
    numpy.zeros(54321)
    if i % 2: kept.append(numpy.zeros(12345))
sys.stdin.readline()
"""


@few_pythons
def test_killed_at_any_step(python):
    """Some of the steps of planting, of extending and of removing: what is left is removed by the next."""
    with native(python) as victim:
        for _ in range(2): # the first one makes the landing page
            output = pyleak("attach", victim.pid, "--duration", "50ms", "--verbose").stderr
        steps = int(output.split(" ptrace steps")[0].split()[-1])
        for step in range(1, steps, max(1, steps // 25)):
            environment = dict(os.environ, PYLEAK_FAULT=str(step), PYLEAK_GUARDIAN="off")
            result = subprocess.run([PYLEAK, "attach", str(victim.pid), "--duration", "50ms"], env=environment,
                                    capture_output=True, check=False, timeout=60)
            # How often a thread is held anew depends on how fast it goes: some of the last steps may not be reached.
            assert result.returncode == -signal.SIGKILL or result.returncode == 0 and step > steps * 2 // 3, (step, result)
            victim.ask("take 20")
            victim.ask("drop")
            assert victim.ask("threads 2 50 300") == 0
            victim.ask("threads_drop")
            detach(victim)
            victim.ask("take 20")
            victim.ask("drop")


def test_killed_while_an_operator_new_is_hooked(one_python):
    """At steps of hooking a C++ library that came later, and of removal, whose operator new is the allocator's and throws."""
    if not os.path.exists(library("maps")):
        skip_here("c++")
    step = 0
    while step < 2000:
        step += 1 + step // 30
        with Victim(one_python, None, "-c", COMES % library("maps"), env=preloaded("jemalloc")) as victim:
            keep(victim.pid)
            victim.tell("go")
            assert victim.line() == "loaded"
            environment = dict(os.environ, PYLEAK_FAULT=str(step), PYLEAK_GUARDIAN="off")
            result = subprocess.run([PYLEAK, "attach", str(victim.pid), "--duration", "200ms"], env=environment,
                                    capture_output=True, check=False, timeout=60)
            victim.tell("go")
            assert victim.line() == "caught", step
            detach(victim)
            victim.tell("go")
            assert victim.line() == "caught", step
        if result.returncode == 0:
            break
    assert result.returncode == 0 and step > 5, (step, result)


COMES = """
import ctypes, sys
print("ready", flush=True)
sys.stdin.readline()
library = ctypes.PyDLL(%r)
library.maps_too_large.argtypes = [ctypes.c_size_t]
print("loaded", flush=True)
while sys.stdin.readline():
    for i in range(100): assert library.maps_too_large(1 << 62) == 1 and library.maps_too_large(1000) == 0
    print("caught", flush=True)
"""


def test_killed_while_libraries_come(one_python):
    """Steps behind those of planting: most are of the stops in which a library that has come is hooked."""
    with Victim(one_python, "host.py", "--light", "--threads", 2, "--pause", 0.001, "--library", library("loader")) as victim:
        output = pyleak("attach", victim.pid, "--duration", "20ms", "--verbose").stderr
        steps = int(output.split(" ptrace steps")[0].split()[-1])
        killed = 0
        for step in range(steps, steps + 100, 12):
            environment = dict(os.environ, PYLEAK_FAULT=str(step), PYLEAK_GUARDIAN="off")
            result = subprocess.run([PYLEAK, "attach", str(victim.pid), "--duration", "2s"], env=environment,
                                    capture_output=True, check=False, timeout=60)
            killed += result.returncode == -signal.SIGKILL
            victim.check()
            detach(victim)
            victim.check()
        assert killed >= 3
