# SPDX-License-Identifier: MIT
"""Libraries that no distribution has, or has any more: wheels from the package index, in a folder
outside of the repository (PYLEAK_WHEELS_DIR, or ~/.cache/pyleak-wheels). What is there is not fetched again.
"""
import contextlib
import fcntl
import os
import subprocess

import pythons
from helpers import skip_here

CACHE = os.environ.get("PYLEAK_WHEELS_DIR", os.path.expanduser("~/.cache/pyleak-wheels"))
# The last of each that came for it.
OF = {(3, 6): ["numpy==1.19.5", "matplotlib==3.3.4", "flask==2.0.3"]}


@contextlib.contextmanager
def locked(path):
    """Tests that run side by side fetch once."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def has_pip(python):
    return not python.root and not subprocess.run([python.executable, "-c", "import pip"], stdin=subprocess.DEVNULL,
                                                  stderr=subprocess.DEVNULL, check=False).returncode


def pip_of(python):
    """Its own pip, or, for a Python without one, the newest that there is: an old one may not know what is said of new wheels."""
    if has_pip(python):
        return [python.executable, "-m", "pip"]
    return [next((other.executable for other in reversed(pythons.pythons()) if has_pip(other)), "/usr/bin/python3"), "-m", "pip"]


def share():
    """Pythons in roots see the folder too."""
    os.makedirs(CACHE, exist_ok=True)
    if CACHE not in os.environ["PYLEAK_SHARE"].split(":"):
        os.environ["PYLEAK_SHARE"] += ":" + CACHE


def wanted_tags(python):
    """What another Python's pip has to be told of the one that the wheels are for."""
    if has_pip(python):
        return []
    abi = "cp%d%d" % python.version[:2] + "t" * python.free_threaded
    tags = ["--python-version", "%d.%d" % python.version[:2], "--implementation", "cp", "--abi", abi]
    for platform in ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux2014_x86_64", "manylinux_2_17_x86_64"):
        tags += ["--platform", platform]
    return tags


def fetch(python, name, packages):
    """A folder with these packages for this entry of pythons.pythons(), to put into PYTHONPATH."""
    # By this name a folder is known to hold libraries.
    name = os.path.join(CACHE, name, "site-packages")
    os.makedirs(name, exist_ok=True)
    share()
    with locked(name + ".lock"):
        if os.path.exists(os.path.join(name, "complete")):
            return name
        command = pip_of(python) + ["install", "--quiet", "--disable-pip-version-check", "--no-cache-dir",
                                    "--only-binary", ":all:", "--upgrade", "--target", name, "--timeout", "20", "--retries", "1"]
        command += wanted_tags(python)
        try:
            result = subprocess.run(command + packages, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                    stderr=subprocess.STDOUT, timeout=300, check=False)
        except subprocess.TimeoutExpired:
            skip_here("wheels", "pip took more than 300 s")
        if result.returncode:
            skip_here("wheels", "pip: " + result.stdout.decode().strip().splitlines()[-1])
        with open(os.path.join(name, "complete"), "w"):
            pass
    return name


def folder(python):
    """The libraries of its time; None: its distribution has them."""
    version = python.version[:2]
    if version not in OF or python.root:
        return None
    return fetch(python, "%d.%d" % version, OF[version])


def environment(python):
    """The environment to run this Python in with its libraries."""
    wheels = folder(python)
    return dict(os.environ, PYTHONPATH=wheels) if wheels else dict(os.environ)


def has(python, modules):
    """Whether this Python can import them; may fetch them first."""
    return not subprocess.run([python.executable, "-c", "import " + modules], env=environment(python),
                              stderr=subprocess.DEVNULL, check=False).returncode
