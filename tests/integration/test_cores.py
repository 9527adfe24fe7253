# SPDX-License-Identifier: MIT
"""pyleak holders of core files: gdb's, the kernel's, packed ones, and those that --save writes; and of hostile ones."""
import gzip
import json
import os
import resource
import shutil
import signal
import stat
import struct
import subprocess
import time

import pytest

import helpers
import pythons
from helpers import Pyleak, Victim, assert_refused, pyleak, skip_here

KINDS = {6: "attribute", 13: "exception"}  # of holders.py, by minor version; else "module_dict"


def some_pythons():
    """The oldest, the distribution's own, 3.13 and the newest, of those that there are; and one without a GIL."""
    found = pythons.pythons()
    if os.environ.get("PYLEAK_ONE_PYTHON") == "1":
        return [entry for entry in found if entry.executable.startswith("/usr/bin/")][-1:] or found[-1:]
    chosen = [found[0], found[-1]] + [entry for entry in found if entry.executable.startswith("/usr/bin/")][-1:]
    chosen += [entry for entry in found if entry.version[:2] == (3, 13) and not entry.free_threaded][:1]
    chosen += [entry for entry in found if entry.free_threaded][-1:]
    return sorted(set(chosen), key=found.index)


def leaks(entry, **keywords):
    victim = Victim(entry.executable, "holders.py", KINDS.get(entry.version[1], "module_dict"), ready=None, **keywords)
    try:
        json.loads(victim.line())
        return victim
    except BaseException:
        victim.end()
        raise


def holders(*arguments, **keywords):
    result = pyleak("holders", "--format", "json", *arguments, **keywords)
    assert result.status == 0, result
    return result.json()


def same(document, live):
    assert document["holders"][0]["path"] == live["holders"][0]["path"]
    assert document["holders"][0]["retained"] == live["holders"][0]["retained"]
    assert document["total"] == live["total"]
    assert document["garbage"] == live["garbage"]
    assert document["pid"] == live["pid"] and document["python"] == live["python"]


def gcore(pid, folder):
    if not shutil.which("gcore"):
        skip_here("gdb")
    subprocess.run(["gcore", "-o", str(folder / "gdb"), str(pid)], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, timeout=60)
    return str(folder / ("gdb.%d" % pid))


def limit():
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def kernel_core(victim, folder):
    """None: they go elsewhere here."""
    with open("/proc/sys/kernel/core_pattern", encoding="ascii") as file:
        if file.read(1) in "|/":
            return None
    pid = victim.pid
    os.kill(pid, signal.SIGABRT)
    victim.process.wait(30)
    found = [str(path) for path in folder.iterdir() if path.name.startswith("core")]
    return found[0] if found else None


@pytest.mark.parametrize("entry", some_pythons(), ids=pythons.label)
def test_live_and_dead(entry, tmp_path):
    """A core of any kind says what the process said: the first path, its size, all objects."""
    # The kernel names files as the process does, gdb as it sees them itself.
    tree = ["--sysroot", entry.root] if entry.root else []
    with leaks(entry, cwd=str(tmp_path), preexec_fn=limit) as victim:
        live = holders(victim.pid)
        saved = tmp_path / "heap"
        same(holders(victim.pid, "--save", saved), live)
        assert stat.S_IMODE(saved.stat().st_mode) == 0o600 and os.listdir(tmp_path) == ["heap"]
        written = gcore(victim.pid, tmp_path)
        dumped = kernel_core(victim, tmp_path)
        # It needs no file of the machine that it is from.
        same(holders(saved, "--sysroot", tmp_path), live)
        same(holders(written), live)
        if dumped:
            same(holders(dumped, *tree), live)
        if shutil.which("zstd"):
            subprocess.run(["zstd", "-q", "-1", written, "-o", str(tmp_path / "core.zst")], check=True)
            same(holders(tmp_path / "core.zst"), live)
        with open(saved, "rb") as file, gzip.open(str(tmp_path / "heap.gz"), "wb", 1) as packed:
            shutil.copyfileobj(file, packed)
        same(holders(tmp_path / "heap.gz"), live)
        text = pyleak("holders", saved, "-n", 1).stdout.splitlines()
        assert text[0].startswith("RSS ") and live["holders"][0]["path"] in text[1], text


