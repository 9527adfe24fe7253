# SPDX-License-Identifier: MIT
"""Code objects that die while blocks of theirs live on, and whose addresses are used again."""
import os

import pytest

from helpers import PATIENCE
from programs import Program, assert_nothing_lost, at, control, figures, recorded

LOST = "<lost>", "<unknown>"


def test_functions_replaced(python, tmp_path):
    functions_replaced(python, tmp_path, 16)


def test_functions_replaced_one_frame(one_python, tmp_path):
    functions_replaced(one_python, tmp_path, 1)


def functions_replaced(python, tmp_path, frames):
    """Functions made, called and dropped: their code objects are at a few addresses, over and over."""
    with Program(python, tmp_path, """
NAMES = ["made-%d.py" % i for i in range(50)]
kept = [None] * 5000
def keep(i):
    space = {}
    text = "\\n" * (i % 40) + "def f(number):\\n    return bytes(number)\\n"
    exec(compile(text, NAMES[i % 50], "exec"), space)
    kept[i] = space["f"](100 + i % 7)
meet("ready")
for i in range(5000):
    keep(i)
gc.collect()
meet("done")
""") as victim:
        with recorded(victim, "--frames", frames) as record:
            victim.meet("done")
    expected = {}
    for i in range(5000):
        key = "made-%d.py" % (i % 50), i % 40 + 2
        size, count = expected.get(key, (0, 0))
        expected[key] = size + (victim.header + 100 + i % 7), count + 1
    found = {key: value for key, value in figures(record.document, victim).items() if key[0].startswith("made-")}
    assert found == expected
    assert_nothing_lost(record.document)


@pytest.mark.long
def test_same_source(python, tmp_path):
    """100,000 evaluations of one source are one code object to the tables."""
    with Program(python, tmp_path, """
kept = [None] * 1000
dot = b"."
def run():
    for i in range(100000):
        thing = eval("dot * 200")
        if i % 100 == 0:
            kept[i // 100] = thing
eval("dot * 200")
meet("ready")
run()
meet("done")
""") as victim:
        with recorded(victim) as record:
            victim.meet("done")
            counters = control(victim.pid)
    assert figures(record.document, victim)["<string>", 1] == (1000 * (victim.header + 200), 1000)
    assert_nothing_lost(record.document)
    assert counters["next_code"] < 1000, counters
    assert counters["next_site"] < 2000, counters
    assert counters["lost_codes"] == 0, counters


def many_sources(python, folder, number):
    with Program(python, folder, """
kept = [None] * {0}
dot = b"."
eval(compile("dot * 100", "before.py", "eval"))
def run():
    for i in range({0}):
        kept[i] = eval(compile("\\n" * (i % 100) + "dot * 100", "source-%d.py" % i, "eval"))
meet("ready")
run()
meet("done")
""".format(number)) as victim:
        with recorded(victim) as record:
            victim.meet("done", 120)
            counters = control(victim.pid)
    found = {key: value for key, value in figures(record.document, victim).items() if key[0].startswith("source-")}
    right = {("source-%d.py" % i, i % 100 + 1): ((victim.header + 100), 1) for i in range(number)}
    assert set(found) <= set(right), "lines that do not exist: %s" % sorted(set(found) - set(right))[:10]
    return found, right, record.document, counters


def test_different_sources(python, tmp_path):
    found, right, document, _ = many_sources(python, tmp_path, 20000)
    assert found == right
    assert_nothing_lost(document)


def test_more_sources_than_fit(one_python, tmp_path):
    """The table of code objects is full: the rest has no name, but is counted, and said to be lost."""
    found, right, document, counters = many_sources(one_python, tmp_path, 136000)
    assert all(value[1] == 1 for value in found.values())
    assert 100000 < len(found) < 140000
    nameless = [row for row in document["stats"] if row["filename"] in LOST]
    missing = len(right) - len(found)
    assert sum(row["count"] for row in nameless) >= missing
    assert counters["lost_codes"] > 0
    assert document["lost"]["sites"] > 0


def test_reloaded_module(python, tmp_path):
    (tmp_path / "changing.py").write_text("def make(n):\n    return bytes(n)\n")
    with Program(python, tmp_path, """
import importlib
sys.dont_write_bytecode = True
import changing
kept = [None] * 600
meet("ready")
for version in range(3):
    with open(changing.__file__, "w") as file:
        file.write("\\n" * (10 * version) + "def make(n):\\n    return bytes(n)\\n" + "# %d" % version * (version + 1))
    importlib.invalidate_caches()
    importlib.reload(changing)
    for i in range(200):
        kept[200 * version + i] = changing.make(300)
meet("done")
""") as victim:
        with recorded(victim) as record:
            victim.meet("done")
    found = {key[1]: value for key, value in figures(record.document, victim).items() if key[0] == "changing.py"
             and value[0] > 10000}
    assert found == {line: (200 * (victim.header + 300), 200) for line in (2, 12, 22)}


def test_generated_classes(python, tmp_path):
    """namedtuple() and dataclass() compile what they make; the lines are those of the generated text."""
    with Program(python, tmp_path, """
import collections, functools
try:
    import dataclasses
except ImportError:
    dataclasses = None
kept = [None] * 4000
position = iter(range(4000))
def keep(thing):
    kept[next(position)] = thing
def tuples():
    for i in range(30):
        made = collections.namedtuple("Pair%d" % (i % 3), "left right")
        for k in range(20):
            data = b"." * (400 + k)  # at left
            keep(made(data, None))
def classes():
    for i in range(30):
        fields = [("data", bytes, dataclasses.field(default_factory=functools.partial(bytes, 500)))]
        made = dataclasses.make_dataclass("Made%d" % (i % 3), fields)
        for k in range(20):
            keep(made().data)
meet("ready")
tuples()
if dataclasses:
    classes()
meet("done" if dataclasses else "none")
""") as victim:
        with recorded(victim) as record:
            victim.tell("go")
            generated = victim.line(60) == "done"
    assert_nothing_lost(record.document)
    left = at(record.document, victim)["left"]
    assert left[1] == 600 and left[0] == 30 * sum((victim.header + 400 + k) for k in range(20))
    rows = [row for row in record.document["stats"] if row["filename"].startswith("<")
            and row["function"].endswith("__init__") and row["size"]]
    if generated:
        assert sum(row["count"] for row in rows) == 600, rows
        assert sum(row["size"] for row in rows) == 600 * (victim.header + 500)
        assert all(row["lineno"] in (2, 3) for row in rows), rows


def test_names(python, tmp_path):
    """File and function names of every width that str has."""
    names = ["ascii", "caf\u00e9", "\u0444\u0430\u0439\u043b", "\U0001f40d", "x" * 3000]
    with Program(python, tmp_path, """
names = {0}
kept = []
meet("ready")
for i, name in enumerate(names):
    space = {{}}
    function = "f" if len(name) > 2000 or i == 3 else name
    exec(compile("def %s():\\n    return bytes(100 + %d)" % (function, i), name + ".py", "exec"), space)
    kept.append(space[function]())
space = None # without a GIL the first call of a function makes a block that lives as long as its code
gc.collect()
meet("done")
""".format(ascii(names)), env=dict(os.environ, PYTHONIOENCODING="utf-8")) as victim:
        with recorded(victim) as record:
            victim.meet("done", 30 * PATIENCE)
    found = {(row["filename"], row["function"]): row["size"] for row in record.document["stats"]}
    for i, name in enumerate(names):
        function = "f" if len(name) > 2000 or i == 3 else name
        assert found.get((name + ".py", function)) == (victim.header + 100 + i)
