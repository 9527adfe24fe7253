# SPDX-License-Identifier: MIT
"""Blocks that are allocated where the way from one line of Python to the next leads through something else: a
decorator, a callback from C, a comprehension, a task, code from a string or a zip file, Cython, greenlets. The line,
the size, the count and the callers are exact."""
import os
import re
import subprocess
import zipfile

from helpers import skip_here
from programs import Program, assert_nothing_lost, recorded

COUNT = 100
KEEP = """
kept = [None] * 20000
place = iter(range(20000))
"""


class Ways:
    """What was recorded at the marked lines, with their callers."""

    def __init__(self, victim, document):
        self.victim, self.rows = victim, []
        self.version = tuple(int(digits) for digits in re.findall(r"\d+", document["python"])[:2])
        self.free_threaded = document["python"].endswith("t")
        self.marks = {number: name for name, number in victim.lines.items()}
        for row in document["stats"]:
            frames = [(frame["filename"], frame["lineno"]) for frame in row["traceback"]]
            if row["count"] and frames:
                self.rows.append((frames, row["size"], row["count"]))

    def name(self, frame):
        return self.marks.get(frame[1], frame[1]) if frame[0] == self.victim.path else frame

    def of(self, place):
        """{callers and the place itself, outermost first, by their marks: [size, count]}"""
        found = {}
        for frames, size, count in self.rows:
            if self.name(frames[-1]) == place:
                row = found.setdefault(" ".join(str(self.name(frame)) for frame in frames), [0, 0])
                row[0] += size
                row[1] += count
        return found

    def check(self, way, size, count=COUNT):
        place = way.split()[-1]
        found = self.of(place)
        if self.free_threaded:  # an object whose block comes from a thread's own list may be charged here too
            assert list(found) == [way] and count <= found[way][1] <= count + 3, found
        else:
            assert found == {way: [count * (self.victim.header + size), count]}, (way, found)


def ways_of(python, folder, text, environment=None):
    environment = dict(os.environ, **(environment or {}))
    with Program(python, folder, KEEP + text, env=environment) as victim:
        with recorded(victim, "--group-by", "traceback", "--frames", 16) as record:
            victim.meet("done")
        assert victim.alive()
    assert_nothing_lost(record.document)
    return Ways(victim, record.document)


def test_callbacks(python, tmp_path):
    """C between two frames of Python is not on the stack: the callback's caller is the line that calls C."""
    ways = ways_of(python, tmp_path, """
import ctypes, functools, re
def decorator(function):
    @functools.wraps(function)
    def wrapper(*arguments):
        return function(*arguments)  # at wrapper
    return wrapper
@decorator
@decorator
def decorated(i):
    kept[next(place)] = bytes(200)  # at decorated
def by_key(i):
    kept[next(place)] = bytes(210)  # at key
    return -i
def mapped(i):
    kept[next(place)] = bytes(220)  # at mapped
def substitute(match):
    kept[next(place)] = bytes(230)  # at substitute
    return ""
def reduce_two(a, b):
    kept[next(place)] = bytes(240)  # at reduced
class Missing(dict):
    def __missing__(self, key):
        kept[next(place)] = bytes(250)  # at missing
class Plain(object):
    pass
class Attributes(object):
    def __getattr__(self, name):
        kept[next(place)] = bytes(260)  # at attribute
        return 1
    def __del__(self):
        kept[next(place)] = bytes(270)  # at finalizer
def from_ctypes(a):
    kept[next(place)] = bytes(280)  # at ctypes
    return 0
from_c = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(from_ctypes)
def lazily(n):
    for i in range(n):
        kept[next(place)] = bytes(290)  # at generator
        yield i
def run():
    for i in range(100):
        decorated(i)  # at call-decorated
    sorted(range(100), key=by_key)  # at call-key
    list(map(mapped, range(100)))  # at call-mapped
    re.sub("x", substitute, "x" * 100)  # at call-substitute
    functools.reduce(reduce_two, range(101))  # at call-reduced
    missing, attributes = Missing(), Attributes()
    for i in range(100):
        missing[i]  # at call-missing
        attributes.unknown  # at call-attribute
        from_c(i)  # at call-ctypes
    gone = [Attributes() for _ in range(100)]
    del gone  # at call-finalizer
    attributes.__class__ = Plain
    max(lazily(100))  # at call-generator
meet("ready")
run()  # at run
meet("done")
""")
    for way, size in (("run call-decorated wrapper wrapper decorated", 200), ("run call-key key", 210),
                      ("run call-mapped mapped", 220), ("run call-reduced reduced", 240),
                      ("run call-missing missing", 250),
                      ("run call-attribute attribute", 260), ("run call-finalizer finalizer", 270),
                      ("run call-ctypes ctypes", 280), ("run call-generator generator", 290)):
        ways.check(way, size)
    substituted = ways.of("substitute")  # re.sub() of the library is in between
    assert sum(count for _, count in substituted.values()) - COUNT in range(4 if ways.free_threaded else 1), substituted
    assert all(way.startswith("run call-substitute ") for way in substituted), substituted