GROWS = """
import sys
class Session:
    def __init__(self, i):
        self.data = [i + 0.5, "session %d" % i]
SESSIONS, OLD = {}, [[i, str(i)] for i in range(20000)]
print("ready", flush=True)
for line in sys.stdin:
    for i in range(3000):
        SESSIONS[len(SESSIONS)] = Session(i)
    print("grown", flush=True)
"""


def test_growth_between_two_files(one_python, tmp_path):
    with Victim(one_python, None, "-c", GROWS) as victim:
        assert pyleak("holders", victim.pid, "--save", tmp_path / "one").status == 0
        assert not victim.tell("more") and victim.line() == "grown"
        assert pyleak("holders", victim.pid, "--save", tmp_path / "two").status == 0
    document = holders(tmp_path / "one", tmp_path / "two")
    assert document["file"] == str(tmp_path / "two"), document["file"]
    first = document["holders"][0]
    assert first["path"] == "__main__.SESSIONS" and first["diff"]["count"] >= 3000 * 3, first
    lines = pyleak("holders", tmp_path / "one", tmp_path / "two", "-n", 1).stdout.splitlines()
    assert "__main__.SESSIONS" in lines[1] and "+3,000 x __main__.Session" in "\n".join(lines), lines
    back = holders(tmp_path / "two", tmp_path / "one")
    assert [row for row in back["holders"] if row["path"] == "__main__.SESSIONS"][-1:] in ([], [first]) or \
        all(row["diff"]["count"] <= 0 for row in back["holders"] if row["path"] == "__main__.SESSIONS")


def test_save_overwrites_nothing(one_python, tmp_path):
    """An existing file stays as it is without --force, and a failure leaves none."""
    kept = tmp_path / "kept"
    kept.write_text("mine")
    with Victim(one_python, "holders.py", "module_dict", ready=None) as victim:
        victim.line()
        assert_refused(pyleak("holders", victim.pid, "--save", kept), "kept", "--force")
        assert kept.read_text() == "mine"
        assert_refused(pyleak("holders", victim.pid, "--save", tmp_path / "no" / "where"), "--save")
        assert_refused(pyleak("holders", victim.pid, "--save", "/dev/null", "--force"), "regular")
        assert pyleak("holders", victim.pid, "--save", kept, "--force").status == 0
        assert kept.stat().st_size > 1 << 20 and stat.S_IMODE(kept.stat().st_mode) == 0o600
        result = pyleak("holders", victim.pid, "--save", kept, "--force", prefix=["bash", "-c", 'ulimit -f 100; trap "" XFSZ; exec "$@"', "x"])
        assert result.status == 1 and "too large" in result.stderr, result
        assert os.listdir(tmp_path) == ["kept"]
        assert holders(kept)["holders"][0]["path"] == "__main__.CACHE"


def test_what_is_missing_is_named(one_python, tmp_path):
    """Files that are not there, and files that are others."""
    entry = pythons.of(os.path.realpath(one_python))
    with leaks(entry) as victim:
        written = gcore(victim.pid, tmp_path)
        program = os.readlink("/proc/%d/exe" % victim.pid)
    empty = tmp_path / "empty"
    empty.mkdir()
    result = pyleak("holders", written, "--sysroot", empty)
    assert result.status == 1 and "%s is not here" % program in result.stderr and "--sysroot" in result.stderr, result
    other = empty / program.lstrip("/")
    other.parent.mkdir(parents=True)
    shutil.copy("/usr/bin/env", other)
    result = pyleak("holders", written, "--sysroot", empty)
    assert result.status == 1 and "%s is another one here (build ID " % program in result.stderr, result
    # Not out of the tree.
    other.unlink()
    other.symlink_to(program)
    assert "is not here" in pyleak("holders", written, "--sysroot", empty).stderr


def wrong(result, word):
    assert result.status == 2 and result.stderr.count("\n") == 1 and word in result.stderr, result


