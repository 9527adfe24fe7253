# SPDX-License-Identifier: MIT
"""Small objects, made and dropped at once."""


def loop(n):
    for i in range(n * 1000):
        str(i)
        (i, n)
        bytes(20)
