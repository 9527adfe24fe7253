# SPDX-License-Identifier: MIT
"""Strings: formatted, joined, split and replaced."""


def loop(n):
    for i in range(n):
        words = ["key-%d" % (i + k) + "/value" for k in range(200)]
        text = ",".join(words)
        text.replace("key", "name").upper()
        parts = [part.strip("k") for part in text.split(",")]
        "".join(f"{part}={len(part)};" for part in parts)
