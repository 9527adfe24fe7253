# SPDX-License-Identifier: MIT
"""Libraries that no distribution has, or has any more: wheels from the package index, in a folder
outside of the repository (PYLEAK_WHEELS_DIR, or ~/.cache/pyleak-wheels). What is there is not fetched again.
"""
import contextlib
import fcntl
import os
import subprocess

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


def fetch(python, name, packages):
    """A folder with these packages for this entry of pythons.pythons(), to put into PYTHONPATH."""
    # By this name a folder is known to hold libraries.
    name = os.path.join(CACHE, name, "site-packages")
    os.makedirs(name, exist_ok=True)
    with locked(name + ".lock"):
        if os.path.exists(os.path.join(name, "complete")):
            return name
        command = [python.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir",
                   "--only-binary", ":all:", "--upgrade", "--target", name, "--timeout", "20", "--retries", "1"]
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
