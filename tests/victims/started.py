# SPDX-License-Identifier: MIT
"""A program whose own code allocates from its first line on: at import, in a module of its own, in what it runs.

With tracemalloc on it prints what that has of this file, one [line, size, count] each: tracemalloc counts blocks that lie in
CPython's free lists as if they were in use, and knows nothing of those that lay there before it began, so the lists are
emptied first and last. Then it waits until its standard input ends, writes a word into the file that is named, if one is,
and ends with status 7.
"""
import gc
import json
import sys

gc.collect()

TABLE = {"key-%d" % number: [number] * 3 for number in range(2000)}


class Kept:
    def __init__(self, number):
        self.name = "name-%d" % number
        self.values = [float(number)] * 4


KEPT = [Kept(number) for number in range(1000)]
BYTES = [bytes(1000 + number) for number in range(300)]
for number in range(500):
    KEPT.append(Kept(number))
    bytearray(5000)  # dropped at once

gc.collect()
if "tracemalloc" in sys._xoptions:
    import tracemalloc
    FOUND = [[trace.traceback[0].lineno, trace.size, trace.count]
             for trace in tracemalloc.take_snapshot().statistics("lineno")
             if trace.traceback[0].filename == __file__]
    print(json.dumps(FOUND), flush=True)
else:
    print("done", flush=True)
sys.stdin.read()
if len(sys.argv) > 1:
    with open(sys.argv[1], "w") as file:
        file.write("whole")
sys.exit(7)
