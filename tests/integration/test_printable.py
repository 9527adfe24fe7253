# SPDX-License-Identifier: MIT
"""Names are the program's to choose: none of them reaches a terminal as anything but text, or forges a line, whichever
command prints it and in which format."""
import os
import shutil
import subprocess

import pytest

from helpers import PYLEAK, VICTIMS, Victim, pyleak

# C0, C1 as UTF-8 and as a bare byte, overrides and isolates of direction, a line of its own, a line separator.
HOSTILE = "\x1b]0;owned\x07\u009b2J\u202e\u2066\u2028\npyleak: all is well".encode() + b"\x9b2J\x85"
ACTIVE = set(range(0x20)) - {0x09, 0x0A, 0x0D} | set(range(0x7F, 0xA0)) | {0x61C, 0x200E, 0x200F} | \
    set(range(0x2028, 0x202F)) | set(range(0x2066, 0x206A))


def assert_text(data, lines=()):
    text = data.decode("utf-8")  # and it is UTF-8
    assert not [hex(ord(character)) for character in text if ord(character) in ACTIVE], text
    for line in text.splitlines():
        assert not line.startswith("pyleak: all is well"), text
    return text


@pytest.fixture
def victim(one_python, tmp_path):
    """A program in a folder of such a name, with such an argument, and a copy of its interpreter there."""
    folder = os.path.join(os.fsencode(str(tmp_path)), HOSTILE.replace(b"/", b""))
    os.mkdir(folder)
    script = os.path.join(folder, b"hostile_names.py")
    shutil.copy(os.fsencode(str(VICTIMS / "hostile_names.py")), script)
    process = subprocess.Popen([one_python, script, HOSTILE], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    running = Victim.__new__(Victim)
    running.process, running.pid, running.buffer = process, process.pid, b""
    assert running.line() == "ready"
    yield running
    running.end()


def run(*arguments, status=0):
    answer = subprocess.run([PYLEAK, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, timeout=120,
                            check=False)
    assert answer.returncode == status, answer
    assert_text(answer.stderr)
    return assert_text(answer.stdout)


def test_commands(victim):
    assert "owned" in run("ps")
    run("ps", "--format", "json")
    assert "owned" in run("doctor", victim.pid)
    run("doctor", victim.pid, "--format", "json")
    run("heap", victim.pid, "-n", 0)
    run("heap", victim.pid, "-n", 0, "--format", "json")
    run("detach", victim.pid)


@pytest.mark.parametrize("form", ["text", "json", "csv", "folded", "openmetrics", "speedscope"])
def test_formats(victim, form):
    assert pyleak("attach", victim.pid, "--keep").status == 0
    victim.tell("leak")
    assert victim.line() == "leaked"
    shown = run("attach", victim.pid, "-d", "100ms", "-n", 0, "--format", form, "-g", "traceback", "--verbose")
    assert "owned" in shown
    assert pyleak("detach", victim.pid).status == 0


def test_pprof(victim, tmp_path):
    """What `go tool pprof` prints as it is."""
    import gzip
    assert pyleak("attach", victim.pid, "-d", "300ms", "--output", tmp_path / "x.pb.gz").status == 0
    data = gzip.decompress((tmp_path / "x.pb.gz").read_bytes())
    assert b"\xe2\x80\xae" not in data and b"\xc2\x9b" not in data and b"\x1b]0;" not in data


def test_errors():
    """Two candidates: each by its command line, in one line. In a PID namespace of their own, where nobody else is."""
    script = 'for n in 1 2; do tail -f /dev/null | /usr/bin/python3 "$1" "$2" >/dev/null & done; sleep 2; exec "$0" attach'
    answer = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", script, PYLEAK,
                             str(VICTIMS / "hostile_names.py"), HOSTILE],
                            stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    assert answer.returncode == 1 and answer.stdout == b"", answer
    assert len(assert_text(answer.stderr).splitlines()) == 3, answer
