# SPDX-License-Identifier: MIT
"""What is put into a process that runs, and taken out again: each a context manager over a Process.

Also the processes themselves, and what /proc says of them.
"""
import json
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PATIENCE = 120


class Failure(Exception):
    """What was to be measured could not be; the message says why."""


# include/pyleak/probe.h: where probes are mapped, and where the header has the address of the word
# that arms the hooks, which is written last.
def _constant(name):
    with open(os.path.join(ROOT, "include/pyleak/probe.h"), encoding="utf-8") as file:
        return int(re.search(r"#define %s (\w+)" % name, file.read()).group(1), 0)


PROBE_BASE = _constant("PL_PROBE_BASE")
PROBE_ENGINE, PROBE_ARMED = 12, 48


def armed(pid):
    """Whether hooks are planted in the process, record, and (inline) no tracer is attached."""
    try:
        with open("/proc/%d/mem" % pid, "rb", buffering=0) as memory:
            memory.seek(PROBE_BASE)
            header = memory.read(128)
            engine, = struct.unpack_from("<I", header, PROBE_ENGINE)
            address, = struct.unpack_from("<Q", header, PROBE_ARMED)
            if not address:
                return False
            memory.seek(address)
            if not struct.unpack("<I", memory.read(4))[0]:
                return False
        with open("/proc/%d/status" % pid) as file:
            return engine == 1 or "\nTracerPid:\t0\n" in file.read()
    except OSError:
        return False


def cpu_seconds(pid):
    with open("/proc/%d/stat" % pid) as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss(pid):
    with open("/proc/%d/statm" % pid) as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


class Process:
    """A process which answers commands on stdin by JSON lines; ended with the `with` block."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.pid = self.process.pid
        self.buffer = b""

    def line(self, seconds=PATIENCE):
        deadline = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            if not select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
                raise Failure("process %d says nothing for %d s" % (self.pid, seconds))
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise Failure("process %d has ended: status %s" % (self.pid, self.process.wait()))
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode()

    def ask(self, *words, seconds=PATIENCE):
        self.process.stdin.write(" ".join(map(str, words)).encode() + b"\n")
        return json.loads(self.line(seconds))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Bare:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class Switched(Bare):
    """Something that the target turns on and off by itself."""

    def __init__(self, target, command, argument):
        self.target, self.command, self.argument = target, command, argument

    def __enter__(self):
        self.target.ask(self.command, self.argument)
        return self

    def __exit__(self, *_):
        self.target.ask(self.command, 0)


class Pyleak(Bare):
    """pyleak attach. After the block: report, the JSON of what it has seen."""

    def __init__(self, pyleak, pid, *options):
        self.command = [pyleak, "attach", str(pid), "--format", "json", "-d", "10m"] + list(options)
        self.pid = pid
        self.report = None

    def __enter__(self):
        self.errors = tempfile.TemporaryFile()
        started = time.monotonic()
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=self.errors)
        while not armed(self.pid):
            if self.process.poll() is not None or time.monotonic() > started + PATIENCE:
                self.finish()
                raise Failure("%s: no hooks" % " ".join(self.command))
        self.attach_time = time.monotonic() - started
        return self

    def finish(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        output = self.process.communicate(timeout=PATIENCE)[0]
        self.errors.seek(0)
        message = self.errors.read().decode().strip()
        self.errors.close()
        if self.process.returncode:
            raise Failure("%s: status %d: %s" % (" ".join(self.command), self.process.returncode, message))
        return json.loads(output.decode().splitlines()[-1])

    def __exit__(self, kind, *_):
        if kind is None:
            self.report = self.finish()
        elif self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.communicate(timeout=PATIENCE)


class Memray(Bare):
    """memray attach, as its users do it: a debugger loads it into the process, which must be allocating."""

    def __init__(self, python, target, *options):
        self.memray = [python, "-m", "memray"]
        self.target, self.options = target, list(options)

    def call(self, *arguments):
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(self.memray + [str(a) for a in arguments], stdin=subprocess.DEVNULL,
                                       stdout=output, stderr=output)
            end = time.monotonic() + PATIENCE
            while process.poll() is None and time.monotonic() < end:
                self.target.ask("run", 1)
            if process.poll() is None:
                process.kill()
            if process.wait():
                output.seek(0)
                raise Failure("memray %s: %s" % (arguments[0], output.read().decode().strip()[-200:]))

    def __enter__(self):
        self.folder = tempfile.mkdtemp()
        self.call("attach", *self.options, "-o", os.path.join(self.folder, "trace"), self.target.pid)
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.call("detach", self.target.pid)
        finally:
            shutil.rmtree(self.folder)


def memray_missing(python):
    """Why memray attach cannot be measured with this Python; None if it can."""
    if not shutil.which("gdb") and not shutil.which("lldb"):
        return "memray attach needs gdb or lldb"
    if subprocess.call([python, "-c", "import memray"], stderr=subprocess.DEVNULL):
        return "memray is not installed for it"
    return None
