# SPDX-License-Identifier: MIT
"""pytest --pyleak: fails a test whose live memory grew by more than its @pytest.mark.limit_leak("10 MB"), and names the
lines that it grew on.

pyleak attaches to the test process itself, once, and is asked before and after each marked test what is live by line.
What a first call leaves in caches counts like anything else: call it once before, in a fixture, or give it room.
"""
import collections
import ctypes
import gc
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time

import pytest

UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
PR_SET_PTRACER = 0x59616D61
SHOWN = 5


def size_of(text):
    """Bytes: "10 MB", "512KiB" (both are powers of 1024, as in pyleak), 4096."""
    match = re.match(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?)(?:i?B)?\s*$", str(text), re.IGNORECASE)
    if not match:
        raise pytest.UsageError("limit_leak: %r is not a size: give \"10 MB\" or a number of bytes" % (text,))
    return int(float(match.group(1)) * UNITS[match.group(2).upper()])


def amount(size):
    """As pyleak prints it."""
    unit = next(unit for unit in ("B", "KiB", "MiB", "GiB") if size < 10240 or unit == "GiB" or not (size := size / 1024))
    return "%.*f %s" % (0 if unit == "B" or size >= 100 else 1, size, unit)


def read(path):
    """{(file, line): bytes} of an answer that was saved."""
    with open(path, "rb") as file:
        head, _, body = file.read().partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise OSError("pyleak answers %r" % head[:40])
    sizes = collections.Counter()
    for row in json.loads(body)["stats"]:
        sizes[row["filename"], row["lineno"]] += row["size"]
    return sizes


class Recorder:
    """A pyleak that records this process, and a socket to ask it."""

    def __init__(self, program):
        self.folder = tempfile.mkdtemp(prefix="pyleak-")
        self.socket = os.path.join(self.folder, "socket")
        # It begins when it is told that it may: Yama wants to know beforehand who traces its parent.
        command = "read go; exec \"$@\""
        self.process = subprocess.Popen(["sh", "-c", command, "sh", program, "attach", str(os.getpid()), "--quiet", "--frames", "1",
                                         "--limit", "0", "--output", "/dev/null", "--force", "--listen", "unix:" + self.socket],
                                        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(self.process.pid), 0, 0, 0)
        self.process.stdin.write(b"go\n")
        self.process.stdin.close()
        self.await_answer()

    def await_answer(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                read(self.save("first"))
                return
            except OSError:
                time.sleep(0.02)
        self.process.kill()
        raise pytest.UsageError("--pyleak: %s" % (self.process.stderr.read().decode().strip() or "pyleak does not answer"))

    def save(self, name):
        """What is live now, into a file: what this process itself keeps of it would be a growth of its own."""
        path = os.path.join(self.folder, name)
        with socket.socket(socket.AF_UNIX) as client, open(path, "wb", buffering=0) as file:
            client.settimeout(60)
            client.connect(self.socket)
            client.sendall(b"GET /report.json HTTP/1.0\r\n\r\n")
            while data := client.recv(65536):
                file.write(data)
        return path

    def end(self):
        self.process.terminate()
        self.process.wait()
        self.process.stderr.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def find_program():
    """The one of this environment, whatever PATH is."""
    beside = os.path.join(sysconfig.get_path("scripts"), "pyleak")
    return beside if os.access(beside, os.X_OK) else shutil.which("pyleak")


def pytest_addoption(parser):
    parser.getgroup("pyleak").addoption("--pyleak", action="store_true",
                                        help="record this process with pyleak, and hold tests to their limit_leak")


def pytest_configure(config):
    config.addinivalue_line("markers", "limit_leak(size): with --pyleak, fail if live memory grew by more in this test")
    config.pyleak_recorder = None
    if config.getoption("--pyleak"):
        program = find_program()
        if not program:
            raise pytest.UsageError("--pyleak: there is no pyleak in this environment or in PATH")
        config.pyleak_recorder = Recorder(program)


def pytest_unconfigure(config):
    if getattr(config, "pyleak_recorder", None):
        config.pyleak_recorder.end()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    mark, recorder = item.get_closest_marker("limit_leak"), item.config.pyleak_recorder
    if not mark or not recorder:
        yield
        return
    limit = size_of(*mark.args)
    gc.collect()
    before = recorder.save("before")
    outcome = yield
    gc.collect()
    after = recorder.save("after")
    if outcome.excinfo:
        return
    grown = read(after)
    grown.subtract(read(before))
    total = sum(grown.values())
    if total > limit:
        lines = "\n".join("  %s:%d: +%s" % (place + (amount(size),)) for place, size in grown.most_common(SHOWN) if size > 0)
        outcome.force_exception(pytest.fail.Exception(
            "live memory grew by %s, limit_leak is %s:\n%s" % (amount(total), amount(limit), lines), pytrace=False))


if sys.version_info < (3, 8):
    raise ImportError("pytest_pyleak needs Python 3.8")
