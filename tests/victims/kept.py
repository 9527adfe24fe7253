# SPDX-License-Identifier: MIT
"""Keeps objects of known types at known lines, N times, when it is told to."""
import sys


class Report:
    def __init__(self, number):
        self.number = number


kept = []


def fail(number):
    try:
        raise KeyError(number)
    except KeyError as error:
        kept.append(error)  # the traceback keeps the frame of this function


def work(count):
    for number in range(count):
        fail(number)  # frames
        kept.append(Report(number))  # reports
        kept.append([[number, number], {number}])  # two lists and a set


print("ready", flush=True)
for line in sys.stdin:
    work(int(line))
    print("done", flush=True)