def test_what_is_no_core(one_python, tmp_path):
    """One line, and status 1 or 2."""
    with Victim(one_python, "holders.py", "module_dict", ready=None) as victim:
        victim.line()
        good = tmp_path / "good"
        assert pyleak("holders", victim.pid, "--save", good).status == 0
        wrong(pyleak("holders", good, "--pid", victim.pid), "give one")
    data = good.read_bytes()

    def refused(name, content, *words):
        path = tmp_path / name
        path.write_bytes(content)
        result = pyleak("holders", path, seconds=20)
        assert result.status == 1 and result.stdout == "" and result.stderr.count("\n") == 1, result
        for word in words:
            assert word in result.stderr, (word, result)

    refused("text", b"hello\n" * 1000, "no core file")
    refused("empty", b"", "no core file")
    refused("cut", data[:len(data) // 2], "is cut")
    refused("headers", data[:100], "damaged")
    refused("program", open("/bin/true", "rb").read(), "not a core file")
    refused("machine", data[:18] + struct.pack("<H", 8) + data[20:], "another kind of machine")
    refused("half.gz", gzip.compress(data[:1 << 20])[:1000], "cannot be unpacked")
    refused("bomb.gz", gzip.compress(bytes(1 << 28), 1), "no core file")
    # A program header of a terabyte that is not there; one that lies over another; notes that have no end.
    header = bytearray(data)
    struct.pack_into("<Q", header, 64 + 56 + 32, 1 << 40)
    struct.pack_into("<Q", header, 64 + 56 + 40, 1 << 40)
    refused("huge", bytes(header), "is cut")
    header = bytearray(data)
    header[64 + 56 + 16:64 + 56 + 24] = data[64 + 2 * 56 + 16:64 + 2 * 56 + 24]
    refused("twice", bytes(header), "overlap")
    header = bytearray(data)
    notes = struct.unpack_from("<Q", data, 64 + 8)[0]
    struct.pack_into("<I", header, notes + 4, 0x7fffffff)
    refused("notes", bytes(header), "damaged")
    assert_refused(pyleak("holders", "./no/such/file"), "No such file")
    assert_refused(pyleak("holders", tmp_path), "not a regular file")
    wrong(pyleak("holders", good, "--interval", "1s"), "--interval")
    wrong(pyleak("holders", good, "--save", "x"), "--save")
    wrong(pyleak("holders", good, good, good), "too many")


def has_unnamed(folder):
    """Whether files may be without a name there."""
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600))
        return True
    except OSError:
        return False


def writes_into(pid, folder):
    """Whether a process has a file open in a folder, under whatever name or none, and has begun to write it."""
    try:
        for name in os.listdir("/proc/%d/fd" % pid):
            link = "/proc/%d/fd/%s" % (pid, name)
            if os.readlink(link).startswith(str(folder)) and os.stat(link).st_size:
                return True
    except OSError:
        pass
    return False


def test_killed_while_it_saves(one_python, tmp_path):
    """The file is there as a whole, or nothing of it is, not under another name either."""
    killed = 0
    with Victim(one_python, "holders.py", "module_dict", ready=None) as victim:
        victim.line()
        for _ in range(12):
            with Pyleak("holders", victim.pid, "--save", tmp_path / "heap", "--force") as running:
                pid = running.process.pid
                deadline = time.monotonic() + 20 * helpers.PATIENCE
                while not writes_into(pid, tmp_path) and running.process.poll() is None:
                    assert time.monotonic() < deadline, "it never writes"
                running.process.kill()
                running.process.wait()
            if (tmp_path / "heap").exists():
                assert holders(tmp_path / "heap")["holders"][0]["path"] == "__main__.CACHE"
            else:
                killed += 1
                assert not has_unnamed(tmp_path) or os.listdir(tmp_path) == []
            for left in tmp_path.iterdir():
                left.unlink()
            if killed == 3:
                return
    raise AssertionError("it was never killed in time")


def test_save_where_no_file_is_without_a_name(one_python, tmp_path):
    """It is written under another name then, and given its own once it is whole; without --force what came meanwhile stays."""
    if not shutil.which("strace"):
        skip_here("strace")
    if not has_unnamed(tmp_path):
        return
    folder, log = tmp_path / "folder", tmp_path / "log"
    folder.mkdir()
    wrapper = ["strace", "-qq", "-o", log, "-P", folder, "-e", "trace=openat", "-e", "inject=openat:error=EOPNOTSUPP"]
    with Victim(one_python, "holders.py", "module_dict", ready=None) as victim:
        victim.line()
        for more in ((), ("--force",)):
            result = pyleak("holders", victim.pid, "--save", folder / "heap", *more, prefix=wrapper)
            assert result.status == 0 and os.listdir(folder) == ["heap"], result
            assert log.read_text().count("INJECTED") == 1
            assert stat.S_IMODE((folder / "heap").stat().st_mode) == 0o600
            assert holders(folder / "heap")["holders"][0]["path"] == "__main__.CACHE"
