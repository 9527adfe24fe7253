# SPDX-License-Identifier: MIT
"""Keeps objects of many types, some of them where others were freed, and says how many there are."""
import array
import collections
import datetime
import gc
import json
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
        [array.array("d", range(1000)) for i in range(100)],
        [collections.deque([i]) for i in range(300)]]
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
                              **{name: [counts[name], sizes[name]] for name in exactly}},
                  "bytearray": [30, 30 * 200000],
                  "at_least": {"list": [counts["list"], sizes["list"]], "set": [counts["set"], sizes["set"]],
                               "array.array": [100, 100 * 8000],
                               "collections.deque": [300, 0]}}), flush=True)
sys.stdin.read()
