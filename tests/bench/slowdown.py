# SPDX-License-Identifier: MIT
"""How much slower loops run: within one process each, bare and with a probe in turns."""
import glob
import math
import os
import statistics

from probes import HERE, Failure, Memray, Process, Pyleak, Switched, memray_missing

EVERY = sorted(os.path.basename(path)[:-3] for path in glob.glob(os.path.join(HERE, "loops", "[a-z]*.py")))
NATIVE_LOOPS = [loop for loop in EVERY if loop.startswith("native_")]
LOOPS = [loop for loop in EVERY if loop not in NATIVE_LOOPS]

# name, how it is shown, and by how much its run is shortened because it is so slow. The bare run that
# it is compared with is as short.
MODES = {
    "hook": ("empty hook", 1),
    "pyleak-1": ("pyleak, 1 frame", 1),
    "pyleak-16": ("pyleak, 16 frames", 1),
    "pyleak-sample": ("pyleak --sample 512KiB", 1),
    "tracemalloc-1": ("tracemalloc, 1 frame", 2),
    "tracemalloc-16": ("tracemalloc, 16 frames", 10),
    "memray": ("memray attach", 1),
    "memray-python": ("memray attach --trace-python-allocators", 8),
    "pyleak-16-parked": ("pyleak --no-free-lists, 16 frames", 1),
    "pyleak-sample-parked": ("pyleak --no-free-lists --sample 512KiB", 1),
    "pyleak-domain-python": ("pyleak --domain python", 1),
    "breakpoint": ("pyleak -e breakpoint", 1000),
}
DEFAULT_MODES = [mode for mode in MODES
                 if mode not in ("breakpoint", "pyleak-domain-python") and not mode.endswith("-parked")]
NATIVE_MODES = ["pyleak-1", "pyleak-16", "pyleak-sample", "pyleak-domain-python"]


def probe(mode, target, bench):
    if mode == "hook":
        return Switched(target, "hook", 1)
    if mode.startswith("tracemalloc"):
        return Switched(target, "tracemalloc", mode.split("-")[1])
    if mode == "memray":
        return Memray(bench.python, target)
    if mode == "memray-python":
        return Memray(bench.python, target, "--trace-python-allocators")
    if mode == "breakpoint":
        return Pyleak(bench.pyleak, target.pid, "-e", "breakpoint", "-n", "0")
    if mode == "pyleak-domain-python":
        return Pyleak(bench.pyleak, target.pid, "-e", "inline", "--domain", "python")
    parked = ["--no-free-lists"] if mode.endswith("-parked") else []
    if mode.startswith("pyleak-sample"):
        return Pyleak(bench.pyleak, target.pid, "-e", "inline", "--sample", "512KiB", *parked)
    return Pyleak(bench.pyleak, target.pid, "-e", "inline", "-f", mode.split("-")[1], *parked)


def missing(mode, bench):
    """Why a mode cannot be measured here, or None."""
    if mode == "hook" and not bench.hook:
        return "tests/bench/empty_hook.so is not built"
    if mode.startswith("memray"):
        return memray_missing(bench.python)
    return None


class Ratios:
    """Of one loop in one mode: a ratio for each round, by CPU time and by wall time."""

    def __init__(self):
        self.cpu, self.wall, self.events, self.added = [], [], [], []

    def add(self, before, during, after):
        self.cpu.append(2 * during["cpu"] / (before["cpu"] + after["cpu"]))
        self.wall.append(2 * during["wall"] / (before["wall"] + after["wall"]))
        self.added.append(during["wall"] - (before["wall"] + after["wall"]) / 2)

    def summary(self):
        result = {}
        for name, values in ("cpu", self.cpu), ("wall", self.wall):
            result[name] = statistics.median(values)
            result[name + "_min"], result[name + "_max"] = min(values), max(values)
        result["rounds"] = len(self.cpu)
        if self.events:
            result["us_per_event"] = 1e6 * statistics.median(a / e for a, e in zip(self.added, self.events))
        return result


def events(report):
    """Allocations and frees that a pyleak has seen, as many as its rows say."""
    return sum(row["allocated"]["count"] + row["freed"]["count"] for row in report["stats"])


def one_round(target, units, mode, ratios, bench):
    shorter = max(1, units // MODES[mode][1])
    before = target.ask("run", shorter)
    attached = probe(mode, target, bench)
    with attached:
        during = target.ask("run", shorter)
    after = target.ask("run", shorter)
    ratios.add(before, during, after)
    if mode == "breakpoint":
        # A tenth of the loop goes before the measured run.
        ratios.events.append(events(attached.report) * shorter / (shorter + max(1, shorter // 10)))


def measure_loop(loop, modes, left_out, bench):
    """A mode that fails is left out from then on, unless the process has died of it."""
    ratios = {mode: Ratios() for mode in modes}
    command = [bench.python, os.path.join(HERE, "target.py"), loop] + ([bench.hook] if bench.hook else [])
    with Process(command) as target:
        units = target.ask("calibrate", bench.seconds)["units"]
        for _ in range(bench.rounds):
            for mode in modes:
                if mode in left_out:
                    continue
                try:
                    one_round(target, units, mode, ratios[mode], bench)
                except Failure as failure:
                    if target.process.poll() is not None:
                        raise Failure("%s, %s: %s" % (loop, mode, failure))
                    left_out[mode] = str(failure)
    return {mode: ratios[mode].summary() for mode in modes if mode not in left_out}


def measure(loops, wanted, bench, result):
    """Fills result, loop by loop: {"modes": {mode: {loop: summary}}, "left_out": {mode: reason}}"""
    modes, left_out = result["modes"], result["left_out"]
    left_out.update((mode, missing(mode, bench)) for mode in wanted if missing(mode, bench))
    for loop in loops:
        bench.progress(loop)
        found = measure_loop(loop, [mode for mode in wanted if mode not in left_out], left_out, bench)
        for mode, summary in found.items():
            modes.setdefault(mode, {})[loop] = summary
        for mode in left_out:
            modes.pop(mode, None)


def geometric_mean(values):
    return math.exp(statistics.mean(math.log(value) for value in values))
