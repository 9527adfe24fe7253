# SPDX-License-Identifier: MIT
"""--holders: who keeps the live blocks of a row, by the blocks' own addresses."""
import json
import os
import re
import signal
import time

import pytest

import test_exports
from helpers import PATIENCE, PYLEAK, Pyleak, Trace, Victim, pyleak, state, wait_clean, wait_hooked, wait_until
from programs import Program
from terminals import Frozen

# Each function allocates on lines of its own when it is told to; what is named after it holds that.
PROGRAM = '''
import collections, gc, sys, threading
class Report:
    cache = []
class Thing:
    pass
service = Thing()
service.inner = Thing()
IMPORTS, QUEUE, SEEN, FIRST, SECOND = {}, collections.deque(), set(), [], {}
def imports(n):
    for i in range(n):
        IMPORTS[i] = [str(i + 100000), i + 0.5]
def attribute(n):
    service.inner.items = [str(i + 200000) for i in range(n)]
def class_attribute(n):
    Report.cache.extend([i + 0.5] for i in range(n))
def queue(n):
    for i in range(n):
        QUEUE.append(i + 300000.5)
def seen(n):
    for i in range(n):
        SEEN.add("seen %d" % i)
def shared(n):
    for i in range(n):
        FIRST.append(Thing())
    SECOND.update(enumerate(FIRST))
def cycles(n):
    gc.disable()
    for i in range(n):
        ring = [i + 0.5]; ring.append(ring)
def local(n):
    def work():
        rows = [str(i + 400000) for i in range(n)]
        ready.set()
        threading.Event().wait()
    ready = threading.Event()
    threading.Thread(target=work, daemon=True).start()
    ready.wait()
print("ready", flush=True)
for line in sys.stdin:
    name, number = line.split()
    globals()[name](int(number))
    print("done", flush=True)
'''


def line_of(text):
    return 1 + [line.strip() for line in PROGRAM.splitlines()].index(text)


LINES = {
    "imports": ("IMPORTS[i] = [str(i + 100000), i + 0.5]", r"__main__\.IMPORTS"),
    "attribute": ("service.inner.items = [str(i + 200000) for i in range(n)]", r"__main__\.service\.inner\.items"),
    "class_attribute": ("Report.cache.extend([i + 0.5] for i in range(n))", r"__main__\.Report\.cache"),
    "queue": ("QUEUE.append(i + 300000.5)", r"__main__\.QUEUE"),
    "seen": ('SEEN.add("seen %d" % i)', r"__main__\.SEEN"),
    "cycles": ("ring = [i + 0.5]; ring.append(ring)", r"garbage in cycles"),
    "local": ("rows = [str(i + 400000) for i in range(n)]", r".*work\(\):rows"),
}


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def record(victim, commands, *arguments):
    """The report of an attach that saw these commands."""
    with Pyleak("attach", victim.pid, "--holders", *arguments) as running:
        wait_hooked(victim.pid, running)
        for command in commands:
            victim.tell(command)
            assert victim.line() == "done"
        return running.finish(signal.SIGINT)


def row_of(document, line):
    return next(row for row in document["stats"] if row["filename"].endswith("program.py") and row["lineno"] == line)


def test_each_kind(python, program):
    """The variable, and all of the blocks of the line."""
    with Victim(python, program) as victim:
        result = record(victim, ["%s 3000" % name for name in LINES], "--format", "json", "-n", 25)
        assert result.status == 0 and result.stderr == "", result
        document = result.json()
    assert document["stop_ms"] > 0
    for name, (text, path) in LINES.items():
        row = row_of(document, line_of(text))
        first = row["held_by"][0]
        assert re.fullmatch(path, first["path"]), (name, row["held_by"])
        # Blocks of a new container's table, of frames that are parked and the like are others'.
        assert first["count"] >= 0.97 * row["count"] - 2, (name, row)
        assert 0.97 * row["count"] - 2 <= row["held_of"]["count"] <= row["count"], (name, row)
        assert first["size"] >= 0.9 * row["size"], (name, row["count"], row["size"], row["held_by"], row["held_of"])


def test_what_two_variables_hold(python, program):
    """It counts at both."""
    with Victim(python, program) as victim:
        document = record(victim, ["shared 3000"], "--format", "json", "-n", 25).json()
    row = row_of(document, line_of("FIRST.append(Thing())"))
    counts = {holder["path"]: holder["count"] for holder in row["held_by"]}
    assert counts["__main__.FIRST"] >= 3000 and counts["__main__.SECOND"] >= 3000, row


