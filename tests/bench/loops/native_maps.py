# SPDX-License-Identifier: MIT
"""A C++ extension that builds a std::map of 10,000 and drops it: a call of malloc for each node. It keeps the GIL."""
import ctypes
import os

library = ctypes.PyDLL(os.environ["PYLEAK_MAPS"])


def loop(n):
    for _ in range(n):
        library.maps_keep(10000)
        library.maps_drop()
