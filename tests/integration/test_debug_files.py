# SPDX-License-Identifier: MIT
"""Separate debug files: found where they usually are, and no name that an object brings along holds pyleak up, or has
it ask a server."""
import os
import shutil
import socket
import subprocess
import time

import pytest

from helpers import Victim, library
from test_native_frames import functions, places, record, row_of

LINK = "separate.debug"


@pytest.fixture
def stripped(tmp_path):
    """The library of the native frames without its DWARF, which is in LINK; it says so."""
    path, debug = tmp_path / "victim_frames.so", tmp_path / LINK
    shutil.copy(library("frames"), path)
    subprocess.run(["objcopy", "--only-keep-debug", path, debug], check=True)
    subprocess.run(["objcopy", "--strip-debug", "--add-gnu-debuglink=%s" % debug, path], check=True)
    return path


def recorded_row(python, path, environment=None):
    """The row of what the library allocates; pyleak must come to an end in time."""
    with Victim(python, "frames.py", path) as victim:
        saved = dict(os.environ)
        os.environ.update(environment or {})
        try:
            for times in 1, 4, 16:
                started = time.monotonic()
                row = row_of(record(victim, *["work 0 1 60 0.6"] * times), "work")
                if "keep_buffer" in functions(row) or "frames_work" in functions(row):
                    return row
        finally:
            os.environ.clear()
            os.environ.update(saved)
    raise AssertionError("no native frames in %g s: %s" % (time.monotonic() - started, row))


def with_lines(row):
    """Whether the DWARF was found: the inlined function and the lines of frames.c are nowhere else."""
    return "make_buffer" in functions(row) and len(places(row, "frames.c")) >= 4


@pytest.mark.parametrize("folder", ["", ".debug"])
def test_beside_the_object(one_python, stripped, folder):
    debug = stripped.parent / LINK
    if folder:
        (stripped.parent / folder).mkdir()
        debug = debug.rename(stripped.parent / folder / LINK)
    assert with_lines(recorded_row(one_python, stripped))


def test_by_build_id(one_python, stripped):
    """In our /usr/lib/debug, if we may write there."""
    notes = subprocess.run(["readelf", "-n", stripped], check=True, stdout=subprocess.PIPE).stdout.decode()
    if "Build ID: " not in notes:
        pytest.fail("the victim has no build ID")
    number = notes.split("Build ID: ")[1].split()[0]
    place = "/usr/lib/debug/.build-id/%s/%s.debug" % (number[:2], number[2:])
    if os.geteuid() != 0:
        from helpers import skip_here
        skip_here("user")
    os.makedirs(os.path.dirname(place), exist_ok=True)
    shutil.move(stripped.parent / LINK, place)
    try:
        assert with_lines(recorded_row(one_python, stripped))
    finally:
        os.remove(place)


def test_of_another_object(one_python, stripped):
    """The name alone proves nothing."""
    shutil.copy(library("native"), stripped.parent / LINK)
    row = recorded_row(one_python, stripped)
    assert not with_lines(row) and "frames_work" in functions(row)


def test_a_fifo(one_python, stripped):
    (stripped.parent / LINK).unlink()
    os.mkfifo(stripped.parent / LINK)
    row = recorded_row(one_python, stripped)
    assert not with_lines(row) and "frames_work" in functions(row)


def test_no_server(one_python, stripped):
    """A server that never answers, and counts who asks."""
    (stripped.parent / LINK).unlink()
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        row = recorded_row(one_python, stripped, {
            "DEBUGINFOD_URLS": "http://127.0.0.1:%d" % server.getsockname()[1], "DEBUGINFOD_TIMEOUT": "60",
            "DEBUGINFOD_CACHE_PATH": str(stripped.parent / "cache")})
        assert "frames_work" in functions(row)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