def test_comprehensions(python, tmp_path):
    """They are functions of their own before 3.12, and frames with them; their lines are the same."""
    ways = ways_of(python, tmp_path, """
def run():
    kept[next(place)] = [bytes(200) for _ in range(100)]  # at list
    kept[next(place)] = {i: bytes(210) for i in range(100)}  # at dict
    kept[next(place)] = [[bytes(220) for _ in range(10)] for _ in range(10)]  # at nested
    kept[next(place)] = list(bytes(230) for _ in range(100))  # at expression
    class Body(object):
        made = [bytes(240) for _ in range(100)]  # at body
    kept[next(place)] = Body
meet("ready")
run()  # at run
meet("done")
""")
    for mark, size in ("list", 200), ("dict", 210), ("nested", 220), ("expression", 230), ("body", 240):
        found = ways.of(mark)
        own = 2 + (ways.version < (3, 12))  # run() and the line, and a frame for each comprehension
        deepest = max(found, key=len).split()
        assert deepest[0] == "run" and deepest.count(mark) >= own - 1 and set(deepest[1:]) <= {mark, deepest[1]}, found
        # The containers themselves are made here too.
        others = 40 if mark == "nested" else 8
        assert COUNT <= sum(count for _, count in found.values()) <= COUNT + others, found
        assert 0 <= sum(size for size, _ in found.values()) - COUNT * (ways.victim.header + size) <= 16384, found


def test_tasks(python, tmp_path):
    """A task's stack begins at the event loop, whoever made it; what it awaits is above it."""
    ways = ways_of(python, tmp_path, """
import asyncio
async def leaf():
    await asyncio.sleep(0)
    kept[next(place)] = bytes(200)  # at leaf
async def middle():
    await leaf()  # at middle
async def top():
    await middle()  # at top
async def made_elsewhere():
    return [asyncio.ensure_future(top()) for _ in range(100)]
async def main():
    await asyncio.gather(*await made_elsewhere())
    async with lock():
        kept[next(place)] = bytes(210)  # at with
class lock(object):
    async def __aenter__(self):
        for i in range(100):
            kept[next(place)] = bytes(220)  # at enter
    async def __aexit__(self, *_):
        pass
meet("ready")
loop = asyncio.new_event_loop()
loop.run_until_complete(main())  # at run
loop.close()
meet("done")
""")
    found = ways.of("leaf")
    assert sum(count for _, count in found.values()) == COUNT, found
    assert sum(size for size, _ in found.values()) == COUNT * (ways.victim.header + 200), found
    for way in found:
        assert way.startswith("run ") and way.endswith(" top middle leaf") and "asyncio" in way, found
    assert 1 <= sum(count for _, count in ways.of("with").values()) <= 2  # and an object of asyncio's own
    assert sum(count for _, count in ways.of("enter").values()) == COUNT


def test_code_from_elsewhere(python, tmp_path):
    """From a string, from a zip file, and from what is frozen into the interpreter."""
    with zipfile.ZipFile(str(tmp_path / "zipped.zip"), "w") as archive:
        archive.writestr("from_zip.py", "def make(n):\n    return bytes(n)\n")
    ways = ways_of(python, tmp_path, """
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "zipped.zip"))
import from_zip, importlib._bootstrap
def run():
    space = {"kept": kept, "place": place}
    for i in range(100):
        exec("kept[next(place)] = bytes(200)", space)  # at exec
        kept[next(place)] = eval("bytes(210)")  # at eval
        kept[next(place)] = from_zip.make(220)  # at zip
        kept[next(place)] = importlib._bootstrap.ModuleSpec("name", None)  # at frozen
meet("ready")
run()  # at run
meet("done")
""")
    bodies = {}
    for frames, size, count in ways.rows:
        if len(frames) > 1 and ways.name(frames[-2]) in ("exec", "eval", "zip", "frozen"):
            bodies.setdefault(ways.name(frames[-2]), []).append((frames, size, count))
    for name, size, file in (("exec", 200, "<string>"), ("eval", 210, "<string>"),
                             ("zip", 220, "zipped.zip/from_zip.py")):
        wanted = [row for row in bodies[name] if COUNT <= row[2] <= COUNT + 3 * ways.free_threaded
                  and 0 <= row[1] - COUNT * (ways.victim.header + size) <= 500 * ways.free_threaded]
        assert len(wanted) == 1, bodies[name]
        frames = wanted[0][0]
        assert ways.name(frames[0]) == "run" and frames[-1][0].endswith(file), frames
        assert frames[-1][1] == (2 if name == "zip" else 1), frames
    frozen = bodies["frozen"]
    assert all(row[0][-1][0].startswith("<frozen importlib._bootstrap") for row in frozen), frozen
    assert sum(row[2] for row in frozen) > COUNT // 2, frozen  # how much is made there, changes as CPython specialises


