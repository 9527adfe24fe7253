# SPDX-License-Identifier: MIT
"""Tensors, kept."""
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import tensorflow  # noqa: E402

KEPT = []
TENSOR = tensorflow.ones([40000])


def keep(step):
    tensor = TENSOR * step  # leak
    KEPT.append(tensor)
    return tensor.numpy().nbytes, float(tensor[0])


def busy(step):
    return float(tensorflow.reduce_sum(TENSOR * 2 + step))
