#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Records the series that verdicts are tested with: tests/series/record.py --pyleak build/pyleak [--python PATH]...

Runs service.py with every kind and traffic below, on each Python in turn, and writes one recording of each into
tests/series/data, named KIND-TRAFFIC-PYTHON.pyleak. tests/unit/test_verdict_recorded.c judges their rows, and says how
often verdicts err. Rows are told by the comments of service.py: data/labels has their lines.
"""
import argparse
import concurrent.futures
import pathlib
import re
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
SERVICE = HERE / "service.py"
INTERVAL, WINDOWS = 0.4, 20

LEAKS = ["leak_list", "leak_dict", "leak_set", "leak_deque", "leak_defaultdict", "leak_setdefault", "leak_attribute",
         "leak_counter", "leak_nested", "leak_buffers", "leak_closures", "leak_some", "leak_two"]
TRAFFICS = ["constant", "falling", "rising", "bursts", "uneven"]
CONTAINERS = ["default_set", "default_numbers", "default_by_request", "default_dict", "setdefault_list", "new_attribute", "ordered",
              "memo", "frozen", "lines_of_text", "little_set", "little_dict", "little_default_set", "little_list"]
OTHERS = ["full_cache", "full_ring", "full_lru_cache", "full_timed", "filling_cache", "warm_up", "sawtooth", "collected",
          "sessions", "in_flight", "one_resize"]
PLAN = ([(kind, traffic) for kind in LEAKS for traffic in TRAFFICS] + [("leak_cycles", traffic) for traffic in ("constant", "uneven", "rising")] +
        [(kind, traffic) for kind in OTHERS for traffic in ("constant", "uneven", "bursts")] +
        [("full_cache", "falling"), ("full_cache", "rising"), ("full_ring", "falling"), ("full_lru_cache", "rising")] +
        [(kind, traffic) for kind in ("service", "service_without") for traffic in ("constant", "uneven")] +
        [(kind, traffic) for kind in ("beside_forty", "beside_one") for traffic in ("constant", "rising", "falling", "uneven")] +
        [(kind, traffic) for kind in CONTAINERS for traffic in ("constant", "falling", "rising", "bursts")])


def labels():
    """The judged lines of service.py: number and what they are."""
    with open(str(SERVICE)) as file:
        for line, text in enumerate(file, 1):
            match = re.search(r"  # ([a-z-]+)$", text.rstrip())
            if match and not text.lstrip().startswith("#"):
                yield line, match.group(1)


def record(job):
    number, (kind, traffic), python, pyleak, data, seed = job
    name = "%02d-%s-%s-%s" % (number, kind, traffic, python_version(python))
    path = data / (name + ".pyleak")
    service = subprocess.Popen([python, "service.py", kind, traffic, str(seed + number)], cwd=str(HERE),
                               stdout=subprocess.PIPE)
    try:
        assert service.stdout.readline() == b"ready\n", name
        time.sleep(0.1 + number % 7 * 0.05)
        subprocess.run([pyleak, "attach", str(service.pid), "-i", "%dms" % (1000 * INTERVAL), "-d",
                        "%gs" % (INTERVAL * WINDOWS + 0.1), "-f", "8", "-o", str(path), "--force"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    except subprocess.CalledProcessError as error:
        return "%s: %s" % (name, error.stderr.decode())
    finally:
        service.kill()
        service.wait()
    return name


def python_version(python):
    return subprocess.check_output([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).decode().strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pyleak", required=True)
    parser.add_argument("--python", action="append")
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--only", default="", help="kinds with one of these in their names, which commas separate")
    parser.add_argument("--data", type=pathlib.Path, default=HERE / "data")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    pythons = arguments.python or ["/usr/bin/python3"]
    data = arguments.data
    jobs = [(number, plan, pythons[(number + arguments.seed - 1) % len(pythons)], arguments.pyleak, data, arguments.seed)
            for number, plan in enumerate(PLAN) if any(name in plan[0] for name in arguments.only.split(","))]

    data.mkdir(exist_ok=True)
    with open(str(data / "labels"), "w") as file:
        for line, label in labels():
            file.write("%d %s\n" % (line, label))
    with concurrent.futures.ThreadPoolExecutor(arguments.at_once) as pool:
        for said in pool.map(record, jobs):
            print(said)
            sys.stdout.flush()


main()
