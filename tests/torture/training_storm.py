#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Attaches to a busy torch training loop, lets go of it or is killed, over and over; what it learns may not change by a bit.

    training_storm.py [--cycles N] [--steps N] [--instants N] [--seconds S] [--seed N] [--library NAME]

torch comes from the package index, once (NAME is of tests/wheels/libraries.py: "torch", "torch 1.12.1"). The loop trains a
network with two threads, convolution and all, and says after each step a digest of the loss, and of all its weights after every
20th. It is one process, which goes through all rounds, in random order:

    --cycles    an attach of a random length, and its detach
    --steps     pyleak kills itself at a random one of its steps
    --instants  pyleak is killed at a random instant

After a kill the guardian cleans up, or every other time, with the loop having gone on meanwhile, `pyleak detach`. After each
round nothing of pyleak may be left but the page for pointers that the program may have kept, and the loop must go on. The same
loop runs bare beside it, and says what the digests are.
The last line of the output is "N passed, N failed, N skipped".
"""
import argparse
import os
import pathlib
import random
import signal
import statistics
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
import rounds  # noqa: E402

AHEAD = 200  # steps
LOOP = """
import hashlib
import torch
torch.manual_seed(1)
torch.set_num_threads(2)
torch.use_deterministic_algorithms(True)
model = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 14 * 14, 64),
                            torch.nn.Dropout(0.1), torch.nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
step = 0
while True:
    images, labels = torch.randn(32, 1, 16, 16), torch.randint(0, 10, (32,))
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    step += 1
    digest = hashlib.sha256()
    if step % 20 == 0:
        for weights in model.parameters():
            digest.update(str(weights.detach().flatten().tolist()).encode())
    else:
        digest.update(str(loss.item()).encode())
    print(step, digest.hexdigest(), flush=True)
"""


class Training:
    """The loop."""

    def __init__(self, python, path, folder):
        script = os.path.join(folder, "training.py")
        with open(script, "w") as file:
            file.write(LOOP)
        self.process = subprocess.Popen([python, script], env=dict(os.environ, PYTHONPATH=path),
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.digests, self.errors, self.waits = [], [], False
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True).start()

    def read(self):
        self.digests.extend(line.decode().split() for line in self.process.stdout)

    def wait_for_more(self, count, seconds=120):
        until, wanted = time.monotonic() + seconds, len(self.digests) + count
        while len(self.digests) < wanted:
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError("no step is made any more: status %s %s" % (self.process.poll(), self.errors[-3:]))
            time.sleep(.01)

    def keep_beside(self, other, ahead=AHEAD):
        """It need not be further than the other one will be soon."""
        waits = len(self.digests) >= len(other.digests) + ahead
        if waits != self.waits:
            self.process.send_signal(signal.SIGSTOP if waits else signal.SIGCONT)
        self.waits = waits

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def compare(training, bare):
    """How many digests the bare run has otherwise."""
    while len(bare.digests) < len(training.digests):
        bare.keep_beside(training, 0)
        bare.wait_for_more(1)
    return sum(one != other for one, other in zip(training.digests, bare.digests))


class Storm:
    """The rounds, and what became of them."""

    def __init__(self, options, training, bare):
        self.chance, self.training, self.bare, self.pid = random.Random(options.seed), training, bare, training.process.pid
        kinds = ["cycle"] * options.cycles + ["step"] * options.steps + ["instant"] * options.instants
        self.chance.shuffle(kinds)
        self.kinds, self.done, self.failed, self.ended_before = kinds, 0, 0, 0
        self.took = {kind: [] for kind in kinds}
        self.steps = rounds.steps_of(self.pid) if options.steps else 0

    def one(self, number, kind):
        guardian = kind == "cycle" or number % 2 == 0
        if kind == "cycle":
            rounds.cycle(self.pid, self.chance)
        elif kind == "step":
            self.ended_before += not rounds.step(self.pid, self.chance, self.steps, guardian)
        else:
            rounds.instant(self.pid, self.chance, 2)
        if not guardian:
            self.training.wait_for_more(2)
        rounds.clean_up(self.pid, guardian, 60)
        self.training.wait_for_more(2)
        self.bare.keep_beside(self.training)

    def run(self, seconds):
        until = time.monotonic() + seconds
        for number, kind in enumerate(self.kinds):
            started = time.monotonic()
            if self.failed or started > until:
                break
            try:
                self.one(number, kind)
                self.done += 1
                self.took[kind].append(time.monotonic() - started)
            except Exception as error:  # the round has failed, whatever it is
                self.failed += 1
                print("FAILED: round %d, %s: %s" % (number, kind, error), flush=True)

    def __str__(self):
        took = ["%d %ss of %.2f s (median; longest %.2f s)" % (len(all_), kind, statistics.median(all_), max(all_))
                for kind, all_ in sorted(self.took.items()) if all_]
        return "; ".join(took) + ("; of %d steps, %d ended before theirs" % (self.steps, self.ended_before) if self.steps else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--instants", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--library", default="torch")
    options = parser.parse_args()
    library = [one for one in LIBRARIES if one.name == options.library][0]
    python = packages.python_of(library.python)
    path, why = packages.folder(library, python) if python else (None, "no Python " + library.python)
    if not path:
        print("%s\n0 passed, 0 failed, %d skipped" % (why, options.cycles + options.steps + options.instants))
        return
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        training = Training(python, path, folder)
        bare = Training(python, path, folder)
        try:
            training.wait_for_more(2, 600)
            first_size, ready = status(training.process.pid)["VmRSS"], time.monotonic()
            storm = Storm(options, training, bare)
            storm.run(options.seconds)
            size = status(training.process.pid)["VmRSS"] if training.process.poll() is None else "-"
            training.end()
            stormed = time.monotonic()
            training.reader.join()
            wrong = compare(training, bare)
        finally:
            training.end()
            bare.end()
    print("%s, seed %d: %.0f s until it ran, rounds for %.0f s, and %.0f s until the bare run was as far\n%s" % (
        packages.versions(path, library.packages), options.seed, ready - started, stormed - ready, time.monotonic() - stormed, storm))
    print("%d digests, %d wrong; RSS %s at first, %s at the end" % (len(training.digests), wrong, first_size, size))
    print("%d passed, %d failed, %d skipped" % (storm.done, storm.failed, len(storm.kinds) - storm.done - storm.failed))
    sys.exit(1 if storm.failed or wrong or not training.digests else 0)


main()
