# SPDX-License-Identifier: MIT
"""Rows by caller: the program's own line, whatever library it called."""
import os
import sys

import pytest

import pythons
import wheels
from helpers import Pyleak, Victim, line_of, pyleak, wait_hooked

COUNT, SIZE = 200, 400
FOUND = pythons.pythons()
ENDS = [FOUND[0].executable, FOUND[-1].executable] if FOUND else [sys.executable]

LIBRARY = """\
import asyncio
kept = []
def keep():
    for i in range(%d):
        kept.append(bytes(%d))  # keep
async def coroutine():
    await asyncio.sleep(0)
    keep()  # coroutine
def main(work):
    work()
    keep()  # main
""" % (COUNT, SIZE)

WORK = """\
import asyncio, sys
import framework, library
def meet(word):
    sys.stdout.write(word + "\\n"); sys.stdout.flush()
    return sys.stdin.readline().strip()
def work():
    meet("ready")
    library.keep()  # own
    framework.save()  # saves
    loop = asyncio.new_event_loop()
    loop.run_until_complete(library.coroutine())  # loop
    print("done", flush=True)
def end():
    meet("over")
"""


@pytest.fixture(params=ENDS, ids=["oldest", "newest"])
def program(request, tmp_path):
    """Started by a launcher script: bin/start."""
    folder = tmp_path / "site-packages"
    for path, text in ((folder / "library.py", LIBRARY), (tmp_path / "work.py", WORK),
                       (tmp_path / "framework.py", "import library\ndef save():\n    library.keep()  # framework\n"),
                       (tmp_path / "bin" / "start", "import sys, library, work\nlibrary.main(work.work)  # launcher\nwork.end()\n")):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    environment = dict(os.environ, PYTHONPATH="%s:%s" % (folder, tmp_path))
    with Victim(request.param, None, str(tmp_path / "bin" / "start"), env=environment) as victim:
        yield victim, tmp_path


def recorded(victim, *arguments):
    with Pyleak("attach", victim.pid, "--format", "json", "--limit", 0, "-g", "caller", *arguments) as running:
        wait_hooked(victim.pid, running)
        victim.tell("go")
        assert victim.line() == "done"
        assert victim.line() == "over"
        result = running.finish(2)
    assert result.status == 0, result
    return result.json()


def kept(document, path, mark):
    """Blocks of the lists' length on a marked line."""
    found = [row for row in document["stats"] if row["filename"] == str(path) and row["lineno"] == line_of(path, mark)]
    return sum(row["count"] for row in found), [row.get("caller_kind") for row in found]


def test_rows_are_lines_of_the_program(program):
    victim, folder = program
    document = recorded(victim)
    assert document["group_by"] == "caller"
    assert COUNT <= kept(document, folder / "work.py", "# own")[0] <= COUNT + 5
    assert COUNT <= kept(document, folder / "framework.py", "# framework")[0] <= COUNT + 5
    # What a loop calls is the task's, not of the line that runs the loop; and a launcher is nobody.
    count, kinds = kept(document, folder / "site-packages" / "library.py", "# coroutine")
    assert COUNT <= count <= COUNT + 5 and "task" in kinds, document["stats"]
    assert kept(document, folder / "work.py", "# loop")[0] < COUNT
    assert kept(document, folder / "bin" / "start", "# launcher")[0] < COUNT
    count, kinds = kept(document, folder / "site-packages" / "library.py", "# main")
    assert COUNT <= count <= COUNT + 5 and "libraries" in kinds


def test_excluded_files_are_charged_to_who_called(program):
    victim, folder = program
    document = recorded(victim, "--exclude", "framework.py")
    assert not [row for row in document["stats"] if row["filename"] == str(folder / "framework.py")]
    assert COUNT <= kept(document, folder / "work.py", "# saves")[0] <= COUNT + 5


def test_of_a_recording(program, tmp_path):
    """The rule is that of who reads it: a recording is grouped later."""
    victim, folder = program
    tape = str(tmp_path / "tape.pyleak")
    with Pyleak("attach", victim.pid, "-o", tape) as running:
        wait_hooked(victim.pid, running)
        victim.tell("go")
        assert victim.line() == "done"
        assert victim.line() == "over"
        assert running.finish(2).status == 0
    document = pyleak("report", tape, "-g", "caller", "--exclude", "framework.py", "--format", "json", "-n", 0).json()
    assert COUNT <= kept(document, folder / "work.py", "# saves")[0] <= COUNT + 5
    text = pyleak("report", tape, "-g", "caller").stdout
    assert "    library.keep()  # own\n    # allocated in %s:5 (keep)\n    #     kept.append(bytes(400))" % (
        folder / "site-packages" / "library.py") in text, text
    text = pyleak("report", tape, "-n", 0).stdout
    assert "(work)\n    #     library.keep()  # own\n" in text or "(save)\n    #     library.keep()" in text, text


