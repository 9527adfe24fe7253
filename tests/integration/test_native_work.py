# SPDX-License-Identifier: MIT
"""numpy with an OpenBLAS of many threads, Pillow and pandas at work, while pyleak comes and goes: each result is what
it was before, and what is kept is counted to the byte."""
import os
import random
import signal
import subprocess

import pytest

from helpers import Pyleak, Trace, Victim, leftovers, line_of, pyleak, skip_here, wait_hooked, wait_until

WORK = """
import gc, hashlib, io, json, sys, threading
import numpy, pandas
from PIL import Image, ImageFilter

def digest(*parts):
    return hashlib.md5(b"".join(parts)).hexdigest()

def blas():
    # Whole numbers: exact in whatever order threads add them up.
    a = numpy.arange(90000.0).reshape(300, 300) % 97
    product = a @ a.T
    square = numpy.eye(200) * 3 + numpy.arange(40000.0).reshape(200, 200) % 7 / 100
    assert numpy.allclose(numpy.linalg.inv(square) @ square, numpy.eye(200))
    values = numpy.linalg.svd(square, compute_uv=False)
    assert abs(values[0] - numpy.linalg.norm(square, 2)) < 1e-6
    return digest(product.tobytes())

def arrays():
    a = (numpy.arange(200000) * 7919) % 100003
    pieces = [numpy.sort(part.copy()) for part in numpy.array_split(a, 50)]
    together = numpy.concatenate(pieces + [numpy.unique(a)])
    objects = numpy.array([str(i) for i in range(500)], dtype=object)
    text = numpy.array(["row %d" % i for i in range(500)])
    grown = numpy.zeros(10, dtype=int)
    for size in range(10, 3000, 100):
        grown.resize(size, refcheck=False)
    fft = numpy.fft.ifft(numpy.fft.fft(a[:4096].astype(float))).real.round().astype(int)
    return digest(together.tobytes(), "".join(objects).encode(), text.tobytes(), grown.tobytes(), fft.tobytes())

def images():
    image = Image.fromarray((numpy.arange(300 * 200 * 3) % 251).astype("uint8").reshape(200, 300, 3))
    parts = []
    for changed in (image.resize((123, 77)), image.rotate(30, expand=True), image.filter(ImageFilter.GaussianBlur(2)),
                    image.convert("L"), image.transpose(Image.ROTATE_90)):
        parts.append(changed.tobytes())
        for kind in ("PNG", "JPEG"):
            file = io.BytesIO()
            changed.save(file, kind)
            parts.append(Image.open(io.BytesIO(file.getvalue())).tobytes())
    return digest(*parts)

def tables():
    frame = pandas.DataFrame({"key": numpy.arange(5000) % 37, "value": numpy.arange(5000) * 3,
                              "name": ["name %d" % (i % 101) for i in range(5000)]})
    sums = frame.groupby("key").sum(numeric_only=True)
    merged = frame.merge(sums, left_on="key", right_index=True)
    again = pandas.read_csv(io.StringIO(merged.to_csv(index=False)))
    table = again.pivot_table(index="name", columns="key", values="value_x", aggfunc="max").fillna(0)
    return digest(pandas.util.hash_pandas_object(again.sort_values(["name", "value_x"])).values.tobytes(),
                  table.values.tobytes())

KINDS = [blas, arrays, images, tables]
right = {kind: kind() for kind in KINDS}
rounds, wrong, kept = [0] * 4, [], []

def work(number):
    while not over.is_set():
        for kind in KINDS[number:] + KINDS[:number]:
            try:
                result = kind()
            except BaseException as error:
                result = repr(error)
            if result != right[kind]:
                wrong.append("%s: %s" % (kind.__name__, result))
        rounds[number] += 1

over = threading.Event()
threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
for thread in threads: thread.start()
print("ready", flush=True)
for command in sys.stdin:
    if command.strip() == "keep":
        kept.extend(numpy.empty(10000) for i in range(100))  # kept
    elif command.strip() == "drop":
        kept.clear()
    elif command.strip() == "end":
        break
    print(json.dumps({"rounds": rounds, "wrong": wrong[:3], "openblas": "openblas" in open("/proc/self/maps").read()}),
          flush=True)
over.set()
for thread in threads: thread.join()
print(json.dumps({"wrong": wrong[:3]}), flush=True)
"""
PYTHON = "/usr/bin/python3"


@pytest.fixture
def worker(tmp_path):
    probe = "import numpy, pandas, PIL"
    if subprocess.run([PYTHON, "-c", probe], stderr=subprocess.DEVNULL, check=False).returncode:
        skip_here("numerics")
    path = tmp_path / "work.py"
    path.write_text(WORK)
    with Victim(PYTHON, None, "-W", "ignore", str(path), env=dict(os.environ, OPENBLAS_NUM_THREADS="4")) as victim:
        assert victim.ask("look")["openblas"], "numpy uses another BLAS"
        victim.path = str(path)
        yield victim
        victim.tell("end")
        assert victim.line(60) == '{"wrong": []}'
        assert victim.process.wait(30) == 0


def goes_on(victim, rounds=1):
    """Each thread has made so many rounds more, and all of its results were right."""
    before = victim.ask("look")["rounds"]

    def further():
        now = victim.ask("look")
        assert not now["wrong"], now["wrong"]
        return all(new >= old + rounds for new, old in zip(now["rounds"], before))
    wait_until(further, 60, "each thread has gone on")


def test_comes_and_goes(worker):
    before = Trace(worker.pid)
    rng = random.Random(5)
    for number in range(16):
        arguments = ["--duration", "%dms" % rng.choice([1, 20, 100, 400]), "--frames", rng.choice([1, 16, 64])]
        arguments += [[], ["--domain", "native"], ["--sample", "64KiB"], []][number % 4]
        result = pyleak("attach", worker.pid, "--format", "json", *arguments)
        assert result.status == 0, result
        assert result.json()["lost"] == {"events": 0, "sites": 0}, result
        assert not leftovers(worker.pid)
    goes_on(worker)
    assert not before.differences(worker.pid)


def test_counts_meanwhile(worker):
    with Pyleak("attach", worker.pid, "--format", "json", "--limit", 0) as running:
        wait_hooked(worker.pid, running)
        worker.ask("keep")
        goes_on(worker, 2)
        document = running.finish(signal.SIGINT).json()
    line = line_of(worker.path, "# kept")
    found = [row for row in document["stats"] if row["filename"] == worker.path and row["lineno"] == line
             and row["domain"] == "native"]
    assert [(row["size"], row["count"]) for row in found] == [(100 * 80000, 100)], found
    # What is made and dropped does not pile up: rows that say so would be wrong. OpenBLAS keeps what it has mapped.
    others = [row for row in document["stats"]
              if row not in found and "openblas" not in row.get("native", {}).get("module", "")]
    rest, made = (sum(size(row) for row in others) for size in
                  (lambda row: row["size"], lambda row: row["allocated"]["size"]))
    assert rest < made / 10, sorted((row["size"], row["filename"], row["lineno"]) for row in document["stats"])[-5:]
    assert all(row["size"] >= 0 and row["count"] >= 0 for row in document["stats"])
    assert not leftovers(worker.pid)
