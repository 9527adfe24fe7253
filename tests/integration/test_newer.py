# SPDX-License-Identifier: MIT
"""A minor version that pyleak does not know, and a release whose structs moved: by what the interpreter says of
itself, if that holds; and if it does not, hands off."""
import json
import signal
import subprocess

import pytest

from conftest import all_pythons
from helpers import Pyleak, Trace, Victim, assert_refused, pyleak, rows, skip_here, wait_hooked
from programs import Program
from pythons import label, version_text
from test_oracle import WORKLOAD, figures
from test_stacks import HERE, STACK_DUMP, compare
from test_stacks import Victim as Standing

FOUND = [entry for entry in all_pythons() if entry.version >= (3, 13)]
UNKNOWN = 99
OFFSETS_SIZE = {13: 584, 14: 760, 15: 888}  # of _Py_DebugOffsets; behind it the interpreter keeps other things
NEWER = str(HERE.parent / "victims" / "newer.py")
every_python = pytest.mark.parametrize("version,python", [(entry, entry.executable) for entry in FOUND] or [(None, None)],
                                       ids=map(label, FOUND) if FOUND else None)


@pytest.fixture(autouse=True)
def there_is_one():
    if not FOUND:
        skip_here("pythons", "3.13 or later, which say how their structs are laid out")


def called(version):
    return version_text(version._replace(version=(3, UNKNOWN, version.version[2])))


@every_python
def test_refused(version, python):
    with Victim(python, "newer.py", UNKNOWN, str(HERE.parent / "victims" / "host.py")) as victim:
        before = Trace(victim.pid)
        for command in "attach", "diff":
            assert_refused(pyleak(command, victim.pid), "Python %s;" % called(version), "--force")
        row = next(row for row in map(json.loads, pyleak("ps", "--format", "json").stdout.splitlines())
                   if row["pid"] == victim.pid)
        assert row["python"] == called(version) and not row["attachable"]
        assert not before.differences(victim.pid)
        victim.check()


@every_python
def test_stacks(version, python, tmp_path):
    with Standing([python, NEWER, str(UNKNOWN), str(HERE / "stacks_victim.py"), str(tmp_path)]) as victim:
        assert compare(victim, "1", "--force")["version"] == called(version)


@every_python
def test_figures(version, python):
    """As tracemalloc, but for the few blocks that are parked at the end."""
    output = subprocess.run([python, str(WORKLOAD), "tracemalloc"], stdout=subprocess.PIPE, check=True).stdout
    expected = figures({(name.rsplit("/", 1)[-1], line): (size, count)
                        for name, line, size, count in json.loads(output)})
    with Victim(python, "newer.py", UNKNOWN, str(WORKLOAD), "watched") as victim:
        before = Trace(victim.pid)
        with Pyleak("attach", victim.pid, "--format", "json", "--limit", 0, "--frames", 1, "--force") as running:
            wait_hooked(victim.pid, running)
            victim.tell("go")
            assert victim.line(120) == "done"
            result = running.finish(signal.SIGTERM)
        assert result.status == 0, result
        assert not before.differences(victim.pid)
    assert result.json()["python"] == called(version)
    table = rows(result.json(), "workload.py", ".py")
    found = figures({key: (row["size"], row["count"]) for key, row in table.items()})
    wrong = {key: (expected.get(key), found.get(key)) for key in set(expected) | set(found)
             if expected.get(key) != found.get(key)}
    assert sum(abs((a or (0, 0))[1] - (b or (0, 0))[1]) or 100 for a, b in wrong.values()) <= 2, wrong


def dumped(pid, *arguments):
    """What stack_dump prints of the stacks, or None and its error."""
    result = subprocess.run([STACK_DUMP, str(pid), "1", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    lines = [json.loads(line) for line in result.stdout.decode().splitlines()]
    return ([line["frames"] for line in lines[1:]], "") if result.returncode == 0 else (None, result.stderr.decode())


@pytest.mark.parametrize("disguise,by", [(False, -8), (True, 8)], ids=["known", "unknown"])
def test_lies(disguise, by, tmp_path):
    """One word of what the interpreter says is wrong: pyleak refuses, or it is a word that it has no use for."""
    python = FOUND[-1].executable
    arguments = ("--force",) if disguise else ()
    with Program(python, tmp_path, """
import ctypes
if {0}:
    sys.argv[1:] = [{1!r}, os.devnull]
    exec(open({2!r}).read())
at = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))
def inner():
    meet("ready")
    meet(str(at))
inner()
""".format(disguise, str(UNKNOWN), NEWER)) as victim:
        victim.tell("go")
        start = int(victim.line())
        truth, error = dumped(victim.pid, *arguments)
        assert truth and len(truth[0]) >= 3, error
        refused = 0
        with open("/proc/%d/mem" % victim.pid, "r+b", buffering=0) as memory:
            for at in range(start + 24, start + OFFSETS_SIZE[FOUND[-1].version[1]], 8):
                memory.seek(at)
                word = memory.read(8)
                memory.seek(at)
                memory.write((int.from_bytes(word, "little") + by & 0xffffffffffffffff).to_bytes(8, "little"))
                found, error = dumped(victim.pid, *arguments)
                memory.seek(at)
                memory.write(word)
                assert found in (None, truth), (at - start, found)
                if found is None:
                    refused += 1
                    assert error.count("\n") == 1 and "Python 3." in error, (at - start, error)
        assert 20 <= refused <= 60
        assert dumped(victim.pid, *arguments)[0] == truth
        assert victim.alive()
