# SPDX-License-Identifier: MIT
"""What the integration and torture tests share: pyleak itself, victims, and the look for traces.

PYLEAK_BUILD is the build directory to test (default: build).
"""
import itertools
import json
import os
import pathlib
import re
import select
import struct
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("PYLEAK_BUILD", ROOT / "build")).resolve()
PYLEAK = str(BUILD / "pyleak")
VICTIMS = ROOT / "tests" / "victims"
# A sanitized pyleak is several times slower, and so is a machine that builds beside the tests.
PATIENCE = float(os.environ.get("PYLEAK_PATIENCE", "1"))


def addresses_end():
    """How far a program's addresses go on this kernel, more or less: near it is the stack."""
    with open("/proc/self/maps") as file:
        return max(int(line.split("-")[1].split()[0], 16) for line in file if "[vsyscall]" not in line)


# Where a probe may be mapped, 16 MiB apart, and the first of its tables: include/pyleak/probe.h; where the page may be that
# stays: landing.h. Where addresses have 39 or 42 bits, as kernels for arm64 may be built, there are other places.
PROBE_STEP = 0x1000000
if addresses_end() > 0x70796C000000:
    PROBE_FIRST, PROBE_PLACES, LANDING_FIRST, TABLES_FIRST, TABLES_STEP = (
        0x70796C000000, 16, 0x70797E000000, 0x707A00000000, 0x4000000000)
else:
    PROBE_FIRST, PROBE_PLACES, LANDING_FIRST, TABLES_FIRST, TABLES_STEP = (
        0x20796C0000, 8, 0x20F0000000, 0x2100000000, 0x500000000)
PROBE_END = PROBE_FIRST + PROBE_STEP * PROBE_PLACES
# Its words follow after the largest page that a kernel may have here (PL_PAGE_MAX).
PAGE_MAX = 0x10000 if os.uname().machine == "aarch64" else 0x1000
LANDING_STEP, LANDING_PLACES = max(0x10000, 2 * PAGE_MAX), 4
LANDING_END = LANDING_FIRST + LANDING_STEP * LANDING_PLACES
TABLES_END = TABLES_FIRST + TABLES_STEP * PROBE_PLACES
HOOKS = 12  # malloc, calloc, realloc, free of the raw, mem and obj domains; an engine may add types' tp_dealloc

ENGINES = os.environ.get("PYLEAK_ENGINES", "breakpoint inline").split()
engine = ENGINES[0]  # the one that is tested now; the fixture of this name sets it


MAY_LACK = {
    "gdb": "no gcore",
    "realtime": "no right to SCHED_FIFO",
    "user": "this needs root, to become another user",
    "pythons": "this needs a Python that is not on this machine",
    "namespaces": "a PID namespace of its own may not be made here",
    "c++": "there is no C++ compiler",
    "cgroup": "no cgroup with a limit of memory may be made here",
    "allocator": "this allocator is not installed",
    "numpy": "python3-numpy is not installed",
    "libraries": "python3-flask, -sqlalchemy, -pandas or -matplotlib is not installed",
    "numerics": "python3-numpy, python3-pandas or python3-pil is not installed",
    "io_uring": "the kernel refuses io_uring",
    "fish": "fish is not installed",
    "scan": "the kernel is older than 6.7, and cannot say what is in memory of a large range",
    "chromium": "chromium is not installed",
    "prometheus": "prometheus is not installed",
    "memlab": "memlab is not installed: npm install --prefix ~/.cache/pyleak-npm --ignore-scripts @memlab/heap-analysis",
    "devtools": "DevTools' sources are not there: npm install --prefix ~/.cache/pyleak-npm --ignore-scripts chrome-devtools-frontend esbuild",
    "go": "there is no go, for go tool pprof",
    "zstd": "zstd is not installed",
    "script": "script is not installed",
    "strace": "strace is not installed",
    "man": "man is not installed",
    "libc": "the C library of this Python's root is older than the victims",
    "matplotlib": "matplotlib is not installed",
    "wheels": "the package index gave no wheels for this Python",
    "cython": "cython3 is not installed",
    "greenlet": "python3-greenlet is not installed",
    "uwsgi": "uwsgi and its plugin for Python 3 are not installed",
    "module": "a module of the standard library is missing",
    "libpython": "this Python has no shared libpython",
    "celery": "python3-celery is not installed",
    "services": "flask, gunicorn or pandas is not installed for this Python",
    "rseq": "restartable sequences: x86-64 and Linux 4.18",
    "mdwe": "the kernel is older than 6.3, and has no PR_SET_MDWE",
    "guards": "the kernel is older than 6.13, and has no MADV_GUARD_INSTALL",
    "32-bit": "32-bit programs do not build or run here",
}