FROZEN = """\
import os, sys
kept = []
class Path:
    def __fspath__(self):
        kept.append(bytes(400))
        return "/"
def meet(word):
    sys.stdout.write(word + "\\n"); sys.stdout.flush()
    return sys.stdin.readline().strip()
meet("ready")
for i in range(200):
    os.fspath(Path())
    os.path.join("/", "a" * 300)
    kept.append(os.path.join("/", "a" * 300))
meet("done")
"""


@pytest.mark.parametrize("python", ENDS, ids=["oldest", "newest"])
def test_frozen_modules_have_their_source(python, tmp_path):
    """From 3.11 on posixpath is frozen; before, it is a file: the line is shown in both."""
    (tmp_path / "program.py").write_text(FROZEN)
    with Victim(python, None, str(tmp_path / "program.py")) as victim:
        with Pyleak("attach", victim.pid, "-n", 0) as running:
            wait_hooked(victim.pid, running)
            victim.tell("go")
            assert victim.line() == "done"
            text = running.finish(2).stdout
    rows = [line for line in text.splitlines() if "posixpath" in line and ": size=" in line]
    assert rows, text
    following = text.splitlines()[text.splitlines().index(rows[0]) + 1]
    assert following.startswith("    path += "), text


LOOPS = {"uvloop": """\
import asyncio, json, sys, uvloop
kept = []
def meet(word):
    sys.stdout.write(word + "\\n"); sys.stdout.flush()
    return sys.stdin.readline().strip()
class Protocol(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        for i in range(200):
            kept.append(json.loads("[%d.5]" % i))  # first
        self.transport.write(b"x")
async def request():
    await asyncio.sleep(0)
    for i in range(200):
        kept.append(json.loads("[%d.5]" % i))  # second
def later(done):
    for i in range(200):
        kept.append(json.loads("[%d.5]" % i))  # third
    done.set_result(None)
async def main():
    loop = asyncio.get_event_loop()
    server = await loop.create_server(Protocol, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"y")
    await reader.read(1)
    await loop.create_task(request())
    done = loop.create_future()
    loop.call_later(0.001, later, done)
    await done
meet("ready")
uvloop.new_event_loop().run_until_complete(main())  # loop
print("done", flush=True)
meet("over")
""", "trio": """\
import json, sys, trio
kept = []
def meet(word):
    sys.stdout.write(word + "\\n"); sys.stdout.flush()
    return sys.stdin.readline().strip()
async def serve(stream):
    async for data in stream:
        for i in range(200):
            kept.append(json.loads("[%d.5]" % i))  # first
        await stream.send_all(b"x")
async def request():
    await trio.sleep(0)
    for i in range(200):
        kept.append(json.loads("[%d.5]" % i))  # second
def blocks():
    for i in range(200):
        kept.append(json.loads("[%d.5]" % i))  # third
async def main():
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        stream = await trio.open_tcp_stream("127.0.0.1", listeners[0].socket.getsockname()[1])
        await stream.send_all(b"y")
        await stream.receive_some(1)
        nursery.start_soon(request)
        await trio.to_thread.run_sync(blocks)
        nursery.cancel_scope.cancel()
meet("ready")
trio.run(main)  # loop
print("done", flush=True)
meet("over")
"""}


@pytest.mark.parametrize("loop", LOOPS)
def test_other_event_loops(one_python, tmp_path, loop):
    """What callbacks, tasks and threads of uvloop and trio allocate in the standard library is theirs."""
    folder = wheels.fetch(pythons.of(os.path.realpath(one_python)), "loops", ["uvloop==0.21.0", "trio==0.30.0"])
    script = tmp_path / "service.py"
    script.write_text(LOOPS[loop])
    with Victim(one_python, None, str(script), env=dict(os.environ, PYTHONPATH=folder)) as victim:
        document = recorded(victim)
    for mark in ("# first", "# second", "# third"):
        # A list, its float, and the list's table.
        assert 400 <= kept(document, script, mark)[0] <= 620, (mark, document["stats"])
    assert kept(document, script, "# loop")[0] < 200
    # What modules that are loaded only now bring along is below a line of theirs.
    assert not [row for row in document["stats"] if row["filename"].endswith("/json/decoder.py")], document["stats"]
