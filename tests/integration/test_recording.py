# SPDX-License-Identifier: MIT
"""Recordings: attach and diff write them, report reads them, and whatever happens, what is whole is there."""
import json
import os
import re
import signal
import subprocess
import time

import pytest

import helpers
from helpers import PYLEAK, VICTIMS, Pyleak, Victim, line_of, pyleak, wait_clean, wait_hooked, wait_until

LEAK = str(VICTIMS / "leak.py")


def report(*arguments, status=0):
    result = pyleak("report", *arguments)
    assert result.status == status, result
    return result


def leak_row(document):
    line = line_of(LEAK, "# leaks here")
    return next((row for row in document["stats"] if (row["filename"], row["lineno"]) == (LEAK, line)), None)


def leak(victim, number):
    victim.tell("leak %d" % number)
    assert victim.line() == "leaked"


@pytest.mark.usefixtures("engine")
def test_attach_records(one_python, tmp_path):
    """Every interval has its snapshot, the last is what the process held at the end."""
    path = tmp_path / "leak.pyleak"
    with Victim(one_python, "leak.py") as victim:
        with Pyleak("attach", victim.pid, "--engine", helpers.engine, "-i", "200ms", "-d", "2s", "-o", path) as running:
            wait_hooked(victim.pid, running)
            leak(victim, 1000)
            result = running.finish()
        wait_clean(victim.pid, 1)
    assert (result.status, result.stdout, result.stderr) == (0, "", ""), result
    document = report(path, "--format", "json", "-n", 0).json()
    assert (document["kind"], document["engine"], document["pid"]) == ("top", helpers.engine, victim.pid)
    assert leak_row(document)["count"] == 1000
    assert 2 <= document["window_s"] < 4
    assert document["stop_ms"] > 0 or helpers.engine == "breakpoint"
    first = report(path, "--format", "json", "-n", 0, "--to", 0).json()
    assert leak_row(first) is None and first["window_s"] < 0.5
    grown = report(path, "--format", "json", "-n", 0, "--from", 0).json()
    assert grown["kind"] == "diff" and leak_row(grown)["count_diff"] == 1000
    assert grown["total"]["size_diff"] == document["total"]["size"] - first["total"]["size"]
    text = report(path).stdout
    assert "kept[i] = BASE + i  # leaks here" in text, "source lines are in the recording"


def test_two_recordings(one_python, tmp_path):
    """The difference of two, which were made by diff, one of them through a pipe."""
    paths = tmp_path / "a.pyleak", tmp_path / "b.pyleak"
    with Victim(one_python, "leak.py") as victim:
        assert pyleak("attach", victim.pid, "--keep").status == 0
        for path, number in zip(paths, (500, 300)):
            leak(victim, number)
            with open(path, "wb") as stream:
                subprocess.run([PYLEAK, "diff", str(victim.pid), "-i", "100ms", "-c", "3", "--format", "recording"],
                               stdout=stream, check=True)
        assert pyleak("detach", victim.pid).status == 0
    assert leak_row(report(paths[0], "--format", "json", "-n", 0).json())["count"] == 500
    document = report(*paths, "--format", "json", "-n", 0).json()
    row = leak_row(document)
    assert (row["count"], row["count_diff"]) == (800, 300)
    back = leak_row(report(*reversed(paths), "--format", "json", "-n", 0).json())
    assert (back["count"], back["count_diff"]) == (500, -300)
    assert report(*paths, "--fail-above", row["size_diff"] - 1, status=3).stdout
    assert report(*paths, "--fail-above", row["size_diff"], "--include", "*leak.py").stdout
    with open(paths[1], "rb") as stream:
        piped = subprocess.run([PYLEAK, "report", str(paths[0]), "-", "--format", "json", "-n", "0"], stdin=stream,
                               capture_output=True, check=True)
    assert json.loads(piped.stdout) == document


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_was_recorded_until_then(one_python, tmp_path, sent):
    path = tmp_path / "leak.pyleak"
    with Victim(one_python, "leak.py") as victim:
        with Pyleak("attach", victim.pid, "-i", "100ms", "-o", path) as running:
            wait_hooked(victim.pid, running)
            leak(victim, 700)
            size = path.stat().st_size
            wait_until(lambda: path.stat().st_size > size, 5, "a snapshot")
            time.sleep(0.3)
            result = running.finish(signal=sent)
        wait_clean(victim.pid, 5)
        assert victim.alive()
    assert result.status == (-9 if sent == signal.SIGKILL else 0), result
    assert leak_row(report(path, "--format", "json", "-n", 0).json())["count"] == 700