def skip_here(lacks, detail=""):
    """The one way for a test to skip itself: see conftest.py."""
    pytest.skip("may skip: %s%s" % (MAY_LACK[lacks], " (%s)" % detail if detail else ""))


def library(name):
    return str(BUILD / "tests" / "victims" / ("victim_%s.so" % name))


def needs_library(python, name):
    """A victim's shared object is linked with this machine's C library: one in a root may be older."""
    result = subprocess.run([python, "-c", "import ctypes, sys; ctypes.PyDLL(sys.argv[1])", library(name)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if result.returncode and b"version `GLIBC_" in result.stderr:
        skip_here("libc", python)


def wait_until(condition, seconds, what):
    """Returns the first true value of condition(); fails the test when there is none in time."""
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError("not within %g s: %s" % (seconds * PATIENCE, what))
        time.sleep(0.01)


# -- processes -------------------------------------------------------------------------------------

def status(pid, tid=None):
    """/proc/PID/status as a dict; empty when there is no such process."""
    path = "/proc/%d/status" % pid if tid is None else "/proc/%d/task/%d/status" % (pid, tid)
    try:
        with open(path) as file:
            return dict((line.split(":", 1)[0], line.split(":", 1)[1].strip()) for line in file if ":" in line)
    except (FileNotFoundError, ProcessLookupError):
        return {}


def state(pid):
    return status(pid).get("State", "gone")[:1]


def threads(pid):
    try:
        return sorted(int(name) for name in os.listdir("/proc/%d/task" % pid))
    except FileNotFoundError:
        return []


class Victim:
    """A Python (or another program) that a test attaches to; killed at the end of the with block."""

    def __init__(self, python, script="host.py", *arguments, ready="ready", **keywords):
        command = [python] + ([str(VICTIMS / script)] if script else []) + [str(a) for a in arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **keywords)
        self.pid = self.process.pid
        self.buffer = b""
        if ready:
            try:
                assert self.line() == ready
            except BaseException:
                self.end()
                raise

    def line(self, seconds=30):
        deadline = time.monotonic() + seconds * PATIENCE
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise AssertionError("the victim says nothing (state %s)" % state(self.pid))
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise AssertionError("the victim has ended: %s" % self.process.wait())
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode()

    def tell(self, command):
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, command, seconds=30):
        self.tell(command)
        return json.loads(self.line(seconds))

    def check(self, seconds=20):
        """Asserts that the victim is alive, right, and gets on."""
        before = self.ask("check", seconds)
        deadline = time.monotonic() + seconds * PATIENCE
        while True:
            now = self.ask("check", seconds)
            assert not now["broken"], now["broken"]
            assert not now["library"] or not now["library"][1], now["library"][1]
            if all(new > old for new, old in zip(now["rounds"], before["rounds"])):
                return now
            assert time.monotonic() < deadline, "a thread stands still: %s, %s" % (before, now)
            time.sleep(0.01)

    def alive(self):
        return self.process.poll() is None

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


# -- pyleak ----------------------------------------------------------------------------------------

class Result:
    def __init__(self, process, stdout, stderr):
        self.status = process.returncode
        self.stdout = stdout.decode()
        self.stderr = stderr.decode()
        for mark in ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:"):
            assert mark not in self.stderr, self.stderr

    def json(self):
        """The last document."""
        assert self.stdout.strip(), "no report; stderr: " + self.stderr
        return json.loads(self.stdout.splitlines()[-1])

    def __repr__(self):
        return "status %d\n-- stdout\n%s\n-- stderr\n%s" % (self.status, self.stdout[:4000], self.stderr[:4000])


class Pyleak:
    """A pyleak that runs beside the test; finish() waits for it, or ends it by a signal first."""

    def __init__(self, *arguments, prefix=(), environment=None, **keywords):
        env = dict(os.environ, **(environment or {}))
        keywords.setdefault("stdin", subprocess.DEVNULL)
        self.process = subprocess.Popen(list(prefix) + [PYLEAK] + [str(a) for a in arguments], env=env,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **keywords)
        self.pid = self.process.pid

    def finish(self, signal=None, seconds=60):
        if signal is not None and self.process.poll() is None:
            self.process.send_signal(signal)
        try:
            stdout, stderr = self.process.communicate(timeout=seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            stdout, stderr = self.process.communicate()
            raise AssertionError("pyleak did not end: %r" % Result(self.process, stdout, stderr))
        return Result(self.process, stdout, stderr)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def pyleak(*arguments, seconds=60, **keywords):
    with Pyleak(*arguments, **keywords) as running:
        return running.finish(seconds=seconds)


def attach(pid, *arguments, **keywords):
    return Pyleak("attach", pid, "--engine", engine, "--format", "json", *arguments, **keywords)


def assert_refused(result, *words):
    """A refusal is one line that says why, nothing on stdout, and status 1."""
    assert result.status == 1, result
    assert result.stdout == "", result
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result
    for word in words:
        assert re.search(word, lines[0], re.I), "%r is not in: %s" % (word, lines[0])


# -- traces ----------------------------------------------------------------------------------------

def maps(pid):
    """(start, end, permissions, name) of each mapping."""
    result = []
    with open("/proc/%d/maps" % pid) as file:
        for line in file:
            fields = line.rstrip("\n").split(None, 5)
            start, end = (int(part, 16) for part in fields[0].split("-"))
            result.append((start, end, fields[1], fields[5] if len(fields) > 5 else ""))
    return result


def probe_maps(pid):
    return [m for m in maps(pid) if PROBE_FIRST <= m[0] < PROBE_END or TABLES_FIRST <= m[0] < TABLES_END]


def landing(pid):
    """What is on the landing page of a process: {address of its stub: (function, where it leads now)}; None: there is none."""
    with open("/proc/%d/mem" % pid, "rb", buffering=0) as memory:
        for base in range(LANDING_FIRST, LANDING_END, LANDING_STEP):
            try:
                memory.seek(base)
                page = memory.read(2 * PAGE_MAX)
            except OSError:
                continue
            if page[:8] == b"pyleak\0l":
                count, = struct.unpack_from("<I", page, 16)
                return {base + 0x800 + 16 * i: (struct.unpack_from("<Q", page, 64 + 16 * i)[0],
                                                struct.unpack_from("<Q", page, PAGE_MAX + 8 * i)[0]) for i in range(count)}
    return None


def end_of_data(memory, start):
    """Where an ELF object that is loaded at this address ends, its .bss included."""
    memory.seek(start)
    header = memory.read(64)
    kind, table, count = struct.unpack_from("<H", header, 16)[0], *struct.unpack_from("<Q", header, 32), \
        struct.unpack_from("<H", header, 56)[0]
    memory.seek(start + table)
    segments = memory.read(56 * count)
    loads = [struct.unpack_from("<I4xQQQQQQ", segments, 56 * i) for i in range(count)]
    # Of type, offset, vaddr, paddr, filesz, memsz, align: PT_LOAD is 1. ET_EXEC (2) is loaded where it says.
    end = max(load[2] + load[5] for load in loads if load[0] == 1)
    return end if kind == 2 else start + end


def hook_words(pid):
    """Addresses of the words in the interpreter's own data that point into a probe.

    Only the writable data of the program and of libpython is looked at, their .bss included: what a
    heap or a stack holds may be a stale copy, and a thread's stack may lie right behind a .bss.
    """
    found = []
    previous_end, data_end = 0, 0
    try:
        wanted = []
        with open("/proc/%d/mem" % pid, "rb", buffering=0) as memory:
            for start, end, permissions, name in maps(pid):
                python = bool(re.search(r"/(lib)?python[^/]*$", name))
                if python and start >= data_end:
                    data_end = end_of_data(memory, start)
                if permissions.startswith("rw") and (python or (not name and start == previous_end and start < data_end)):
                    wanted.append((start, end if python else min(end, data_end)))
                previous_end = end if python or start < data_end else 0
            for start, end in wanted:
                memory.seek(start)
                data = memory.read(end - start)
                words = struct.unpack("<%dQ" % (len(data) // 8), data[:len(data) // 8 * 8])
                found += [start + 8 * i for i, word in enumerate(words) if PROBE_FIRST <= word < PROBE_END]
    except (FileNotFoundError, ProcessLookupError, OSError):
        return found
    return found


def written_pages(pid, start, stop):
    """(start, end) of the runs of pages that the process has for itself: what is a file's page holds what the file does, and to
    read what nobody has touched would make it the process's."""
    size = os.sysconf("SC_PAGE_SIZE")
    with open("/proc/%d/pagemap" % pid, "rb", buffering=0) as file:
        file.seek(start // size * 8)
        data = file.read((stop - start) // size * 8)
    # Documentation/admin-guide/mm/pagemap.rst: present, swapped, a file's or shared
    runs, at = [], start
    for written, pages in itertools.groupby(struct.unpack("<%dQ" % (len(data) // 8), data),
                                            lambda word: word >> 62 != 0 and not word >> 61 & 1):
        end = at + size * sum(1 for _ in pages)
        if written:
            runs.append((at, end))
        at = end
    return runs


def words_between(data, first, end):
    """Offsets of the aligned words that are in this range, whose upper halves are the same: by those they are looked for, since
    there may be hundreds of MiB."""
    assert first >> 32 == (end - 1) >> 32
    half, found, at = struct.pack("<I", first >> 32), [], -1
    while True:
        at = data.find(half, at + 1)
        if at < 0:
            return found
        if at % 8 == 4 and first <= struct.unpack_from("<Q", data, at - 4)[0] < end:
            found.append(at - 4)


def native_words(pid, first=PROBE_FIRST, end=LANDING_END):
    """Addresses of the words in the data of loaded libraries and of the program that point into a probe or to the landing
    page, those that are read-only after relocation included: words of native allocators, and the interpreter's own."""
    found = []
    try:
        everything = maps(pid)
        with open("/proc/%d/mem" % pid, "rb", buffering=0) as memory:
            for (start, stop, permissions, name), (_, _, after, next_name) in zip(everything, everything[1:] + [(0, 0, "", "")]):
                relro = permissions.startswith("r--") and after.startswith("rw") and next_name == name
                if not name.startswith("/") or not (relro or permissions.startswith("rw-p")):
                    continue
                for start, stop in written_pages(pid, start, stop):
                    try:
                        memory.seek(start)
                        data = memory.read(stop - start)
                    except OSError:  # unloaded since
                        continue
                    found += [start + offset for offset in words_between(data, first, end)]
    except (FileNotFoundError, ProcessLookupError, OSError):
        return found
    return found


def is_armed(pid):
    """Whether a probe records: between its last word and that pyleak looks at what the process has."""
    try:
        with open("/proc/%d/mem" % pid, "rb", buffering=0) as memory:
            for start, *_ in maps(pid):
                if PROBE_FIRST <= start < PROBE_END and (start - PROBE_FIRST) % PROBE_STEP == 0:
                    memory.seek(start + 48)  # struct pl_probe_header: armed_address
                    memory.seek(struct.unpack("=Q", memory.read(8))[0])
                    if any(memory.read(4)):
                        return True
    except (OSError, ValueError, struct.error):
        pass
    return False


def wait_hooked(pid, running=None, seconds=20):
    """Until pyleak has planted its hooks, records, and has let the process go on."""
    def hooked():
        if running is not None and running.process.poll() is not None:
            raise AssertionError("pyleak ended early: %r" % running.finish())
        return len(hook_words(pid)) >= HOOKS and is_armed(pid) and state(pid) != "t"
    wait_until(hooked, seconds, "hooks in process %d" % pid)


def descriptors(pid):
    result = {}
    for name in os.listdir("/proc/%d/fd" % pid):
        try:
            result[name] = os.readlink("/proc/%d/fd/%s" % (pid, name))
        except FileNotFoundError:
            pass
    return result


def blocked(pid, looks=5):
    """The signals that each thread blocks, as often as it was looked at: in a handler, and at its birth, a thread
    blocks others for a moment."""
    masks = {}
    for _ in range(looks):
        for tid in threads(pid):
            masks.setdefault(tid, set()).add(status(pid, tid).get("SigBlk"))
        time.sleep(0.002)
    return masks


class Trace:
    """All of a process that pyleak must leave as it was. `comes`: the name of a library that comes and goes by itself."""

    def __init__(self, pid, comes=None):
        self.comes = comes
        fields = status(pid)
        assert fields, "process %d is gone" % pid
        self.signals = {key: fields[key] for key in ("SigIgn", "SigCgt")}
        self.masks = blocked(pid)
        self.seccomp = fields.get("Seccomp")
        self.stopped = fields["State"][:1] in "Tt"
        self.descriptors = descriptors(pid)
        # The victim's own heap, stacks and thread arenas come and go: anonymous and rw, or a guard.
        everything = [m for m in maps(pid) if not comes or os.path.basename(m[3]) != comes]
        self.maps = {m for m in everything if m[3] not in ("", "[heap]", "[stack]")}
        self.code = {m for m in everything if "x" in m[2] and not LANDING_FIRST <= m[0] < LANDING_END}

    def differences(self, pid):
        now = Trace(pid, self.comes)
        found = []
        for name in ("signals", "seccomp", "stopped", "descriptors", "maps", "code"):
            if getattr(self, name) != getattr(now, name):
                found.append("%s: before %s, after %s" % (name, getattr(self, name), getattr(now, name)))
        for _ in range(50):
            wrong = ["thread %d blocks %s, before %s" % (tid, masks, self.masks[tid])
                     for tid, masks in now.masks.items() if tid in self.masks and not masks & self.masks[tid]]
            if not wrong:
                break
            now.masks = blocked(pid)
        return found + wrong + leftovers(pid)


def described(pid, word):
    """A word's address, what it holds, and the mapping that it is in."""
    try:
        with open("/proc/%d/mem" % pid, "rb", buffering=0) as memory:
            memory.seek(word)
            value, = struct.unpack("<Q", memory.read(8))
    except OSError:
        value = 0
    for start, end, permissions, name in maps(pid):
        if start <= word < end:
            return "%x=%x in %s+%x %s" % (word, value, name, word - start, permissions)
    return "%x=%x" % (word, value)


def leftovers(pid, kept=False):
    """What of pyleak is in the process now, but a landing page that leads to the functions themselves; empty when it is
    clean. `kept`: the program has copies of what it loaded in its data."""
    found = []
    for tid in threads(pid):
        fields = status(pid, tid)
        if fields.get("TracerPid", "0") != "0":
            found.append("thread %d is traced by %s" % (tid, fields["TracerPid"]))
    try:
        found += ["mapping %x-%x %s" % m[:3] for m in probe_maps(pid)]
    except (FileNotFoundError, ProcessLookupError):
        return found
    words = sorted(set(hook_words(pid) + native_words(pid, end=PROBE_END if kept else LANDING_END)))
    if words:
        found.append("%d hooks: %s" % (len(words), " ".join(described(pid, word) for word in words)))
    try:
        found += ["the landing page leads from %x to %x and not to %x" % (stub, word, function)
                  for stub, (function, word) in (landing(pid) or {}).items() if word != function]
    except OSError:
        pass
    return found


def wait_clean(pid, seconds):
    """Returns how long it took."""
    started = time.monotonic()
    while leftovers(pid):
        assert time.monotonic() < started + seconds * PATIENCE, "still in process %d: %s" % (pid, leftovers(pid))
        time.sleep(0.02)
    return time.monotonic() - started


def guardians():
    """PIDs of the guardian processes that run now, of the pyleak that is tested.

    Of several pytests side by side (-n) each has a name in its environment, and so have its pyleaks."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/comm" % name, "rb") as file:  # others may have any name
                    if file.read().strip() != b"pyleak-guardian" or os.readlink("/proc/%s/exe" % name) != PYLEAK:
                        continue
                with open("/proc/%s/environ" % name, "rb") as file:
                    if not worker or b"PYTEST_XDIST_WORKER=%s" % worker.encode() in file.read().split(b"\0"):
                        found.append(int(name))
            except OSError:
                pass
    return found


# -- reports ---------------------------------------------------------------------------------------

def rows(document, *suffixes):
    """Rows by (base name of the file, line), only of files with one of these endings."""
    result = {}
    for row in document["stats"]:
        if row["domain"] == "python" and (not suffixes or row["filename"].endswith(suffixes)):
            key = (os.path.basename(row["filename"]), row["lineno"])
            assert key not in result, "two rows for %s" % (key,)
            result[key] = row
    return result


def line_of(path, marker):
    """The number of the one line of a file that contains the marker."""
    lines = [n for n, text in enumerate(pathlib.Path(path).read_text().splitlines(), 1) if marker in text]
    assert len(lines) == 1, lines
    return lines[0]


if sys.version_info < (3, 8):
    sys.exit("the tests need Python 3.8 or later to run (what they attach to may be older)")
