# SPDX-License-Identifier: MIT
"""Lists, dicts and sets by comprehension."""


def loop(n):
    for i in range(n):
        squares = [k * k + 1000 for k in range(300)]
        table = {k: (k, k + 1) for k in squares}
        pairs = [[k, v] for k, v in table.items()]
        {k + len(pairs) for k in table}
        [k / 2 for k in squares]
