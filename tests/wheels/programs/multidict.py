# SPDX-License-Identifier: MIT
"""Headers, kept, and frames that were unpacked. (A free list of multidict's own hands what is dropped to whoever comes.)"""
import lz4.frame
import multidict

KEPT = []
PAIRS = [("key-%d" % i, "value") for i in range(100)]
PACKED = lz4.frame.compress(bytes(10000))


def keep(step):
    KEPT.append(multidict.MultiDict(PAIRS))  # leak
    return None, len(KEPT[-1])


def busy(step):
    return len(lz4.frame.decompress(PACKED)), step
