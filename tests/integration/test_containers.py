# SPDX-License-Identifier: MIT
"""Beside a program in a container, with CAP_SYS_PTRACE and no more, under the runtime's seccomp filter."""
import json
import os
import subprocess
import sys

import pytest

import helpers
from helpers import PATIENCE, PYLEAK, VICTIMS, skip_here

UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc"]


def diff_in_container(who):
    if os.geteuid() != 0 or subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode:
        skip_here("namespaces")
    return subprocess.run([*UNSHARE, sys.executable, str(VICTIMS / "container.py"), who, PYLEAK, "diff", "{}",
                           "--engine", helpers.engine, "--interval", "500ms", "--format", "json"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60 * PATIENCE, check=False)


@pytest.mark.parametrize("who", ["first", "second"])
def test_filter_of_the_container(engine, who):
    """The default profile of a container does not keep pyleak out."""
    answer = diff_in_container(who)
    assert answer.returncode == 0, answer
    first = json.loads(answer.stdout.splitlines()[-1])["stats"][0]
    assert first["filename"] == str(VICTIMS / "container.py") and first["function"].startswith("leak"), first


def test_filter_of_the_program(engine):
    """A filter of the program's own, which may kill, does: nobody knows what is in it."""
    answer = diff_in_container("own")
    assert answer.returncode == 1 and answer.stdout == "", answer
    assert answer.stderr.count("\n") == 1 and "not just its container's" in answer.stderr, answer
