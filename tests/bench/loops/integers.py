# SPDX-License-Identifier: MIT
"""Integer arithmetic: every result is a new object."""


def loop(n):
    x = 123456789
    for i in range(n * 1000):
        x = (x * 1103515245 + 12345 + i) % 2147483648
