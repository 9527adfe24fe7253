# SPDX-License-Identifier: MIT
"""The leak that everyone has met, on the real thing: a Flask service draws numpy images and closes no figure.

The pixels are numpy's, who asks the C library for them: no table of Python's allocators sees them.
"""
import subprocess

from helpers import Victim, pyleak, skip_here

PIXELS = 300 * 400 * 3 * 8  # doubles: what numpy says of each image
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
    client.get("/draw")
print("ready", flush=True)
while True:
    client.get("/draw")
    if sys.argv[1:] == ["close"]:
        del i
        i = gc.collect()  # a closed figure waits for that, in cycles
    time.sleep(0.02)
""" % PIXELS


def service(python, *arguments):
    probe = "import flask, matplotlib, numpy"
    if subprocess.run([python, "-c", probe], stderr=subprocess.DEVNULL, check=False).returncode:
        skip_here("matplotlib")
    return Victim(python, None, "-W", "ignore", "-c", SERVICE, *arguments)


def test_line_that_holds_the_pixels(one_python):
    with service(one_python) as victim:
        document = pyleak("diff", victim.pid, "-i", "2s", "--format", "json").json()
        row = document["stats"][0]
        assert row["filename"].endswith("/matplotlib/cbook/__init__.py") and row["domain"] == "native", row
        assert row["count_diff"] >= 3, row
        for size, count in (row["size"], row["count"]), (row["size_diff"], row["count_diff"]):
            assert abs(size - count * PIXELS) <= 0.02 * count * PIXELS, row
        assert row["caller"]["function"] == "draw" and row["native"]["module"].count("multiarray"), row


def test_closed(one_python):
    with service(one_python, "close") as victim:
        document = pyleak("diff", victim.pid, "-i", "2s", "-n", "0", "--format", "json").json()
        # Between a drawing and its collection one figure lives: whether a snapshot meets it is chance.
        grown = [row for row in document["stats"] if row["size_diff"] > PIXELS + 65536]
        assert not grown, grown
        assert document["total"]["size_diff"] < 2 * PIXELS, document["total"]
