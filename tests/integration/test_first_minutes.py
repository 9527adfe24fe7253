# SPDX-License-Identifier: MIT
"""What a person meets in the first ten minutes, and must not misread."""
import json
import os
import pathlib
import re
import shutil
import signal
import tempfile

import pytest

from helpers import PYLEAK, Pyleak, Victim, pyleak, skip_here, wait_hooked, wait_until
from terminals import Terminal


@pytest.fixture
def victim(python):
    with Victim(python) as running:
        yield running


@pytest.fixture
def folder():
    """Everybody's: another user can run the pyleak in it."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="pyleak-test-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def listed(pid, prefix=(), program=None, **keywords):
    """The process in `ps`: its document, and its line of the table."""
    keywords.update(prefix=(*prefix, program) if program else prefix)
    document = next(document for document in map(json.loads, pyleak("ps", "--format", "json", **keywords).stdout.splitlines())
                    if document["pid"] == pid)
    line = next(line for line in pyleak("ps", **keywords).stdout.splitlines() if line.split()[0] == str(pid))
    return document, line


# -- ps ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("engine", ["inline", "breakpoint"])
@pytest.mark.long
def test_another_pyleak_is_named(victim, engine):
    """ps, doctor and attach say the same of a process that a pyleak records: that it does, and which."""
    with Pyleak("attach", victim.pid, "--engine", engine, "-d", "60s", "--format", "json") as other:
        wait_hooked(victim.pid, other)
        document, line = listed(victim.pid)
        assert not document["attachable"] and str(other.pid) in document["reason"], document
        assert f"no: already recorded by {other.pid}" in line
        refused = pyleak("attach", victim.pid, "-d", "1s")
        assert refused.status == 1 and str(other.pid) in refused.stderr, refused
        checks = {check["name"]: check for check in
                  json.loads(pyleak("doctor", victim.pid, "--format", "json").stdout)["checks"]}
        assert str(other.pid) in checks["probe"]["text"], checks["probe"]
        other.finish(signal.SIGINT)
    wait_until(lambda: listed(victim.pid)[0]["attachable"], 5, "nobody records it any more")
    victim.check()


@pytest.mark.alike
def test_what_cannot_be_read_is_not_known(victim, folder):
    """Whether a probe is in a process that one may not read, nobody knows."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        skip_here("user")
    shutil.copy(PYLEAK, folder / "pyleak")
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c",
                 f'shift; exec {folder}/pyleak "$@"', "sh"]
    document, line = listed(victim.pid, prefix=as_nobody)
    assert document["probe"] is None and document["python"] is None and not document["attachable"], document
    assert re.search(r" no: other user +\? ", line), line
    assert listed(victim.pid)[0]["probe"] is False


# -- diff and attach --keep -------------------------------------------------------------------------

@pytest.mark.alike
def test_diff_that_ends_before_its_first_window(victim):
    """"+0 B" on every row would read as if nothing had grown."""
    with Pyleak("diff", victim.pid, "-i", "60s") as running:
        wait_hooked(victim.pid, running)
        result = running.finish(signal.SIGINT)
    assert result.status == 0 and "size=" in result.stdout, result
    assert "(+0" not in result.stdout, result
    assert "before the first window" in result.stderr, result
    victim.check()


@pytest.mark.long
def test_settings_that_a_probe_does_not_have(victim):
    """It keeps those that it was planted with, and says so to who asks for others; and to nobody else."""
    assert pyleak("attach", victim.pid, "--keep", "-f", "3", "--domain", "python").status == 0
    try:
        silent = pyleak("diff", victim.pid, "-i", "200ms")
        assert silent.status == 0 and "other settings" not in silent.stderr, silent
        silent = pyleak("diff", victim.pid, "-i", "200ms", "-f", "3", "--domain", "python")
        assert silent.status == 0 and "other settings" not in silent.stderr, silent
        told = pyleak("diff", victim.pid, "-i", "200ms", "-f", "25", "--sample", "512KiB", "--domain", "all",
                      "--tables", "64M")
        assert told.status == 0, told
        assert "3 frames" in told.stderr and "every allocation" in told.stderr and "native" in told.stderr, told
        assert "tables of at most a share" in told.stderr, told
        assert f"pyleak detach {victim.pid}" in told.stderr, told
        again = pyleak("attach", victim.pid, "--keep", "-f", "25")
        assert again.status == 0 and "3 frames" in again.stderr, again
    finally:
        assert pyleak("detach", victim.pid).status == 0
    victim.check()


# -- growth -----------------------------------------------------------------------------------------

