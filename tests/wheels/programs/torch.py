# SPDX-License-Identifier: MIT
"""Tensors, kept."""
import torch

torch.set_num_threads(1)
KEPT = []
TENSOR = torch.ones(40000)


def keep(step):
    tensor = TENSOR * step  # leak
    KEPT.append(tensor)
    return tensor.numel() * tensor.element_size(), float(tensor[0])


def busy(step):
    return float((TENSOR * 2 + step).sum())
