# SPDX-License-Identifier: MIT
"""What pyleak reads of a Python process, against what that process says of itself."""
import json
import os
import pathlib
import re
import select
import shutil
import subprocess
import sys
import time

import pytest

import helpers
from pythons import label, pythons, version_text

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get("PYLEAK_BUILD", HERE.parents[1] / "build"))
STACK_DUMP = str(BUILD / "tests" / "integration" / "stack_dump")
ET_DYN = 3
FOUND = pythons()
OWN = [entry for entry in FOUND if not entry.root]  # whose files this machine's programs can work on


def each(entries):
    return pytest.mark.parametrize("version,python", [(entry, entry.executable) for entry in entries],
                                   ids=[label(entry) for entry in entries])


each_python = each(FOUND)
each_own_python = each(OWN)


class Victim:
    """A child process; its first line of output is in self.line."""

    def __init__(self, command, **environment):
        env = dict(os.environ, LC_ALL="C.UTF-8", PYTHONDONTWRITEBYTECODE="1", **environment)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, env=env)
        if not select.select([self.process.stdout], [], [], 60)[0]:
            self.stop()
            raise AssertionError("%s says nothing" % command)
        self.line = self.process.stdout.readline().decode()

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def dump(pid, *arguments):
    """(the interpreter, {ident: thread}) as stack_dump prints them, or its error line."""
    result = subprocess.run([STACK_DUMP, str(pid), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    if result.returncode:
        return result.stderr.decode()
    lines = [json.loads(line) for line in result.stdout.decode().splitlines()]
    return lines[0], {thread["ident"]: thread for thread in lines[1:]}


def compare(victim, *arguments):
    interpreter, threads = dump(victim.process.pid, *arguments)
    expected = json.loads(victim.line)
    assert len(expected) >= 12
    for ident, frames in expected.items():
        assert threads[int(ident)]["frames"] == frames
        assert not threads[int(ident)]["more"]
    return interpreter


def library_of(python):
    """The shared libpython of an interpreter, or None."""
    output = subprocess.run(["ldd", python], stdout=subprocess.PIPE).stdout.decode()
    match = re.search(r"=> (\S*/libpython3\S*)", output)
    return match and match.group(1)


@each_python
def test_stacks(version, python, tmp_path):
    with Victim([python, str(HERE / "stacks_victim.py"), str(tmp_path)]) as victim:
        interpreter = compare(victim)
    assert interpreter["version"] == version_text(version)
    assert interpreter["kind"] == ("shared" if library_of(python) else "static")


@each_own_python
def test_started_through_the_loader(version, python, tmp_path):
    home = subprocess.check_output([python, "-c", "import sys; print(sys.prefix)"]).decode().strip()
    loader = re.search(r"interpreter: ([^]]+)", subprocess.check_output(["readelf", "-lW", python]).decode()).group(1)
    with Victim([loader, python, str(HERE / "stacks_victim.py"), str(tmp_path)], PYTHONHOME=home) as victim:
        compare(victim)


@each_own_python
def test_stripped_renamed_and_deleted(version, python, tmp_path):
    """Neither names nor local symbols nor the file are needed."""
    copy = tmp_path / "something.bin"
    home = subprocess.check_output([python, "-c", "import sys; print(sys.prefix)"]).decode().strip()
    library = library_of(python)
    shutil.copy(library or python, str(copy))
    subprocess.check_call(["strip", "-s", str(copy)])
    command, environment = [str(copy)], {"PYTHONHOME": home}
    if library:
        command, environment = [python], {"LD_PRELOAD": str(copy)}
    with Victim(command + [str(HERE / "stacks_victim.py"), str(tmp_path)], **environment) as victim:
        copy.unlink()
        interpreter = compare(victim)
    assert interpreter["object"] == str(copy)


SHARED = [entry.executable for entry in OWN if library_of(entry.executable)]


@pytest.mark.parametrize("python", SHARED or [None])
def test_second_interpreter_mapped(python, tmp_path):
    """A libpython that was opened but never initialised is not the one that runs."""
    if not python:
        helpers.skip_here("pythons", "one with a shared libpython")
    library = library_of(python)
    copies = [tmp_path / "liba.so", tmp_path / "libb.so"]
    for copy in copies:
        shutil.copy(library, str(copy))
    program = "import ctypes, sys, time; a = ctypes.CDLL(%r); b = open(%r, 'rb'); import mmap; " \
        "m = mmap.mmap(b.fileno(), 0, prot=mmap.PROT_READ); print('up', flush=True); time.sleep(600)"
    with Victim([python, "-c", program % tuple(map(str, copies))]) as victim:
        interpreter, _ = dump(victim.process.pid)
    assert os.path.realpath(interpreter["object"]) == os.path.realpath(library)


@each_python
@pytest.mark.parametrize("allocator", ["default", "debug", "malloc", "tracemalloc"])
def test_tables(version, python, allocator):
    """The tables hold what .symtab calls the allocators of this mode (where there is a .symtab)."""
    if version.free_threaded and allocator == "malloc":
        return  # the interpreter refuses: its collector needs mimalloc's heaps
    environment = {"PYTHONTRACEMALLOC": "1"} if allocator == "tracemalloc" else {}
    if allocator in ("debug", "malloc"):
        environment["PYTHONMALLOC"] = allocator
    with Victim([python, "-c", "import time; print('up', flush=True); time.sleep(600)"], **environment) as victim:
        interpreter, _ = dump(victim.process.pid)
    tables = interpreter["tables"]
    assert len({table["address"] for table in tables.values()}) == 3
    path = (version.root or "") + interpreter["object"]
    symbols = subprocess.run(["nm", path], stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL).stdout.decode()
    addresses = {name: int(address, 16) for address, name in re.findall(r"^(\w+) \w (\w+)$", symbols, re.M)}
    if not addresses:
        return
    with open(path, "rb") as file:
        bias = interpreter["start"] if file.read(18)[16] == ET_DYN else 0
    names = {address + bias: name for name, address in addresses.items()}
    found = {domain: [names.get(word, word) for word in table["words"]] for domain, table in tables.items()}
    functions = ["Malloc", "Calloc", "Realloc", "Free"]
    obj = mem = ["_PyObject_" + name for name in functions]
    if version.free_threaded:
        obj, mem = ["_PyObject_Mi" + name for name in functions], ["_PyMem_Mi" + name for name in functions]
    mimalloc = version.free_threaded and version.version >= (3, 15)  # of the raw domain as well
    raw = ["_PyMem_%sRaw%s" % ("Mi" * mimalloc, name) for name in functions]
    if allocator == "default":
        assert found["raw"][1:] == raw
        assert found["obj"][1:] == obj
        assert found["mem"][1:] == mem
    elif allocator == "malloc":
        assert found["raw"][1:] == found["mem"][1:] == found["obj"][1:] == raw
    elif allocator == "debug":
        assert found["raw"][1:] == ["_PyMem_DebugRaw" + name for name in functions]
        assert all(name.startswith("_PyMem_Debug") for name in found["obj"][1:] + found["mem"][1:])
    else:
        assert all(name.startswith("tracemalloc_") for domain in found for name in found[domain][1:])
    if version.version < (3, 12):
        for domain, symbol in ("raw", "_PyMem_Raw"), ("mem", "_PyMem"), ("obj", "_PyObject"):
            assert tables[domain]["address"] == addresses[symbol] + bias


SUBINTERPRETER = """
import threading, time
def run():
    source = "import time\\ndef f():\\n    time.sleep(600)\\nf()\\n"
    try:
        import _testcapi
        _testcapi.run_in_subinterp(source)
    except ImportError:
        import _xxsubinterpreters as interpreters
        interpreters.run_string(interpreters.create(), source)
thread = threading.Thread(target=run, daemon=True)
thread.start()
time.sleep(0.5)
print(thread.ident, flush=True)
time.sleep(600)
"""


@each_python
def test_subinterpreter(version, python):
    """The thread's state in the interpreter that it entered last is the one that shows."""
    with Victim([python, "-c", SUBINTERPRETER]) as victim:
        _, threads = dump(victim.process.pid)
        frames = threads[int(victim.line)]["frames"]
    assert [(name, line) for _, name, line in frames] == [("f", 3), ("<module>", 4)]


@each_python
def test_moving_stacks(version, python):
    """Stacks of threads that run: every one that is read is one that the program can have."""
    program = "import threading\ndef a(n):\n return a(n - 1) if n else sum([i for i in range(50)])\n" \
        "def loop():\n while True:\n  a(30)\n" \
        "for i in range(3): threading.Thread(target=loop).start()\nprint('up', flush=True)\n"
    with Victim([python, "-c", program]) as victim:
        depths = set()
        for _ in range(20):
            interpreter, threads = dump(victim.process.pid)
            for thread in threads.values():
                names = [frame[1] for frame in reversed(thread["frames"])]
                if "loop" not in names:
                    continue
                inner = names[names.index("loop") + 1:]
                assert len(inner) <= 32
                assert [name for name in inner if name != "a"] in ([], ["a.<locals>.<listcomp>"], ["<listcomp>"])
                assert all(line > 0 for _, _, line in thread["frames"])
                depths.add(len(inner))
        assert len(depths) > 3


def test_not_python():
    with Victim(["sh", "-c", "echo up; sleep 600"]) as victim:
        assert "is not a Python process" in dump(victim.process.pid)


def test_python_2():
    path = os.path.expanduser("~/.pyenv/versions/2.7.18/bin/python")
    if not os.path.exists(path):
        helpers.skip_here("pythons", "2.7")
    with Victim([path, "-c", "import time, sys; print 'up'; sys.stdout.flush(); time.sleep(600)"]) as victim:
        assert "runs Python 2" in dump(victim.process.pid)


def test_another_users_process():
    if os.getuid():
        helpers.skip_here("user")
    with Victim([OWN[-1].executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]) as victim:
        shutil.copy(STACK_DUMP, "/tmp/stack_dump.%d" % victim.process.pid)
        try:
            result = subprocess.run(["/tmp/stack_dump.%d" % victim.process.pid, str(victim.process.pid)],
                                    stderr=subprocess.PIPE, preexec_fn=lambda: os.setuid(65534))
        finally:
            os.unlink("/tmp/stack_dump.%d" % victim.process.pid)
    assert b"may not read the memory of process" in result.stderr


def test_no_process():
    process = subprocess.Popen(["true"])
    process.wait()
    assert "No such process" in dump(process.pid)


def test_during_start(tmp_path):
    """A process that is only starting is refused or understood, never misread."""
    for python in [entry.executable for entry in OWN[-2:]]:
        for delay in range(40):
            process = subprocess.Popen([python, "-c", "import time; time.sleep(600)"])
            time.sleep(delay * 0.0005)
            answer = dump(process.pid)
            process.kill()
            process.wait()
            assert isinstance(answer, tuple) or re.search(r"not a Python process|not initialised|No such process|"
                                                          r"cannot read", answer)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__] + sys.argv[1:]))
