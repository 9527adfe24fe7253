#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Attaches to a busy torch training loop, lets go of it or is killed, over and over; what it learns may not change by a bit.

    training_storm.py [--rounds N] [--seconds S] [--seed N] [--library NAME]

torch comes from the package index, once (NAME is of tests/wheels/libraries.py: "torch", "torch 1.12.1"). The loop trains a
network with two threads, convolution and all, and says a digest of all its weights every few steps. Two rounds of three are
an attach of a random length and its detach; in the third pyleak is killed at a random instant, and its guardian, or every
other time `pyleak detach`, cleans up. After each round nothing of pyleak may be left but the page for pointers that the
program may have kept, and the loop must go on. At the end a bare run of as many steps says what the digests are.
The last line of the output is "N passed, N failed, N skipped".
"""
import argparse
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "integration"), str(ROOT / "wheels")]
import packages  # noqa: E402
from helpers import status  # noqa: E402
from libraries import LIBRARIES  # noqa: E402
from rounds import one_round  # noqa: E402

LOOP = """
import hashlib, sys
import torch
torch.manual_seed(1)
torch.set_num_threads(2)
torch.use_deterministic_algorithms(True)
model = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 14 * 14, 64),
                            torch.nn.Dropout(0.1), torch.nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
step, last = 0, int(sys.argv[1])
while step != last:
    images, labels = torch.randn(32, 1, 16, 16), torch.randint(0, 10, (32,))
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    step += 1
    if step % 20 == 0:
        digest = hashlib.sha256()
        for weights in model.parameters():
            digest.update(str(weights.detach().flatten().tolist()).encode())
        print(step, digest.hexdigest(), flush=True)
"""


class Training:
    """The loop: of so many steps, or without an end."""

    def __init__(self, python, path, folder, steps=-1):
        script = os.path.join(folder, "training.py")
        with open(script, "w") as file:
            file.write(LOOP)
        self.process = subprocess.Popen([python, script, str(steps)], env=dict(os.environ, PYTHONPATH=path),
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.digests, self.errors = [], []
        threading.Thread(target=self.read, daemon=True).start()
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True).start()

    def read(self):
        self.digests.extend(line.decode().split() for line in self.process.stdout)

    def wait_for_more(self, count, seconds=120):
        until, wanted = time.monotonic() + seconds, len(self.digests) + count
        while len(self.digests) < wanted:
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError("no step is made any more: status %s %s" % (self.process.poll(), self.errors[-3:]))
            time.sleep(.01)

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def compare(python, path, folder, training):
    """How many digests a bare run has otherwise."""
    bare = Training(python, path, folder, len(training.digests) * 20)
    bare.process.wait()
    until = time.monotonic() + 10
    while len(bare.digests) < len(training.digests) and time.monotonic() < until:
        time.sleep(.01)
    return sum(one != other for one, other in zip(training.digests, bare.digests)) + abs(
        len(training.digests) - len(bare.digests))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--library", default="torch")
    options = parser.parse_args()
    library = [one for one in LIBRARIES if one.name == options.library][0]
    python = packages.python_of(library.python)
    path, why = packages.folder(library, python) if python else (None, "no Python " + library.python)
    if not path:
        print("%s\n0 passed, 0 failed, %d skipped" % (why, options.rounds))
        return
    passed, failed, chance, started = 0, 0, random.Random(options.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        training = Training(python, path, folder)
        try:
            training.wait_for_more(2, 600)
            for number in range(options.rounds):
                if failed or time.monotonic() - started > options.seconds:
                    break
                try:
                    one_round(number, training.process.pid, chance, 2, 60)
                    training.wait_for_more(1)
                    passed += 1
                except Exception as error:  # the round has failed, whatever it is
                    failed += 1
                    print("FAILED: round %d: %s" % (number, error), flush=True)
            size = status(training.process.pid)["VmRSS"] if training.process.poll() is None else "-"
        finally:
            training.end()
        time.sleep(.5)
        wrong = compare(python, path, folder, training)
    print("%d rounds in %.0f s, seed %d; %d digests, %d wrong; RSS %s at the end" % (
        passed + failed, time.monotonic() - started, options.seed, len(training.digests), wrong, size))
    print("%d passed, %d failed, %d skipped" % (passed, failed, options.rounds - passed - failed))
    sys.exit(1 if failed or wrong or not training.digests else 0)


main()
