#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""describe.py TERMINAL OUTPUT: what terminfo says of it, as a C string in the form that $TERMINFO takes."""
import subprocess
import sys

terminal, output = sys.argv[1:]
text = subprocess.run(["infocmp", "-0", "-Q1", terminal], check=True, capture_output=True, text=True).stdout
description = text.splitlines()[-1]
assert description.startswith("hex:") and '"' not in description, text
with open(output, "w", encoding="ascii") as file:
    for start in range(0, len(description), 100):
        file.write('"%s"\n' % description[start:start + 100])
