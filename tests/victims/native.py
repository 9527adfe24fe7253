# SPDX-License-Identifier: MIT
"""Keeps native blocks, each kind from a line of its own, through the extension of native.c.

    native.py LIBRARY

Commands on stdin, one line of JSON for each:

    take N         N blocks of each kind; the numbers of bytes by kind
    drop           all of them
    threads N M S  N threads of the library's own that keep M blocks of S bytes each
    threads_drop
    python N       N bytes objects of 5000 bytes: Python's own
    errno          0 if the allocators leave errno as they must
    fork           the exit status of a child that takes and drops
    exit
"""
import ctypes
import json
import os
import sys

library = ctypes.PyDLL(sys.argv[1])  # calls keep the GIL
library.native_take.restype = ctypes.c_void_p
library.native_take.argtypes = [ctypes.c_int, ctypes.c_size_t]
library.native_drop.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
library.native_threads.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_size_t]
take = library.native_take
kept, objects = [], []


def by_malloc(size): return take(0, size)  # line: malloc
def by_calloc(size): return take(1, size)  # line: calloc
def by_realloc(size): return take(2, size)  # line: realloc
def by_growth(size): return take(3, size)  # line: grown
def by_posix_memalign(size): return take(4, size)  # line: posix_memalign
def by_aligned_alloc(size): return take(5, size)  # line: aligned_alloc
def by_memalign(size): return take(6, size)  # line: memalign
def by_valloc(size): return take(7, size)  # line: valloc
def by_reallocarray(size): return take(8, size)  # line: by_reallocarray
def by_mmap(size): return take(9, size)  # line: mmap
def by_mremap(size): return take(10, size)  # line: mremap


KINDS = [by_malloc, by_calloc, by_realloc, by_growth, by_posix_memalign, by_aligned_alloc, by_memalign, by_valloc,
         by_reallocarray, by_mmap, by_mremap]


def drop_all():
    for kind, block, size in kept:
        library.native_drop(kind, block, size)
    del kept[:]


def obey(command, *numbers):
    numbers = [int(n) for n in numbers]
    if command == "take":
        for kind, function in enumerate(KINDS):
            for i in range(numbers[0]):
                size = (i % 5 + 1) * 8192 if kind >= 9 else 640 + 64 * (i % 40)
                block = function(size)
                assert block
                kept.append((kind, block, size))
        return [sum(size for k, _, size in kept if k == kind) for kind in range(len(KINDS))]
    if command == "drop":
        drop_all()
        return None
    if command == "threads":
        return library.native_threads(*numbers)
    if command == "threads_drop":
        return library.native_threads_drop() and None
    if command == "python":
        objects.extend(bytes(5000) for _ in range(numbers[0]))  # line: python
        return None
    if command == "errno":
        return library.native_errno()
    if command == "fork":
        pid = os.fork()
        if not pid:
            obey("take", 100)
            drop_all()
            os._exit(42)
        return os.waitpid(pid, 0)[1] >> 8
    sys.exit()


print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(obey(*line.split())), flush=True)
