# SPDX-License-Identifier: MIT
"""A libpython that was loaded while the program ran (mod_wsgi, the plugin of uwsgi): from 3.12 on the running thread state is
then in a block of memory that each thread gets when it first runs Python."""
import pytest

from helpers import BUILD, Victim, leftovers, needs_library, pyleak, skip_here

PROGRAM = """
import sys, threading
kept = []
def keep():
    for _ in range(10): kept.append(bytes(10000))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(2):
    for _ in range(10):
        thread = threading.Thread(target=keep)
        thread.start()
        thread.join()
    keep()
    print("kept", flush=True)
    sys.stdin.readline()
"""
# In the root of this Python, if it is in one.
RUN = """
import os, sys, sysconfig
folder, name = sysconfig.get_config_vars("LIBDIR", "INSTSONAME")
library = next((path for path in (os.path.join(folder, sysconfig.get_config_var("MULTIARCH") or "", name),
                                  os.path.join(folder, name)) if os.path.exists(path)), None)
if not library or ".so" not in name:
    print("none", flush=True)
    sys.exit()
print("found", flush=True)
os.environ["PYTHONHOME"] = sys.base_prefix
os.execv(sys.argv[1], [sys.argv[1], library, sys.argv[2]])
"""


@pytest.mark.alike
def test_loaded_late(python):
    needs_library(python, "native")
    with Victim(python, None, "-c", RUN, str(BUILD / "tests" / "victims" / "embedded"), PROGRAM, ready=None) as victim:
        if victim.line() == "none":
            skip_here("libpython", python)
        assert victim.line() == "ready"
        for arguments in ["--keep"], ["--frames", 1, "--keep"]:
            assert pyleak("attach", victim.pid, *arguments).status == 0
            victim.tell("go")
            assert victim.line() == "kept"
            document = pyleak("attach", victim.pid, "--duration", "20ms", "--format", "json", "--limit", 0).json()
            rows = [row for row in document["stats"] if row["filename"] == "<string>" and row["function"] == "keep"]
            blocks = next(row for row in rows if row["lineno"] == 5 and row["domain"] == "python")
            assert blocks["count"] >= 110 and blocks["average"] > 9000, rows
            assert pyleak("detach", victim.pid).status == 0
            assert not leftovers(victim.pid)
        victim.tell("end")
        assert victim.process.wait(10) == 0
