# SPDX-License-Identifier: MIT
"""The Python interpreters of this machine, for tests that run against each of them."""

import glob
import os
import shutil
import subprocess

NAMES = ["python3"] + ["python3.%d" % minor for minor in range(6, 16)]


def _candidates():
    yield from filter(None, os.environ.get("PYLEAK_PYTHONS", "").split(":"))
    for folder in os.environ.get("PATH", "").split(":") + ["/usr/bin", "/usr/local/bin"]:
        for name in NAMES:
            yield os.path.join(folder, name)
    yield from glob.glob(os.path.expanduser("~/.pyenv/versions/*/bin/python3"))


def _ask(path):
    """The version and the real executable (a shim of a version manager is not it), or None."""
    program = "import sys, os; print('%d.%d.%d' % sys.version_info[:3]); print(os.path.realpath(sys.executable))"
    try:
        output = subprocess.run([path, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                timeout=30).stdout.decode()
        version, executable = output.splitlines()
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return tuple(map(int, version.split("."))), executable


_found = None


def pythons():
    """A list of (version tuple, path of the executable), each executable once, oldest first."""
    global _found
    if _found is None:
        paths = {os.path.realpath(path) for path in _candidates() if shutil.which(path)}
        answers = filter(None, map(_ask, sorted(paths)))
        _found = sorted({executable: version for version, executable in answers}.items(), key=lambda item: item[1])
        _found = [(version, executable) for executable, version in _found if version >= (3, 6)]
    return list(_found)


if __name__ == "__main__":
    for version, executable in pythons():
        print("%d.%d.%d" % version, executable)
