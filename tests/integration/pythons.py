# SPDX-License-Identifier: MIT
"""The Python interpreters to test with: those of this machine, and those that tools/pythons made.

PYLEAK_PYTHONS names more (paths, separated by colons); PYLEAK_PYTHONS_DIR is where tools/pythons keeps
its own (empty: none of them).
"""

import collections
import glob
import os
import pathlib
import re
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = ["python3"] + ["python3.%d" % minor for minor in range(6, 16)]
MADE = os.environ.get("PYLEAK_PYTHONS_DIR", os.path.expanduser("~/.cache/pyleak-pythons"))

# What the interpreters in a root of their own see of this machine, besides /tmp.
os.environ["PYLEAK_SHARE"] = ":".join(sorted({str(ROOT), os.path.realpath(os.environ.get("PYLEAK_BUILD", str(ROOT)))}))

# `executable` is what to run; for a Python in a root (`root`, else None) a script that enters it. `level` is "rc2" of
# a version that is not yet released, else empty.
Python = collections.namedtuple("Python", "version executable free_threaded root level")


def _candidates():
    yield from filter(None, os.environ.get("PYLEAK_PYTHONS", "").split(":"))
    for folder in os.environ.get("PATH", "").split(":") + ["/usr/bin", "/usr/local/bin"]:
        for name in NAMES:
            yield os.path.join(folder, name)
    yield from glob.glob(os.path.expanduser("~/.pyenv/versions/*/bin/python3"))
    if MADE:
        yield from glob.glob(os.path.join(MADE, "bin", "python*"))


def _root(path):
    """The root that a script of tools/pythons enters, or None."""
    with open(path, "rb") as file:
        match = re.match(rb"#!/bin/bash\n# Made by tools/pythons.\nroot=(\S+) ", file.read(1000))
    return match and match.group(1).decode()


def _ask(path):
    """A Python (with the real executable: a shim of a version manager is not it), or None."""
    program = "import sys, os, sysconfig; print('%d.%d.%d' % sys.version_info[:3]); " \
        "print(os.path.realpath(sys.executable)); print(int(sysconfig.get_config_var('Py_GIL_DISABLED') or 0)); " \
        "print({'alpha': 'a%d', 'beta': 'b%d', 'candidate': 'rc%d'}.get(sys.version_info[3], '%.0s') % sys.version_info[4])"
    try:
        root = _root(path)
        output = subprocess.run([path, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                timeout=30).stdout.decode()
        version, executable, free_threaded, level = output.split("\n")[:4]
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    version = tuple(map(int, version.split(".")))
    return Python(version, path if root else executable, bool(int(free_threaded)), root, level)


_found = None


def pythons():
    """The Pythons, each executable once, oldest first."""
    global _found
    if _found is None:
        paths = {os.path.realpath(path) for path in _candidates() if shutil.which(path)}
        answers = {python.executable: python for python in filter(None, map(_ask, sorted(paths)))}
        _found = sorted((python for python in answers.values() if python.version >= (3, 6)),
                        key=lambda python: (python.version, python.free_threaded, python.executable))
    return list(_found)


def of(executable):
    """The Python that this path runs."""
    return next(python for python in pythons() if python.executable == executable)


def version_text(python):
    """As pyleak writes it."""
    return "%d.%d.%d" % python.version + python.level + "t" * python.free_threaded


def label(python):
    """A name for a test's parameter."""
    return version_text(python) + ("-" + os.path.basename(python.root) if python.root else "")


if __name__ == "__main__":
    for found in pythons():
        print(version_text(found), found.executable)
