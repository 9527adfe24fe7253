# SPDX-License-Identifier: MIT
"""Keeps native blocks through each kind of word that may lead to the allocator, with the extension of words.c.

    words.py LIBRARY

Commands on stdin, one line of JSON for each:

    take WAY N [SIZE]  N blocks of 1000 bytes, each way from a line of its own: plt, loaded, data, stored, kept
    drop WAY [BY]      all of them, in the same way or another
    keep         pointers to the functions, as they are now, are kept on the heap: for the way "kept"
    differ       0 if the words that are compared hold the same
    hold N       a thread has the address of free() in a register that a deeper frame has pushed, and N blocks of 3000 bytes
    release      it frees them
    fork WAY     the exit status of a child that takes and drops
    exit
"""
import ctypes
import json
import os
import sys

library = ctypes.PyDLL(sys.argv[1])  # calls keep the GIL
library.words_take.restype = ctypes.c_void_p
library.words_take.argtypes = [ctypes.c_int, ctypes.c_size_t]
library.words_drop.argtypes = [ctypes.c_int, ctypes.c_void_p]
WAYS = ["plt", "loaded", "data", "stored", "kept"]
kept = {way: [] for way in WAYS}


def by_plt(size): return library.words_take(0, size)  # line: plt
def by_loaded(size): return library.words_take(1, size)  # line: loaded
def by_data(size): return library.words_take(2, size)  # line: data
def by_stored(size): return library.words_take(3, size)  # line: stored
def by_kept(size): return library.words_take(4, size)  # line: kept
def hold(count): return library.words_hold(count)  # line: hold


FUNCTIONS = [by_plt, by_loaded, by_data, by_stored, by_kept]


def take(way, count, size=1000):
    for _ in range(count):
        block = FUNCTIONS[WAYS.index(way)](size)
        assert block
        kept[way].append(block)


def drop(way, by=None):
    for block in kept[way]:
        library.words_drop(WAYS.index(by or way), block)
    del kept[way][:]


def obey(command, *arguments):
    if command == "take":
        return take(arguments[0], *map(int, arguments[1:]))
    if command == "drop":
        return drop(*arguments)
    if command == "keep":
        return library.words_keep() and None
    if command == "differ":
        return library.words_differ()
    if command == "hold":
        return hold(int(arguments[0]))
    if command == "release":
        return library.words_release()
    if command == "fork":
        pid = os.fork()
        if not pid:
            take(arguments[0], 100)
            drop(arguments[0])
            os._exit(42)
        return os.waitpid(pid, 0)[1] >> 8
    sys.exit()


print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(obey(*line.split())), flush=True)