@pytest.mark.long
def test_the_resident_size_is_that_of_the_last_moment(victim, tmp_path):
    """Not that of the moment after, when the recorder's tables have gone: the growth would be less than what is live."""
    path = tmp_path / "last.pyleak"
    assert pyleak("attach", victim.pid, "-d", "1500ms", "-i", "500ms", "-o", path).status == 0
    for document in (pyleak("report", path, "--format", "json").json(),
                     pyleak("attach", victim.pid, "-d", "1s", "--format", "json").json()):
        assert document["account"]["pyleak"]["after"] > 64 << 10, document["account"]
        assert document["account"]["growth"]["pyleak"] == document["account"]["pyleak"]["after"]
    victim.check()


@pytest.mark.long
def test_two_recordings_of_two_processes(python, tmp_path):
    """What is live in one is set against the other: nothing grew, in no time, and no older blocks were freed."""
    paths = [tmp_path / "one.pyleak", tmp_path / "other.pyleak"]
    for path in paths:
        with Victim(python) as running:
            assert pyleak("attach", running.pid, "-d", "500ms", "-o", path).status == 0
    text = pyleak("report", *paths).stdout
    assert "growth in" not in text and "difference of the two recordings: tracked " in text, text
    assert "\nRSS " not in text and "older blocks" not in text, text
    assert pyleak("report", *paths, "--format", "json").json()["account"] is None
    text = pyleak("report", paths[1]).stdout
    assert "growth in" in text and "\nRSS " in text, text


# -- rows -------------------------------------------------------------------------------------------

def test_a_function_is_shown_where_it_begins(python, tmp_path):
    """Not at the line in it that allocated first."""
    script = tmp_path / "grows.py"
    script.write_text('''import sys
kept = []
class Store:
    async def other(self):
        pass
    def keep(self, number):
        """Keeps it."""
        item = [number] * 10

        kept.append(item)
store = Store()
print("ready", flush=True)
for line in sys.stdin:
    for number in range(5000):
        store.keep(number)
    print("done", flush=True)
''')
    with Victim(python, script) as running:
        with Pyleak("attach", running.pid, "-g", "function", "-n", "0", "--color", "never") as pyleak_running:
            wait_hooked(running.pid, pyleak_running)
            running.tell("grow")
            assert running.line() == "done"
            text = pyleak_running.finish(signal.SIGINT).stdout
    row = text.index("grows.py:6 (")
    assert text[row:].splitlines()[1] == "    def keep(self, number):", text


FUNCTION = '''import sys
kept = []
def decorate(function):
    return function
class Store:
    @decorate
    def keep(self, number):
        """Keeps it."""
        item = [number] * 10

        kept.append(item)
store = Store()
print("ready", flush=True)
for line in sys.stdin:
    for number in range(5000):
        store.keep(number)
    print("done", flush=True)
'''


def test_a_function_of_a_recording(one_python, tmp_path):
    """Its beginning is in the recording, though no frame is there; the file itself may be gone."""
    script, tape = tmp_path / "grows.py", tmp_path / "grows.pyleak"
    script.write_text(FUNCTION)
    with Victim(one_python, script) as running:
        with Pyleak("attach", running.pid, "-o", tape) as recording:
            wait_hooked(running.pid, recording)
            running.tell("grow")
            assert running.line() == "done"
            assert recording.finish(signal.SIGINT).status == 0
    script.unlink()
    text = pyleak("report", tape, "-g", "function").stdout
    row = text.index("grows.py:7 (")
    assert text[row:].splitlines()[1] == "    def keep(self, number):", text


def test_a_function_in_the_live_view(one_python, tmp_path):
    script = tmp_path / "grows.py"
    script.write_text(FUNCTION)
    with Victim(one_python, script) as running, Terminal(tmp_path, columns=160) as terminal:
        terminal.command(PYLEAK, "attach", running.pid, "-g", "function")
        wait_hooked(running.pid)
        running.tell("grow")
        assert running.line() == "done"
        terminal.wait(lambda screen: re.search(r"grows.py:7 \(.*keep\): def keep\(self, number\):", screen))
        terminal.type("q")
        terminal.wait("total: size=")


@pytest.mark.alike
def test_what_was_written(victim, tmp_path):
    """Where somebody looks on, or asks for it."""
    path = tmp_path / "written.pyleak"
    result = pyleak("attach", victim.pid, "-d", "300ms", "-o", path, "-v")
    assert re.search(re.escape(str(path)) + r": [\d.]+ (B|KiB|MiB) written, \d+ snapshots? in [\d.]+ m?s; 'pyleak report ", result.stderr), result
    assert "written" not in pyleak("attach", victim.pid, "-d", "300ms", "-o", tmp_path / "again.pyleak").stderr
