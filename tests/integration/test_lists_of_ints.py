# SPDX-License-Identifier: MIT
"""A service turns arrays into lists of ints and keeps them: 16.7 million live blocks from one line, all of them
counted, and the way there.

On the real numpy, of the distribution and of Python 3.6 with a wheel of the time, whose users met this one.
"""
import pytest

import pythons
import wheels
from conftest import all_pythons
from helpers import Victim, line_of, pyleak, skip_here
from programs import assert_nothing_lost

KEYS, ROWS, COLUMNS = 24, 400, 1740  # 16.7 million ints, none of them among those that Python keeps ready
FORMATTER = """\
def encode_to_json(karyogram):
    new_karyogram = {}
    for key, value in karyogram.items():
        new_karyogram[key] = value.astype(int).tolist()
    return new_karyogram
"""
APP = """\
import gc, json, sys, tracemalloc
import numpy
from formatter import encode_to_json

gc.disable()  # what it finds is not the point, and it takes its time
keys, rows, columns = map(int, sys.argv[1:])
KEPT = []

def infer():
    image = numpy.arange(rows * columns).reshape(rows, columns) + 1000.5
    result = {"chr%d" % i: image for i in range(keys)}
    result = encode_to_json(result)
    KEPT.append(result)

# How much is asked for an int, only tracemalloc says.
array = numpy.full(10000, 1000)
tracemalloc.start()
ints = array.tolist()
per_int = tracemalloc.get_traced_memory()[0] // 10000 - 8  # 8: in the list
tracemalloc.stop()
print("ready", flush=True)
sys.stdin.readline()
# What was parked in a free list when pyleak came has no line.
used_up = [[] for i in range(200)]
infer()
images = KEPT[0].values()
lists = [part for image in images for part in [image] + image]
ints = sum(len(row) for image in images for row in image)
header = sys.getsizeof([]) - list.__basicsize__
# Each list is an object and its items; the table of the dict is made on the same line.
print(json.dumps({"ints": ints, "count": ints + 2 * len(lists) + 1,
                  "size": ints * per_int + sum(map(sys.getsizeof, lists)) +
                          sys.getsizeof(KEPT[0]) - dict.__basicsize__ - header}), flush=True)
sys.stdin.readline()
"""

CHOSEN = [entry for entry in all_pythons()
          if entry.executable.startswith("/usr/bin/") or entry.version[:2] in wheels.OF]


@pytest.mark.parametrize("python", [entry.executable for entry in CHOSEN], ids=map(pythons.label, CHOSEN))
def test_lists_of_ints(python, tmp_path):
    entry = pythons.of(python)
    if not wheels.has(entry, "numpy"):
        skip_here("numpy")
    app, formatter = str(tmp_path / "app.py"), str(tmp_path / "formatter.py")
    for path, text in (app, APP), (formatter, FORMATTER):
        with open(path, "w") as file:
            file.write(text)
    with Victim(python, None, app, KEYS, ROWS, COLUMNS, env=wheels.environment(entry)) as victim:
        assert pyleak("attach", victim.pid, "--keep").status == 0
        says = victim.ask("go", 120)
        assert says["ints"] == KEYS * ROWS * COLUMNS
        document = pyleak("attach", victim.pid, "--duration", "20ms", "--format", "json").json()
        row, line = document["stats"][0], line_of(formatter, "tolist()")
        assert (row["filename"], row["lineno"], row["domain"]) == (formatter, line, "python"), row
        assert (row["size"], row["count"]) == (says["size"], says["count"]), (row, says)
        assert_nothing_lost(document)
        result = pyleak("attach", victim.pid, "--duration", "20ms")
        assert result.status == 0, result
        assert "%s:%d: size=%.0f MiB" % (formatter, line, says["size"] / (1 << 20)) in result.stdout, result
        assert "\n".join(traceback(says, app, formatter)) in result.stdout, result
        assert pyleak("detach", victim.pid).status == 0


def traceback(says, app, formatter):
    """As the command line promises it: most recent call last, each frame with its source line."""
    frames = [(app, "infer()"), (app, "result = encode_to_json(result)"),
              (formatter, "new_karyogram[key] = value.astype(int).tolist()")]
    yield "memory_blocks=%d size_kB=%.1f" % (says["count"], says["size"] / 1024)
    for path, source in frames:
        with open(path) as file:
            number = [line.strip() for line in file].index(source) + 1
        yield '  File "%s", line %d' % (path, number)
        yield "    " + source
