# SPDX-License-Identifier: MIT
"""Readers with replies that never end."""
import hiredis

KEPT = []


def keep(step):
    reader = hiredis.Reader()  # leak
    reader.feed(b"$100000\r\n" + b"x" * (20000 + step % 1000))  # leak
    KEPT.append(reader)
    return None, reader.gets()


def busy(step):
    reader = hiredis.Reader()
    reader.feed(b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\n%05d\r\n" % (step % 100000))
    return reader.gets()
