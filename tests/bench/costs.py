# SPDX-License-Identifier: MIT
"""Costs besides speed: memory added, time per allocation and of a snapshot with many live blocks,
attaching, and the longest stop."""
import os
import statistics
import subprocess
import time

from probes import HERE, Bare, Failure, Process, Pyleak, rss

BLOCK = 48
CHURN = 2000000


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def target(bench, loop="json_both_ways"):
    return Process([bench.python, os.path.join(HERE, "target.py"), loop])


def filled(bench, blocks, options):
    """RSS, and ns for each allocation and free at 10,000 and at so many live blocks; options None: bare."""
    with target(bench) as process:
        process.ask("fill", 10000)
        # A list of this length has been there, so that what the process keeps of it is not ours.
        with Pyleak(bench.pyleak, process.pid, *options) if options else Bare() as probe:
            process.ask("fill", 10000)
            few = [process.ask("churn", CHURN)["cpu"] for _ in range(3)]
            result = process.ask("fill", blocks, seconds=600)
            many = [process.ask("churn", CHURN)["cpu"] for _ in range(3)]
            result["rss"] = rss(process.pid)
        result["ns_few"], result["ns_many"] = 1e9 * min(few) / CHURN, 1e9 * min(many) / CHURN
        if options:
            top = probe.report["stats"][0]
            result["counted"] = {"count": top["count"], "size": top["size"]}
        return result


def memory(bench, blocks):
    """What a probe adds to the RSS of a process with so many live blocks of 48 bytes, over their size."""
    bare = filled(bench, blocks, None)
    result = {"blocks": blocks, "bare": bare}
    for name, options in ("pyleak-1", ("-f", "1")), ("pyleak-16", ("-f", "16")):
        found = filled(bench, blocks, ("-e", "inline") + options)
        found["added"] = (found["rss"] - bare["rss"]) / (BLOCK * blocks)
        result[name] = found
    return result


def snapshot(bench, blocks, count=50):
    """What a snapshot and the report of a difference cost, in wall time: a run with many differences,
    less one with a single one, less the intervals."""
    def run(pid, differences):
        command = [bench.pyleak, "diff", str(pid), "-e", "inline", "-i", "10ms", "-c", str(differences), "-n", "10",
                   "--format", "json"]
        started = time.monotonic()
        output = subprocess.check_output(command, stdin=subprocess.DEVNULL)
        took = time.monotonic() - started
        if len(output.splitlines()) != differences:
            raise Failure("diff -c %d printed %d documents" % (differences, len(output.splitlines())))
        return took

    with target(bench) as process:
        subprocess.check_call([bench.pyleak, "attach", str(process.pid), "--keep"], stdin=subprocess.DEVNULL)
        process.ask("fill", blocks, seconds=600)
        values = []
        for _ in range(3):
            one = run(process.pid, 1)
            many = run(process.pid, 1 + count)
            values.append(((many - one) / count - 0.010) * 1e3)
        subprocess.check_call([bench.pyleak, "detach", str(process.pid)], stdin=subprocess.DEVNULL)
    return dict(spread(values), blocks=blocks)


def attaching(bench, rounds):
    """ms from the start of pyleak until the hooks record; and until its first row of output, removal included."""
    planted, row = [], []
    with target(bench) as process:
        for _ in range(rounds):
            with Pyleak(bench.pyleak, process.pid, "-e", "inline") as probe:
                pass
            planted.append(probe.attach_time * 1e3)
            started = time.monotonic()
            running = subprocess.Popen([bench.pyleak, "attach", str(process.pid), "-e", "inline", "-d", "1ms"],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            os.read(running.stdout.fileno(), 1)
            row.append((time.monotonic() - started) * 1e3)
            _, errors = running.communicate(timeout=60)
            if running.returncode:
                raise Failure("attach: status %d: %s" % (running.returncode, errors.decode().strip()))
    return {"planted": spread(planted), "first row": spread(row)}


def stops(bench, rounds):
    """Longest time that the process was held stopped by one attach and detach, in ms, by its threads."""
    result = {}
    for threads in 1, 8, 50:
        values = []
        with target(bench) as process:
            process.ask("threads", threads - 1)
            for _ in range(rounds):
                with Pyleak(bench.pyleak, process.pid, "-e", "inline") as probe:
                    time.sleep(0.05)
                values.append(probe.report["stop_ms"])
        result[str(threads)] = spread(values)
    return result
