# SPDX-License-Identifier: MIT
"""Wheels from the package index, in folders outside of the repository (PYLEAK_WHEELS_DIR, or ~/.cache/pyleak-wheels).
What is there is not fetched again.
"""
import glob
import os
import re
import shutil
import subprocess

CACHE = os.environ.get("PYLEAK_WHEELS_DIR", os.path.expanduser("~/.cache/pyleak-wheels"))
SECONDS = 1800


def python_of(version):
    """The Python of this minor version that the wheels are for; None: this machine has none."""
    found = sorted(glob.glob(os.path.expanduser("~/.pyenv/versions/%s.*/bin/python3" % version)))
    return found[-1] if found else shutil.which("python" + version)


def folder(library, python):
    """A folder with the library's packages; a text that says why there is none instead, as the second item."""
    # By this name a folder is known to hold libraries.
    name = re.sub("[^A-Za-z0-9._-]", "-", "-".join(library.packages)) + "-" + library.python
    path = os.path.join(CACHE, "suite", name, "site-packages")
    if os.path.exists(os.path.join(path, "complete")):
        return path, None
    os.makedirs(path, exist_ok=True)
    command = ["nice", python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade",
               "--only-binary", ":all:", "--target", path]
    try:
        result = subprocess.run(command + library.packages, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return None, "pip took more than %d s" % SECONDS
    lines = [line for line in result.stdout.decode(errors="replace").splitlines() if line.startswith("ERROR")]
    if result.returncode:
        return None, "pip: " + (lines or ["failed"])[-1]
    with open(os.path.join(path, "complete"), "w"):
        pass
    return path, None


def versions(path, packages):
    """name version, of what was asked for."""
    said = []
    for package in packages:
        name = re.split("[=<>]", package)[0]
        wanted = name.lower().replace("-", "_")
        for info in os.listdir(path):
            match = re.match("(.+)-([^-]+)[.]dist-info$", info)
            if match and match.group(1).lower().replace("-", "_") == wanted:
                said.append("%s %s" % (name, match.group(2)))
    return ", ".join(said)
