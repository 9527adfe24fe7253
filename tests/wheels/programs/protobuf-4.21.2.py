# SPDX-License-Identifier: MIT
"""protobuf 4.21.2, in which each look for what a message lacks leaves 64 bytes."""
from google.protobuf import struct_pb2

MESSAGE = struct_pb2.Struct()
MESSAGE.update({"name": "x", "list": [1, 2, "three"], "inner": {"a": 1}})


def keep(step):
    for _ in range(100):
        found = MESSAGE.FindInitializationErrors()  # leak
    return None, len(found)


def busy(step):
    return len(struct_pb2.Struct.FromString(MESSAGE.SerializeToString()).fields), step