def test_what_a_library_keeps_for_an_object(one_python, tmp_path):
    """sqlite3's pages are six blocks away from the connection, and each pointer leads behind a size of sqlite3's
    own."""
    script = tmp_path / "program.py"
    script.write_text("""
import sqlite3, sys
KEPT = []
print("ready", flush=True)
sys.stdin.readline()
for _ in range(300):
    connection = sqlite3.connect(":memory:")
    connection.execute("create table t (a, b)")
    connection.executemany("insert into t values (?, ?)", [(i, "x" * 50) for i in range(100)])
    KEPT.append(connection)
print("done", flush=True)
sys.stdin.readline()
""")
    with Victim(one_python, script) as victim:
        document = record(victim, ["go"], "--format", "json", "-n", 25).json()
    for line in (7, 8, 9):
        row = max((row for row in document["stats"] if row["filename"].endswith("program.py") and row["lineno"] == line),
                  key=lambda row: row["size"])
        first = row["held_by"][0]
        assert first["path"] == "__main__.KEPT" and first["count"] >= 0.9 * row["held_of"]["count"], row
        assert row["count"] > 2000, row


def test_text(one_python, program):
    """Below its row, and the same number as JSON has."""
    with Victim(one_python, program) as victim:
        lines = record(victim, ["imports 3000"], "-n", 3).stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if "program.py:%d: " % line_of(LINES["imports"][0]) in line)
    count = int(re.search(r"count=(\d+)", lines[at])[1])
    held = next(line for line in lines[at:] if "held by" in line)
    found = re.fullmatch(r"    # held by: __main__\.IMPORTS \(([\d,]+) of ([\d,]+) blocks\)", held)
    assert found and int(found[1].replace(",", "")) >= 0.99 * count, lines


def test_diff(one_python, program):
    """The last difference has it, and the process is let go."""
    with Victim(one_python, program) as victim:
        with Pyleak("diff", victim.pid, "-i", "1s", "--holders", "--format", "json", "-n", 3) as running:
            wait_hooked(victim.pid, running)
            victim.tell("imports 3000")
            assert victim.line() == "done"
            result = running.finish()
        assert result.status == 0, result
        row = row_of(result.json(), line_of(LINES["imports"][0]))
        assert row["held_by"][0]["path"] == "__main__.IMPORTS" and row["held_by"][0]["count"] >= 8990, row
        victim.tell("imports 10")
        assert victim.line() == "done"


def test_samples(one_python, program):
    """Of a sample, what its blocks stand for; of very many blocks, some thousands."""
    with Victim(one_python, program) as victim:
        sampled = record(victim, ["imports 60000"], "--format", "json", "--sample", "512").json()
    row = row_of(sampled, line_of(LINES["imports"][0]))
    assert row["held_by"][0]["path"] == "__main__.IMPORTS", row
    assert row["held_by"][0]["count"] == pytest.approx(row["count"], rel=0.05), row
    assert row["held_of"]["looked_at"] < 0.5 * row["held_of"]["count"], row
    with Victim(one_python, program) as victim:
        whole = record(victim, ["imports 60000"], "--format", "json", "-n", 2).json()
    row = row_of(whole, line_of(LINES["imports"][0]))
    assert row["held_by"][0]["path"] == "__main__.IMPORTS", row
    assert row["held_by"][0]["count"] == pytest.approx(row["count"], rel=0.02), row
    assert row["held_of"]["looked_at"] <= 32768 < row["count"], row


def test_page(one_python, program, tmp_path):
    """On the page too."""
    with Victim(one_python, program) as victim:
        result = record(victim, ["imports 3000"], "-o", tmp_path / "leak.html")
        assert result.status == 0, result
    page = test_exports.open_page(tmp_path / "leak.html", tmp_path)
    assert re.search(r"held by: __main__\.IMPORTS \([\d,]+ of [\d,]+ blocks\)", page)


def test_a_stop_that_is_too_long(one_python, program):
    """The report is there all the same, and status 1 says that something is missing."""
    with Victim(one_python, program) as victim:
        result = record(victim, ["imports 3000"], "--max-stop", "1ms", "--format", "json")
        assert result.status == 1 and "--max-stop" in result.stderr, result
        assert "held_by" not in result.json()["stats"][0]
        victim.tell("imports 10")
        assert victim.line() == "done"


def test_run(one_python, program):
    """A program that was started: as long as it runs."""
    result = pyleak("run", "-d", "2s", "--holders", "--format", "json", "-n", 0, "--", one_python, "-c",
                    "import time\nKEPT = [[i] for i in range(30000)]\ntime.sleep(4)")
    document = result.json()
    row = next(row for row in document["stats"] if row["filename"] == "<string>" and row["lineno"] == 2)
    assert row["held_by"][0]["path"] == "__main__.KEPT", row
    result = pyleak("run", "--holders", "--format", "json", "--", one_python, "-c", "KEPT = [[i] for i in range(3000)]")
    assert result.status == 0 and "--duration" in result.stderr, result


