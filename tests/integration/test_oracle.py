# SPDX-License-Identifier: MIT
"""pyleak says what tracemalloc says: the same workload, recorded by each, line by line."""
import json
import re
import signal
import subprocess

import pytest

from helpers import VICTIMS, Victim, attach, line_of, rows, wait_hooked

pytestmark = pytest.mark.usefixtures("engine")

WORKLOAD = VICTIMS / "workload.py"
# Nothing of it is kept. What it leaves in caches of the interpreter is, on 3.14, a block more in some processes than in
# others, whoever counts.
COMPILES = (WORKLOAD.name, line_of(WORKLOAD, "# keeps what it likes"))


def workload_lines():
    lines = WORKLOAD.read_text().splitlines()
    return lines.index("# workload begins") + 1, lines.index("# workload ends") + 1


def figures(table):
    """{(file, line): (size, count)} of the workload's own lines; places that hold nothing are left out."""
    first, last = workload_lines()
    return {key: value for key, value in table.items()
            if value != (0, 0) and key != COMPILES and (re.match(r"made-up-\d+\.py$", key[0])
                                    or key[0] == WORKLOAD.name and first < key[1] < last)}


def by_tracemalloc(python):
    # From 3.14 on there are free lists of ints and ranges too, which no workload can keep out of.
    output = subprocess.run([python, str(WORKLOAD), "allocators"], stdout=subprocess.PIPE, check=True).stdout
    return figures({(filename.rsplit("/", 1)[-1], line): (size, count)
                    for filename, line, size, count in json.loads(output)})


def by_pyleak(python):
    with Victim(python, "workload.py", "watched") as victim:
        with attach(victim.pid, "--limit", 0, "--frames", 1, "--no-free-lists") as running:
            wait_hooked(victim.pid, running)
            victim.tell("go")
            assert victim.line(120) == "done"
            result = running.finish(signal.SIGTERM)
        assert result.status == 0, result
        assert victim.alive()
    document = result.json()
    assert document["lost"] == {"events": 0, "sites": 0}
    table = rows(document, "workload.py", ".py")
    return figures({key: (row["size"], row["count"]) for key, row in table.items()})


def test_oracle(python):
    expected = by_tracemalloc(python)
    found = by_pyleak(python)
    assert len(expected) > 40  # the workload did reach the allocators
    wrong = ["%s:%d: tracemalloc %s, pyleak %s" % (key[0], key[1], expected.get(key), found.get(key))
             for key in sorted(set(expected) | set(found)) if expected.get(key) != found.get(key)]
    assert not wrong, "\n".join(wrong)
