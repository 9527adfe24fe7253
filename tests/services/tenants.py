"""A job that opens a generator for each file and leaves it open, and imports each tenant's settings: tenants.py"""
import importlib.util
import sys
import time

SOURCE = "LIMITS = {name: len(name) * 100 for name in %r}\n"
open_files = []


def read_lines(number):
    text = ["%d,%d" % (number, line) for line in range(200)]
    for line in text:
        yield line.split(",")


def header(number):
    lines = read_lines(number)
    open_files.append(lines)
    return next(lines)


def settings(number):
    name = "tenant_%d" % number
    spec = importlib.util.spec_from_loader(name, loader=None)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    exec(SOURCE % ["%s limit %d" % (name, i) for i in range(10)], module.__dict__)
    return module.LIMITS


if __name__ == "__main__":
    for number in range(10 ** 9):
        header(number)
        settings(number)
        time.sleep(0.02)
