#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Puts the table of how often verdicts err into the manual page: tests/series/table.py BUILD

With --check it says whether the page has it as it is now, and changes nothing.
"""
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "man" / "pyleak-output.7"
BEGIN, END = '.\\" Of tests/series/table.py: from here\n', '.\\" to here\n'


def table(build):
    environment = dict(os.environ, PYLEAK_TABLE="1")
    result = subprocess.run([str(pathlib.Path(build) / "tests" / "unit" / "test_verdict_recorded")], env=environment,
                            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    lines = result.stderr.decode().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("% called a leak"))
    end = next(i for i, line in enumerate(lines) if " series: " in line)
    return ".Bd -literal -offset indent\n" + "".join(line.rstrip() + "\n" for line in lines[start:end]) + ".Ed\n"


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--check"]
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    wanted = before + BEGIN + table(arguments[0]) + END + after
    if "--check" in sys.argv:
        sys.exit(0 if wanted == page else "the table in man/pyleak-output.7 is not that of tests/series: run tests/series/table.py")
    PAGE.write_text(wanted)


main()