def test_a_family(one_python, tmp_path):
    """Children's blocks are looked for in the children."""
    path = tmp_path / "program.py"
    path.write_text("import os, time\nprint('ready', flush=True)\nchild = not os.fork()\ntime.sleep(1.2)\nKEPT = [[i] for i in range(9000)]\ntime.sleep(30)\n")
    with Victim(one_python, path) as victim:
        result = pyleak("attach", victim.pid, "--children", "-d", "2500ms", "--holders", "--format", "json")
        document = result.json()
        row = row_of(document, 5)
        assert len(document["pids"]) == 2, document["pids"]
        assert row["held_by"][0]["path"] == "__main__.KEPT" and row["held_by"][0]["count"] >= 18000, row
        for pid in document["pids"]:
            if pid != victim.pid:
                import os
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("arguments", [["--keep"], ["--engine", "breakpoint"], ["--format", "csv"]])
def test_what_cannot_be(one_python, arguments):
    result = pyleak("attach", 1, "--holders", *arguments)
    assert result.status == 2 and "--holders" in result.stderr, result


def test_default_arguments_and_modules(one_python, tmp_path):
    """A default argument is named as one would write it; of modules under ever new names, what keeps them all."""
    script = tmp_path / "program.py"
    script.write_text('''
import sys, types
def seen(number, kept=[], *, by_name={}):
    kept.append(number + 0.5)
    by_name[number] = str(number + 500000)
def module(number):
    sys.modules["tenant_%d" % number] = made = types.ModuleType("tenant_%d" % number)
    made.LIMITS = {"a": number + 0.25}
print("ready", flush=True)
for line in sys.stdin:
    for number in range(3000):
        seen(number)
        module(number)
    print("done", flush=True)
''')
    with Victim(one_python, script) as victim:
        with Pyleak("attach", victim.pid, "--holders", "-n", "0", "--format", "json") as running:
            wait_hooked(victim.pid, running)
            victim.tell("go")
            assert victim.line() == "done"
            document = running.finish(signal.SIGINT).json()
    held = {row["lineno"]: row["held_by"][0]["path"] for row in document["stats"] if row["filename"] == str(script) and row.get("held_by")}
    assert held[4] == "seen.__defaults__[0]", held
    assert held[5].startswith("seen.__kwdefaults__"), held
    assert held[8] == "sys.modules", held


def wait_for(view, text):
    """Until the view has written this."""
    written = [b""]

    def there():
        written[0] += view.read()
        return text in written[0]
    wait_until(there, 20, "in the view: %s" % text)


def test_killed_in_the_live_view(one_python):
    """While a key of the live view asks who holds a row: the process goes on, and nothing stays in it."""
    with Victim(one_python, "host.py", "--threads", 3, "--light") as victim:
        victim.check()
        before = Trace(victim.pid)
        for i in range(6):
            with Frozen(PYLEAK, "attach", victim.pid) as view:
                wait_for(view, b"host.py")
                os.write(view.master, b"\r")
                view.read()
                os.write(view.master, b"h")
                time.sleep(0.02 * i)
                view.process.kill()
                view.process.wait()
            wait_until(lambda: state(victim.pid) in "RSD", 5, "it runs")
            victim.check()
            wait_clean(victim.pid, 10)
        assert not before.differences(victim.pid)


ENDING = """
KEPT = {}
def leak(number):
    KEPT[number] = ["value %d" % number]  # at leak
class Slow:
    def __del__(self, sleep=time.sleep):
        sleep(60)
_slow = Slow()
def work(count, ends):
    time.sleep(2)
    for number in range(count):
        leak(number)
    sys.stdout.write("leaked\\n"); sys.stdout.flush()
    while os.getppid() == parent:
        time.sleep(0.05)
        if ends and os.path.exists(sys.argv[1]):
            sys.exit()
parent = os.getpid()
for count, ends in (5000, True), (3000, False):
    if os.fork() == 0:
        work(count, ends)
        os._exit(0)
meet("ready")
time.sleep(1000)
"""


def test_of_an_interpreter_that_ends(one_python, tmp_path):
    """It has let go of its modules: who holds the blocks of the row is what the other worker says."""
    word = tmp_path / "end"
    with Program(one_python, tmp_path, ENDING, word) as victim:
        with Pyleak("attach", victim.pid, "--children", "--holders", "-d", "%gs" % (6 * PATIENCE), "--format", "json", "-n", 0) as running:
            assert [victim.line(60), victim.line(60)] == ["leaked"] * 2
            time.sleep(PATIENCE)
            word.write_text("")
            document = running.finish(seconds=60).json()
        os.kill(victim.pid, signal.SIGKILL)
    [row] = [row for row in document["stats"] if row["lineno"] == victim.lines["leak"] and row["filename"] == victim.path]
    assert row["count"] > 16000, row
    assert {holder["path"] for holder in row["held_by"]} == {"__main__.KEPT"}, row["held_by"]
