# SPDX-License-Identifier: MIT
"""A Flask service under load: requests per second with a probe, over those without, in turns."""
import os
import statistics
import subprocess
import sys

from probes import HERE, Failure, Process, cpu_seconds
from slowdown import probe

MODES = ("hook", "pyleak-1", "pyleak-16", "pyleak-sample", "tracemalloc-1", "tracemalloc-16")


def missing(bench):
    if subprocess.call([bench.python, "-c", "import flask"], stderr=subprocess.DEVNULL):
        return "Flask is not installed for it"
    return None


def phase(client, service, seconds):
    before = cpu_seconds(service.pid)
    result = client.ask("load", seconds)
    return {"rate": result["requests"] / result["wall"],
            "cpu": (cpu_seconds(service.pid) - before) / result["requests"]}


def one_round(mode, before, client, service, ratios, seconds, bench):
    with probe(mode, service, bench):
        client.ask("load", 0.2)
        during = phase(client, service, seconds)
    client.ask("load", 0.2)
    after = phase(client, service, seconds)
    for key, values in ratios.items():
        values.append(2 * during[key] / (before[key] + after[key]))
    return after


def measure(bench, seconds, rounds):
    """{mode: {"rate": requests/s over bare, "cpu": service's CPU time per request over bare, …}}"""
    ratios = {mode: {"rate": [], "cpu": []} for mode in MODES}
    left_out, rates = {}, []
    with Process([bench.python, os.path.join(HERE, "flask_service.py"), bench.hook]) as service:
        port = int(service.line().split(":")[1].strip(" }"))
        with Process([sys.executable, os.path.join(HERE, "flask_client.py"), str(port)]) as client:
            phase(client, service, seconds) # templates are compiled, caches filled
            bare = phase(client, service, seconds)
            for _ in range(rounds):
                for mode in MODES:
                    if mode in left_out:
                        continue
                    try:
                        bare = one_round(mode, bare, client, service, ratios[mode], seconds, bench)
                    except Failure as failure:
                        if service.process.poll() is not None:
                            raise
                        left_out[mode] = str(failure)
                    rates.append(bare["rate"])
    result = {mode: {key: {"median": statistics.median(v), "min": min(v), "max": max(v)} for key, v in found.items()}
              for mode, found in ratios.items() if mode not in left_out}
    return {"modes": result, "bare_rate": statistics.median(rates), "left_out": left_out}
