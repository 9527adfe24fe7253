# SPDX-License-Identifier: MIT
"""Handles that nobody closes."""
import pycurl

KEPT = []


def keep(step):
    handle = pycurl.Curl()  # leak
    handle.setopt(pycurl.COPYPOSTFIELDS, "x" * (20000 + step % 100))  # leak
    KEPT.append(handle)
    return None, step


def busy(step):
    handle = pycurl.Curl()
    handle.setopt(pycurl.COPYPOSTFIELDS, "x" * (1000 + step % 100))
    handle.close()
    return step
