# SPDX-License-Identifier: MIT
"""Sessions that nobody drops."""
import numpy
import onnxruntime


def field(number, data):
    """A length-delimited field of a protocol buffer."""
    size, head = len(data), b""
    while size > 127:
        head, size = head + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + head + bytes([size]) + data


def value(name):
    tensor = b"\x08\x01" + field(2, field(1, b"\x08\x04"))  # float, of four
    return field(1, name) + field(2, field(1, tensor))


# y = x + x, by hand: the package that makes models is large.
NODE = field(1, b"x") + field(1, b"x") + field(2, b"y") + field(4, b"Add")
GRAPH = field(1, NODE) + field(2, b"g") + field(11, value(b"x")) + field(12, value(b"y"))
MODEL = b"\x08\x08" + field(7, GRAPH) + field(8, field(1, b"") + b"\x10\x0d")
OPTIONS = onnxruntime.SessionOptions()
OPTIONS.intra_op_num_threads = 1
OPTIONS.log_severity_level = 4
KEPT = []


def run(session, step):
    return float(session.run(None, {"x": numpy.full(4, step, dtype=numpy.float32)})[0][0])  # leak


def keep(step):
    KEPT.append(onnxruntime.InferenceSession(MODEL, OPTIONS, providers=["CPUExecutionProvider"]))  # leak
    return None, run(KEPT[-1], step)


def busy(step):
    return run(KEPT[0], step)
