# SPDX-License-Identifier: MIT
"""Matrices of OpenCV's own: the model of a background subtractor."""
import cv2
import numpy

cv2.setNumThreads(1)
KEPT = []
IMAGE = numpy.full((40, 60), 7, dtype=numpy.uint8)


def keep(step):
    model = cv2.createBackgroundSubtractorKNN()  # leak
    model.apply(IMAGE)  # leak
    KEPT.append(model)
    return None, step


def busy(step):
    return int(cv2.GaussianBlur(IMAGE + numpy.uint8(step % 100), (5, 5), 0)[3, 3])
