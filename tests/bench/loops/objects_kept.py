# SPDX-License-Identifier: MIT
"""Small objects, kept: a thousand at a time, and all of them dropped in the end."""


def loop(n):
    keep = []
    for i in range(n):
        keep.append([bytes(k & 63) for k in range(1000)])
        if len(keep) == 100:
            keep.clear()
