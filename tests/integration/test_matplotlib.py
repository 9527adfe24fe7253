# SPDX-License-Identifier: MIT
"""The leak that everyone has met, on the real thing: a Flask service draws numpy images and closes no figure.

The pixels are numpy's, who asks the C library for them: no table of Python's allocators sees them. On every Python that
has the libraries: the distribution's, those of other releases, and 3.6 with wheels of the time.
"""
import pytest

import pythons
import wheels
from conftest import all_pythons
from helpers import PATIENCE, Victim, pyleak, skip_here

PIXELS = 300 * 400 * 3 * 8  # doubles: what numpy says of each image
FIGURES, TRIES = 3, 4  # to be drawn in a window, which is made twice as long until they are
SERVICE = """
import gc, sys, time
import matplotlib, numpy
matplotlib.use("Agg")
from flask import Flask
from matplotlib import pyplot
app = Flask(__name__)

@app.route("/draw")
def draw():
    figure, axes = pyplot.subplots()
    image = axes.imshow(numpy.random.rand(300, 400, 3))
    assert image.get_array().nbytes == %d
    if sys.argv[1:] == ["close"]:
        pyplot.close(figure)
    return "drawn"

client = app.test_client()
for i in range(5):
    began = time.monotonic()
    client.get("/draw")
print(time.monotonic() - began, flush=True)
while True:
    client.get("/draw")
    if sys.argv[1:] == ["close"]:
        del i
        i = gc.collect()  # a closed figure waits for that, in cycles
    time.sleep(0.02)
""" % PIXELS

# The distribution's, 3.6 of whoever, and those in roots: builds of one's own have no such libraries.
CHOSEN = [entry for entry in all_pythons()
          if entry.root or entry.executable.startswith("/usr/bin/") or entry.version[:2] in wheels.OF]
chosen_pythons = pytest.mark.parametrize("python", [entry.executable for entry in CHOSEN],
                                         ids=map(pythons.label, CHOSEN))


def service(python, *arguments):
    entry = pythons.of(python)
    if not wheels.has(entry, "flask, matplotlib, numpy"):
        skip_here("matplotlib")
    return Victim(python, None, "-W", "ignore", "-c", SERVICE, *arguments, ready=None, env=wheels.environment(entry))


def window(victim):
    """The seconds in which the service draws several figures: a slow machine takes seconds for one, and more with pyleak."""
    return max(2 * PATIENCE, 8 * float(victim.line(60)))


def grown(victim):
    """What has grown most in a window in which so many figures were drawn."""
    seconds = window(victim)
    for _ in range(TRIES):
        row = pyleak("diff", victim.pid, "-i", "%gs" % seconds, "--format", "json", seconds=60 + 2 * seconds).json()["stats"][0]
        if row["count_diff"] >= FIGURES:
            break
        seconds *= 2
    return row


@chosen_pythons
def test_line_that_holds_the_pixels(python):
    with service(python) as victim:
        row = grown(victim)
        assert row["filename"].endswith(("/matplotlib/cbook/__init__.py", "/matplotlib/cbook.py")), row
        assert row["domain"] == "native" and row["count_diff"] >= FIGURES, row
        for size, count in (row["size"], row["count"]), (row["size_diff"], row["count_diff"]):
            assert abs(size - count * PIXELS) <= 0.02 * count * PIXELS, row
        assert row["caller"]["function"] == "draw" and row["native"]["module"].count("multiarray"), row


@chosen_pythons
def test_closed(python):
    with service(python, "close") as victim:
        document = pyleak("diff", victim.pid, "-i", "%gs" % window(victim), "-n", "0", "--format", "json").json()
        # Between a drawing and its collection one figure lives: whether a snapshot meets it is chance.
        grown = [row for row in document["stats"] if row["size_diff"] > PIXELS + 65536]
        assert not grown, grown
        assert document["total"]["size_diff"] < 3 * PIXELS, document["total"]