def test_the_process_ends(one_python, tmp_path):
    path = tmp_path / "leak.pyleak"
    with Victim(one_python, "leak.py") as victim:
        with Pyleak("attach", victim.pid, "-i", "100ms", "-o", path) as running:
            wait_hooked(victim.pid, running)
            leak(victim, 700)
            time.sleep(0.5)
            victim.tell("quit")
            result = running.finish()
    assert result.status == 1 and "ended while it was watched" in result.stderr, result
    assert leak_row(report(path, "--format", "json", "-n", 0).json())["count"] == 700


def test_a_disk_that_is_full(one_python):
    with Victim(one_python, "leak.py") as victim:
        result = pyleak("attach", victim.pid, "-i", "100ms", "-o", "/dev/full", "--format", "recording")
        assert result.status == 1 and "No space left" in result.stderr, result
        assert result.stderr.count("\n") == 1, result
        wait_clean(victim.pid, 1)


@pytest.fixture(scope="module")
def tape(one_python, tmp_path_factory):
    path = tmp_path_factory.mktemp("recording") / "tape.pyleak"
    with Victim(one_python, "leak.py") as victim:
        result = pyleak("attach", victim.pid, "-i", "100ms", "-d", "500ms", "-o", path)
        assert result.status == 0, result
    return path


def test_cut_and_damaged(tape, tmp_path):
    """One line that says so, what is whole, and status 1."""
    path = tmp_path / "other.pyleak"
    whole = tape.read_bytes()
    path.write_bytes(whole[:-1])
    result = report(path, status=1)
    assert result.stderr.count("\n") == 1 and "cut after " in result.stderr
    assert "total: size=" in result.stdout
    path.write_bytes(whole[:-3] + b"\0" + whole[-2:])
    result = report(path, status=1)
    assert result.stderr.count("\n") == 1 and ("damaged after " in result.stderr or "cut after " in result.stderr)
    for content in (whole[:100], b"", b"total: size=0 B", whole[:27] + b"\xff" * 4000):
        path.write_bytes(content)
        result = report(path, "-o", tmp_path / "none", status=1)
        assert result.stdout == "" and result.stderr.count("\n") == 1, result
        assert not (tmp_path / "none").exists()


def test_what_cannot_be_read(tape, tmp_path):
    for name, words in ((tmp_path / "absent", "No such file"), (tmp_path, "Is a directory")):
        result = report(name, status=1)
        assert result.stdout == "" and words in result.stderr and result.stderr.count("\n") == 1, result
    result = report(tape, "--from", "1h", status=1)
    assert re.search(r" is [\d.]+ \S+ long: --from 1 h\b.* is beyond its end\n", result.stderr), result
    result = report(tape, "--from", "1ms", "--to", "2ms", status=1)
    assert "nearest to the same snapshot" in result.stderr


def test_others_can_read_it(tape):
    """It is what zstd says that it is: frames with checksums, that decompress."""
    if subprocess.run(["sh", "-c", "command -v zstd"], capture_output=True, check=False).returncode:
        helpers.skip_here("zstd")
    listed = subprocess.run(["zstd", "-lv", tape], capture_output=True, text=True, check=True).stdout
    assert "Check: XXH64" in listed, listed
    assert LEAK.encode() in subprocess.run(["zstd", "-dc", tape], capture_output=True, check=True).stdout


def test_a_family_apart(one_python, tmp_path):
    """--per-process is in the recording."""
    script, path = tmp_path / "family.py", tmp_path / "family.pyleak"
    script.write_text("import os, time\n"
                      "kept = []\n"
                      "child = os.fork()\n"
                      "if child: print('ready', flush=True)\n"
                      "while True:\n"
                      "    kept.append(bytes(1000))  # leaks here\n"
                      "    time.sleep(0.02)\n")
    with Victim(one_python, None, script) as victim:
        try:
            result = pyleak("attach", victim.pid, "--children", "--per-process", "-i", "300ms", "-d", "1s", "-o", path)
            assert result.status == 0, result
        finally:
            children = subprocess.run(["pgrep", "-P", str(victim.pid)], capture_output=True, text=True, check=False).stdout
            for child in children.split():
                os.kill(int(child), signal.SIGKILL)
    document = report(path, "--format", "json", "-n", 0).json()
    rows = [row for row in document["stats"] if row["lineno"] == line_of(script, "# leaks here")]
    assert {row["pid"] for row in rows} == {victim.pid, *map(int, children.split())} and len(rows) == 2
