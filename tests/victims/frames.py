# SPDX-License-Identifier: MIT
"""Drives the extensions of frames.c and frames_cpp.cpp.

    frames.py LIBRARY [C++ LIBRARY]

Commands on stdin, one line of JSON for each:

    work USES KEEPS ROUNDS SECONDS   buffers used and kept by one line, so often, in that time at least
    varied N, cpp N, python N, pythons N, contexts N, signals N, threads N BLOCKS
    fork N                           the exit status of a child that works so often
    exit
"""
import ctypes
import json
import os
import sys
import time

library = ctypes.PyDLL(sys.argv[1])  # calls keep the GIL
cpp = ctypes.PyDLL(sys.argv[2]) if len(sys.argv) > 2 else None
library.frames_contexts.restype = library.frames_signals.restype = ctypes.c_long


def work(uses, keeps, rounds, seconds):
    for _ in range(rounds):
        library.frames_work(uses, keeps)  # line: work
        time.sleep(seconds / rounds)


def obey(command, *numbers):
    if command == "work":
        return work(int(numbers[0]), int(numbers[1]), int(numbers[2]), float(numbers[3]))
    numbers = [int(n) for n in numbers]
    if command == "varied":
        for _ in range(numbers[0]):
            library.frames_varied(1)  # line: varied
            time.sleep(0.001)
        return None
    if command == "cpp":
        for _ in range(numbers[0]):
            cpp.frames_cpp(1)  # line: cpp
            time.sleep(0.001)
        return None
    if command == "python":
        for _ in range(numbers[0]):
            library.frames_python(ctypes.cast(ctypes.pythonapi.PyMem_RawMalloc, ctypes.c_void_p), 1)  # line: python
            time.sleep(0.01)
        return None
    if command == "pythons":
        # Five are freed for each that stays, all by functions of C, and more that the interpreter asks for itself.
        for _ in range(numbers[0]):
            library.frames_pythons(*(ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p) for name in ("PyMem_Malloc", "PyObject_Malloc", "PyMem_Free")), 5, 1)  # line: asked of it
            time.sleep(0.001)
        return None
    if command == "contexts":
        return library.frames_contexts(numbers[0])  # line: contexts
    if command == "signals":
        return library.frames_signals(numbers[0])  # line: signals
    if command == "threads":
        return library.frames_threads(*numbers)
    if command == "fork":
        pid = os.fork()
        if not pid:
            work(10, 10, numbers[0], 0)
            os._exit(42)
        return os.waitpid(pid, 0)[1] >> 8
    sys.exit()


print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(obey(*line.split())), flush=True)
