# SPDX-License-Identifier: MIT
"""Makes its interpreter say that it is another minor version, then runs a program: newer.py MINOR PROGRAM ARGUMENTS…

Python reads its own version only while it starts. 3.13 and later: Py_Version, and the copy in _PyRuntime.
"""
import ctypes
import runpy
import sys

COPY = 8  # _Py_DebugOffsets: the cookie, then the version

version = ctypes.c_ulong.in_dll(ctypes.pythonapi, "Py_Version")
runtime = ctypes.c_ulong.in_dll(ctypes.pythonapi, "_PyRuntime")
said = (version.value & 0xff00ffff | int(sys.argv[1]) << 16).to_bytes(8, "little")
with open("/proc/self/mem", "r+b", buffering=0) as memory:
    for address in ctypes.addressof(version), ctypes.addressof(runtime) + COPY:
        memory.seek(address)
        memory.write(said)
del sys.argv[:2]
runpy.run_path(sys.argv[0], run_name="__main__")
