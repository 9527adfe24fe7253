"""A job that reads a table again and again, and keeps its first rows, which keep the whole table: samples.py"""
import time

import numpy
import pandas

SAMPLES = []


def read_batch(number):
    return pandas.DataFrame(numpy.random.rand(5000, 8), columns=list("abcdefgh"))


def summarize(number):
    frame = read_batch(number)
    SAMPLES.append(frame[:5])
    return frame["a"].mean()


if __name__ == "__main__":
    for number in range(10 ** 9):
        summarize(number)
        time.sleep(0.1)