CYTHON = """
def call(function, n):
    return [function(i) for i in range(n)]
def make(n, size):
    made = []
    for i in range(n):
        made.append(b"." * size)
    return made
cdef class Holder:
    cdef object thing
    def __init__(self, function):
        self.thing = function(1)
"""


def debian(module=None):
    """The distribution's own Python, if it has a module."""
    python = "/usr/bin/python3"
    probe = "import sys%s; print(sys.version_info[0])" % (", " + module if module else "")
    if not os.path.exists(python) or subprocess.run([python, "-c", probe], stdout=subprocess.DEVNULL,
                                                    stderr=subprocess.DEVNULL).returncode:
        return None
    return python


def cython(folder):
    """Builds the module for the distribution's Python."""
    python = debian("Cython")
    if not python:
        skip_here("cython")
    source = folder / "in_cython.pyx"
    source.write_text(CYTHON)
    subprocess.run([python, "-m", "cython", "-3", str(source)], check=True)
    paths = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('include'))"], check=True,
                           stdout=subprocess.PIPE).stdout.decode().strip()
    if not os.path.exists(os.path.join(paths, "Python.h")):
        skip_here("cython", "no headers in " + paths)
    subprocess.run(["cc", "-w", "-O1", "-shared", "-fPIC", "-I", paths, "-o", str(folder / "in_cython.so"),
                    str(folder / "in_cython.c")], check=True)
    return python


def test_cython(tmp_path):
    """Compiled functions have no frames: what they allocate is their caller's, and so is what they call."""
    ways = ways_of(cython(tmp_path), tmp_path, """
sys.path.insert(0, os.path.dirname(__file__))
import in_cython
def back(i):
    return bytes(200)  # at back
def run():
    kept[next(place)] = in_cython.call(back, 100)  # at call
    kept[next(place)] = in_cython.make(100, 210)  # at make
    for i in range(100):
        kept[next(place)] = in_cython.Holder(back_again)  # at holder
def back_again(i):
    return bytes(220)  # at again
meet("ready")
run()  # at run
meet("done")
""")
    ways.check("run call back", 200)
    ways.check("run holder again", 220)
    made = ways.of("make")
    assert list(made) == ["run make"], made
    assert made["run make"][1] in (COUNT + 1, COUNT + 2), made  # with the list, which grows
    assert 0 < made["run make"][0] - COUNT * (ways.victim.header + 210) < 2000, made


def test_greenlets(tmp_path):
    """Each has a stack of its own, and they take turns in the midst of everything."""
    python = debian("greenlet")
    if not python:
        skip_here("greenlet")
    ways = ways_of(python, tmp_path, """
import greenlet
main = greenlet.getcurrent()
class Switches(object):
    def __del__(self):
        main.switch()
def deep(n, number):
    if n:
        deep(n - 1, number)  # at deeper
    else:
        kept[next(place)] = bytes(200)  # at deep
        main.switch()
        kept[next(place)] = bytes(210)  # at back
        dropped = [(Switches(), 1.5), {"a": [number]}]
        del dropped
        kept[next(place)] = bytes(220)  # at after
def other(number):
    for _ in range(10):
        deep(4, number)  # at other
def run():
    made = [greenlet.greenlet(other) for _ in range(10)]
    while made:
        for number, one in enumerate(made):
            one.switch(number)  # at switch
            kept[next(place)] = bytes(230 + len(made) % 2)
        made = [one for one in made if not one.dead]
meet("ready")
run()  # at run
meet("done")
""")
    for mark, size in ("deep", 200), ("back", 210), ("after", 220):
        ways.check("other deeper deeper deeper deeper " + mark, size)
