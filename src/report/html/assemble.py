# SPDX-License-Identifier: MIT
"""Puts style and scripts into the page: assemble.py PAGE CSS JS... OUTPUT. The data comes at run time."""
import pathlib
import sys


def main():
    page, css, *scripts, output = map(pathlib.Path, sys.argv[1:])
    text = page.read_text(encoding="utf-8")
    for mark, files in (("@CSS@", [css]), ("@JS@", scripts)):
        assert text.count(mark) == 1, mark
        text = text.replace(mark, "\n".join(file.read_text(encoding="utf-8").strip() for file in files))
    assert text.count("@DATA@") == 1
    output.write_text(text, encoding="utf-8")


main()
