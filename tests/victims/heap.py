# SPDX-License-Identifier: MIT
"""Keeps objects of many types, some of them where others were freed, and says how many there are."""
import array
import collections
import datetime
import decimal
import gc
import io
import json
import os
import struct
import sys
import sysconfig


class Thing:
    def __init__(self, number):
        self.number = number
        self.others = [number]


class Slot:
    __slots__ = ("value",)


class Table(dict):
    pass


class Word(str):
    pass


class Queue(collections.deque):
    pass


def written(number):
    file = io.StringIO()
    file.write("x" * 1000)
    file.seek(number)  # it has a buffer of its own from then on
    file.read(1)
    return file


def slot(number):
    made = Slot()
    made.value = float(number)
    return made


kept = [[Thing(i) for i in range(5000)],
        # The others are freed: their memory looks as it did.
        [slot(i) for i in range(20000)][::2],
        [datetime.date.fromordinal(1 + i) for i in range(20000)][::2],
        [Table(number=i, other=i) for i in range(2000)],
        [Word(i) for i in range(3000)],
        [set(range(i, i + 20)) for i in range(1000)],
        [[i] * 100 for i in range(1000)],
        [bytearray(200000) for i in range(30)],
        [array.array("d", range(1000)) for i in range(100)]]

# What they have beside their own block. Not where the process is traced: buffers that nothing was written to have addresses in
# them of what lay there before.
owners = {} if "PYTHONMALLOC" in os.environ else {
    "collections.deque": [collections.deque(range(1000)) for i in range(300)],
    "__main__.Queue": [Queue(range(1000)) for i in range(100)],
    "collections.OrderedDict": [collections.OrderedDict((j, None) for j in range(100)) for i in range(300)],
    "_io.StringIO": [written(i) for i in range(200)],
    "_io.BufferedReader": [io.BufferedReader(io.BytesIO(b"x"), 4096) for i in range(200)],
    "_struct.Struct": [struct.Struct("hqi" * 20) for i in range(200)],
    "decimal.Decimal": [decimal.Decimal("1." + "2" * 500) for i in range(500)],
    "code": [compile("def f(a):\n    return a + %d" % i, "f", "exec").co_consts[0] for i in range(2000)]}
# What the digits of a number and the codes of a Struct take is in no sizeof on all versions.
beside = {"_io.StringIO": 4000, "_io.BufferedReader": 4096, "_struct.Struct": 60 * 32, "decimal.Decimal": 200}
gc.collect()

counts, sizes = collections.Counter(), collections.Counter()


def note(made):
    counts[type(made).__name__] += 1
    sizes[type(made).__name__] += sys.getsizeof(made)


for made in gc.get_objects():
    note(made)
for made in kept[2] + [datetime.date.min, datetime.date.max]:
    note(made)  # these are none of the collector's
# Of exactly these types nobody else has any; of the others there may be more.
exactly = ["Thing", "Slot", "Table", "Word"]
print(json.dumps({"free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
                  "exactly": {"datetime.date": [counts["date"], sizes["date"]],
                              **{"__main__." + name: [counts[name], sizes[name]] for name in exactly}},
                  "bytearray": [30, 30 * 200000],
                  "at_least": {"list": [counts["list"], sizes["list"]], "set": [counts["set"], sizes["set"]],
                               "array.array": [100, 100 * 8000],
                               **({"collections.deque": [300, 0]} if owners else {})},
                  "owners": {name: [len(made), sum(max(sys.getsizeof(one), beside.get(name, 0)) for one in made)]
                             for name, made in owners.items()}}), flush=True)
sys.stdin.read()
