#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How much of the growth of the resident size is in rows or named, of programs of tests/integration, the services of the tutorial,
and numpy and pandas at work: a table for doc/limits.md.

    PYLEAK_BUILD=build tests/bench/named.py [PYTHON [PYTHON-WITH-PANDAS]]

Each is recorded once while it grows. `unexplained` is what is left of the growth; `named` what is none of it, where more than half a MiB grew.
pyleak's own tables are not in the growth."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))
os.environ.setdefault("PYLEAK_BUILD", str(ROOT / "build"))

import services  # noqa: E402
import test_account  # noqa: E402
import test_in_no_row  # noqa: E402
from helpers import library, pyleak  # noqa: E402
from programs import Program, recorded  # noqa: E402

MIB = 1 << 20
DATA = """
import numpy, pandas
generator = numpy.random.default_rng(1)
kept = []
def arrays(count):
    kept.extend(generator.random((100, 1000)) for i in range(count))
def views(count):
    kept.extend(generator.random((1000, 1000))[:, ::2].copy() for i in range(count))
def frames(count):
    for i in range(count):
        frame = pandas.DataFrame({"key": generator.integers(0, 50, 20000), "text": ["row %d" % j for j in range(20000)],
                                  "value": generator.random(20000)})
        kept.append((frame, frame.groupby("key").agg({"value": ["mean", "std"]})))
def merged(count):
    left = pandas.DataFrame({"key": range(30000), "a": generator.random(30000)})
    for i in range(count):
        kept.append(left.merge(left.sample(frac=0.5), on="key", suffixes=("", "_b")))
def parsed(count):
    import io
    text = "\\n".join("%d,name %d,%f" % (i, i, i / 7) for i in range(20000))
    kept.extend(pandas.read_csv(io.StringIO(text), header=None) for i in range(count))
command = meet("ready")
while True:
    name, argument = command.split()
    globals()[name](int(argument))
    command = meet("done")
"""
ACCOUNT = ["fragment 500000", "fragment_in_threads 100000", "of_the_heap 60000", "in_eight_threads 60000", "large 200", "native 150000",
           "leak 200000", "stacks 40"]
PANDAS = ["arrays 60", "views 15", "frames 15", "merged 25", "parsed 30"]


def line(name, growth):
    rss = growth["rss"] - growth["pyleak"]
    parts = sorted(((part, size) for part, size in growth.items() if part not in ("rss", "pyleak", "unexplained", "fragmentation") and size),
                   key=lambda item: -abs(item[1]))[:3]
    named = "%.1f %%" % max(0, 100 - 100 * abs(growth["unexplained"]) / abs(rss)) if abs(rss) > MIB / 2 else ""
    print("| %s | %+.1f MiB | %+.2f MiB | %s | %s |" % (
        name, rss / MIB, growth["unexplained"] / MIB, named,
        ", ".join("%s %+.1f" % (part, size / MIB) for part, size in parts)), flush=True)


def programs(python, title, text, commands, *arguments):
    for command in commands:
        with tempfile.TemporaryDirectory() as folder:
            with Program(python, folder, text, *[argument or folder for argument in arguments]) as victim:
                with recorded(victim) as record:
                    test_in_no_row.tell(victim, command)
        line("%s: %s" % (title, command), record.document["account"]["growth"])


def main():
    python = sys.argv[1] if len(sys.argv) > 1 else "/usr/bin/python3"
    data = sys.argv[2] if len(sys.argv) > 2 else python
    print("| program | growth | unexplained | named | largest parts (MiB) |\n|---|---:|---:|---:|---|")
    programs(python, "test_in_no_row", test_in_no_row.PROGRAM, test_in_no_row.CASES, None)
    programs(python, "test_account", test_account.PROGRAM, ACCOUNT, library("native"))
    for name in ("importer", "reports", "tenants", "cached", "chat", "audit", "thumbnails"):
        try:
            with services.running(name, python) as process:
                result = pyleak("diff", process.pid, "--interval", "10s", "--children", "--format", "json")
            growth = json.loads(result.stdout.splitlines()[-1])["account"]["growth"]
        except Exception as error:  # what it needs is missing
            print("%s: %s" % (name, error), file=sys.stderr)
            continue
        line("services: " + name, growth)
    if subprocess.run([data, "-c", "import numpy, pandas"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
        programs(data, "pandas", DATA, PANDAS)


main()
