# SPDX-License-Identifier: MIT
"""Has a thread of workers.c work: workers.py LIBRARY; "work N" on stdin, N times two lines of which one keeps memory."""
import ctypes
import json
import sys
import time

library = ctypes.CDLL(sys.argv[1])
assert library.workers_start() == 0


def work(rounds):
    for _ in range(rounds):
        library.workers_use(bytes(300), 3)  # line: uses
        library.workers_keep(bytes(300), 1)  # line: keeps
        time.sleep(0.001)


print("ready", flush=True)
for line in sys.stdin:
    command, *numbers = line.split()
    if command != "work":
        break
    print(json.dumps(work(*map(int, numbers))), flush=True)
