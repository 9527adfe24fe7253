# SPDX-License-Identifier: MIT
"""Writes what tracemalloc itself makes of a few thousand sizes, as rows of a C table."""
import random
import sys
from tracemalloc import _format_size


def sizes():
    yield from range(0, 12)
    for unit in (1, 1024, 1024**2, 1024**3, 1024**4, 1024**5):
        # Both sides of each change of form and of unit, and halves, where rounding may go either way.
        for whole in (1, 9, 10, 99, 100, 101, 999, 1000, 1023, 1024, 10239, 10240, 10241):
            for part in (0, 1, 49, 50, 51, 250, 500, 511, 512, 513, 750, 949, 950, 999, 1000, 1023):
                yield whole * unit + part * unit // 1024
                yield whole * unit + part * unit // 1000
                yield whole * unit - 1
        for twentieth in range(1, 2000, 2):
            yield twentieth * unit // 20
    randomly = random.Random(784)
    for _ in range(3000):
        yield randomly.getrandbits(randomly.randint(1, 63))
    yield 2**53 - 1
    yield 2**53 + 1
    yield 2**63 - 1


def main():
    with open(sys.argv[1], "w") as out:
        for size in sorted({s for s in sizes() if s < 2**63}):
            for signed in (size, -size):
                out.write('{INT64_C(%d), "%s", "%s"},\n' % (signed, _format_size(signed, False), _format_size(signed, True)))


if __name__ == "__main__":
    main()
