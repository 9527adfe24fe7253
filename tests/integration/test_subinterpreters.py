# SPDX-License-Identifier: MIT
"""Interpreters beside the main one have free lists of their own from 3.10 on, and from 3.12 on may have a GIL of
their own: what leaks in them is on the line that leaks it, as well."""
import pytest

import pythons
from conftest import all_pythons
from programs import Program, assert_nothing_lost, recorded

LEAKS = """
kept = []
def lists():
    for _ in range(100):
        temporary = [[] for _ in range(60)]  # lists: churn
        del temporary
        kept.extend([] for _ in range(40))  # lists: leak
def dicts():
    for _ in range(100):
        temporary = [{} for _ in range(60)]  # dicts: churn
        del temporary
        kept.extend({} for _ in range(40))  # dicts: leak
def tuples():
    for _ in range(100):
        temporary = [(kept, None) for _ in range(60)]  # tuples: churn
        del temporary
        kept.extend((kept, None) for _ in range(40))  # tuples: leak
def floats():
    x = 1.5
    for _ in range(100):
        temporary = [-x for _ in range(60)]  # floats: churn
        del temporary
        kept.extend(-x for _ in range(40))  # floats: leak
def all_of_them():
    for leak in lists, dicts, tuples, floats:
        leak()
"""
PROGRAM = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
def make(own_gil):
    if hasattr(interpreters, "new_config"):
        return interpreters.create("isolated" if own_gil else "legacy")
    try:
        return interpreters.create(isolated=own_gil)
    except TypeError:
        return interpreters.create()
one = make(len(sys.argv) > 1)
interpreters.run_string(one, "import sys; sys.path.insert(0, %r); import leaks" % os.path.dirname(__file__))
meet("ready")
interpreters.run_string(one, "leaks.all_of_them()")
meet("done")
"""

# 3.8 is the first that has a module to make them with. From 3.14 on the main interpreter's lists alone are closed.
FOUND = [entry for entry in all_pythons() if (3, 8) <= entry.version < (3, 14) and not entry.free_threaded]


CASES = [(entry.executable, own_gil, "%s-%s" % (pythons.label(entry), "its own GIL" if own_gil else "one GIL"))
         for entry in FOUND for own_gil in (False, True) if entry.version >= (3, 12) or not own_gil]


@pytest.mark.parametrize("python, own_gil", [case[:2] for case in CASES], ids=[case[2] for case in CASES])
def test_right_line(python, own_gil, tmp_path):
    (tmp_path / "leaks.py").write_text(LEAKS)
    with Program(python, tmp_path, PROGRAM, *["own"] * own_gil) as victim:
        with recorded(victim, "--frames", 2) as record:
            victim.meet("done")
        assert victim.alive()
    assert_nothing_lost(record.document)
    counts = {row["lineno"]: row["count"] for row in record.document["stats"] if row["filename"].endswith("/leaks.py")}
    for kind in "lists", "dicts", "tuples", "floats":
        leaked = {}
        for name in "churn", "leak":
            line = [number for number, text in enumerate(LEAKS.split("\n"), 1) if text.endswith("# %s: %s" % (kind, name))]
            leaked[name] = counts.get(line[0], 0)
        assert leaked["leak"] >= 0.99 * 4000 and leaked["churn"] <= 0.01 * 4000, (kind, leaked, counts)
