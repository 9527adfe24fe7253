# SPDX-License-Identifier: MIT
"""Source lines are read with the rights of the process that named the file: it may name any."""
import os
import pathlib
import shutil
import signal
import tempfile

import pytest

from helpers import Pyleak, skip_here, wait_hooked
from programs import Program

PROGRAM = """
path, user, groups = sys.argv[1], int(sys.argv[2]), sys.argv[3]
os.setgroups([int(group) for group in groups.split(",") if group])
os.setgid(user)
os.setuid(user)
kept = []
code = compile("kept.extend(bytes(1000) for _ in range(1000))", path, "exec")
meet("ready")
while True:
    exec(code)
    meet("again")
"""
# A private part in the file that must be shown to nobody.
SECRET = "root:$6$PRIVATE$hash\n"


@pytest.fixture
def folder():
    path = pathlib.Path(tempfile.mkdtemp(prefix="pyleak-test-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def report_of(python, folder, user, groups="", prefix=()):
    """The text of a report whose largest row is in a file of that name."""
    secret = folder / "secret"
    with Program(prefix and prefix[0] or python, folder, PROGRAM, str(secret), user, groups) as victim:
        with Pyleak("attach", victim.pid, "--format", "text") as running:
            wait_hooked(victim.pid, running)
            victim.meet("again")
            victim.meet("again")
            result = running.finish(signal.SIGTERM)
    assert result.status == 0 and "%s:1: size=" % secret in result.stdout, result
    return result.stdout


# The owner of the file, its group, its mode, the groups of the process: whether user 65534 may read it.
@pytest.mark.parametrize("owner, group, mode, groups, shown", [
    (0, 0, 0o600, "", False), (0, 42, 0o640, "", False), (0, 0, 0o640, "0", True), (0, 42, 0o640, "41,42,43", True),
    (65534, 0, 0o400, "", True), (0, 0, 0o604, "", True), (65534, 0, 0o044, "", False), (0, 65534, 0o640, "", True)])
def test_another_users(one_python, folder, owner, group, mode, groups, shown):
    if os.geteuid() != 0:
        skip_here("user")
    (folder / "secret").write_text(SECRET)
    os.chown(folder / "secret", owner, group)
    (folder / "secret").chmod(mode)
    assert ("PRIVATE" in report_of(one_python, folder, 65534, groups)) == shown


def test_a_folder_on_the_way(one_python, folder):
    if os.geteuid() != 0:
        skip_here("user")
    closed = folder / "closed"
    closed.mkdir(0o700)
    (closed / "text").write_text(SECRET)
    (closed / "text").chmod(0o644)
    (folder / "secret").symlink_to("closed/text")
    assert "PRIVATE" not in report_of(one_python, folder, 65534)
    closed.chmod(0o755)
    assert "PRIVATE" in report_of(one_python, folder, 65534)


def test_root_without_its_powers(one_python, folder):
    """In a container root may have given up CAP_DAC_OVERRIDE: then it reads what is its own, and what all may read."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        skip_here("user")
    wrapper = folder / "python"
    wrapper.write_text("#!/bin/sh\nexec setpriv --bounding-set -dac_override,-dac_read_search "
                       "--inh-caps -dac_override,-dac_read_search %s \"$@\"\n" % one_python)
    wrapper.chmod(0o755)
    (folder / "secret").write_text(SECRET)
    os.chown(folder / "secret", 65534, 65534)
    (folder / "secret").chmod(0o600)
    assert "PRIVATE" not in report_of(one_python, folder, 0, prefix=[str(wrapper)])
    assert "PRIVATE" in report_of(one_python, folder, 0)
    os.chown(folder / "secret", 0, 0)
    assert "PRIVATE" in report_of(one_python, folder, 0, prefix=[str(wrapper)])
