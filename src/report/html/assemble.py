# SPDX-License-Identifier: MIT
"""Puts style and script into the page: assemble.py PAGE CSS JS OUTPUT. The data comes at run time."""
import pathlib
import sys


def main():
    page, css, js, output = map(pathlib.Path, sys.argv[1:])
    text = page.read_text(encoding="utf-8")
    for mark, file in (("@CSS@", css), ("@JS@", js)):
        assert text.count(mark) == 1, mark
        text = text.replace(mark, file.read_text(encoding="utf-8").strip())
    assert text.count("@DATA@") == 1
    output.write_text(text, encoding="utf-8")


main()
