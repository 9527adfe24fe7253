# SPDX-License-Identifier: MIT
"""The known causes of data/known-causes are those of real leaks: for each, tests/victims/causes.py has a
program that leaks so, and pyleak names the cause."""
import collections
import concurrent.futures
import os
import re
import subprocess

import pytest

import pythons
import wheels
from helpers import PATIENCE, ROOT, VICTIMS, Pyleak, Victim, skip_here
from programs import Program

PROGRAM = VICTIMS / "causes.py"
NAMES = re.findall(r"^\[(.*)\]$", (ROOT / "data" / "known-causes").read_text(), re.M)
# Those that need a package.
PACKAGES = {"pyplot-figures": "matplotlib", "prometheus-labels": "prometheus_client", "requests-sessions": "requests",
            "aiohttp-sessions": "aiohttp", "httpx-clients": "httpx", "boto3-clients": "boto3", "pymongo-clients": "pymongo",
            "sqlalchemy-engines": "sqlalchemy", "django-queries": "django",
            "django-signals": "django", "sqlalchemy-sessions": "sqlalchemy"}
# Those of packages that no distribution has in the version wanted, from the package index.
FETCHED = {name: ["greenlet==3.2.4", "celery==5.5.3", "opentelemetry-sdk==1.38.0"]
           for name in ("greenlets", "celery-results", "opentelemetry-attributes", "opentelemetry-meters", "opentelemetry-spans")}
# Those that are true of some versions only: from this one on, and before that one.
VERSIONS = {"interned-for-ever": ((3, 12), (3, 12, 7)), "ctypes-pointer-types": ((3, 6), (3, 14)),
            "locks-of-threads": ((3, 7, 5), (3, 9, 6)), "dataclasses-made-per-call": ((3, 7), (4,))}
# The share of the growth that its rows have at least: the rest is on lines of the program itself, or of
# modules that everything uses. (What OpenSSL allocates has no Python line.)
LEAST_SHARE = 0.1


def environment(python, name):
    path = [wheels.fetch(pythons.of(os.path.realpath(python)), "causes", FETCHED[name])] if name in FETCHED else []
    return dict(os.environ, PYTHONPATH=os.pathsep.join(path + os.environ.get("PYTHONPATH", "").split(os.pathsep)).rstrip(os.pathsep))


def growth_by_cause(python, *names, program=PROGRAM):
    """{name of the cause or None: bytes that its rows grew by} in one second of the program."""
    with Victim(python, program, *names, stderr=subprocess.DEVNULL, env=environment(python, names[0])) as victim:
        with Pyleak("diff", victim.pid, "--interval", 0.5 * PATIENCE, "--limit", 0, "--domain", "python", "--format", "json") as running:
            victim.tell("go")
            result = running.finish()
    assert result.status == 0, result
    grown = collections.Counter()
    for row in result.json()["stats"]:
        cause = row.get("known_cause")
        if row["size_diff"] > 0:
            grown[cause and cause["name"]] += row["size_diff"]
        else:
            assert cause is None, row
    return grown


def assert_named(python, names):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for name, grown in zip(names, pool.map(lambda name: growth_by_cause(python, name), names)):
            assert grown[name] >= LEAST_SHARE * sum(grown.values()), (name, grown)


def is_true_of(python, name):
    least, below = VERSIONS.get(name, ((3,), (4,)))
    text = subprocess.check_output([python, "-c", "import sys; print(*sys.version_info[:3])"], universal_newlines=True)
    return least <= tuple(int(number) for number in text.split()) < below


def test_each_has_a_program():
    functions = re.findall(r"^def (\w+)\(\):", PROGRAM.read_text(), re.M)
    assert sorted(NAMES) == sorted(set(name.replace("_", "-") for name in functions) - {"main", "look-up"})


@pytest.mark.parametrize("which", [0, -1], ids=["oldest", "newest"])
def test_standard_library(which):
    """The oldest Python does not know qualified names of functions, the newest does."""
    python = pythons.pythons()[which].executable
    assert_named(python, [name for name in NAMES if name not in PACKAGES and name not in FETCHED and is_true_of(python, name)])


@pytest.mark.parametrize("name", VERSIONS)
def test_of_some_versions(python, name):
    """Named where it is true, and nowhere else."""
    if is_true_of(python, name):
        assert_named(python, [name])
    elif name != "dataclasses-made-per-call":
        assert name not in growth_by_cause(python, name)


CACHE = """
import functools
class Report:
    @functools.lru_cache(maxsize=%s)
    def text(self):
        return bytes(1000)  # at line
KEPT = []
meet("ready")
while True:
    KEPT.append(Report())
    KEPT[-1].text()
    time.sleep(0.002)
"""


@pytest.mark.parametrize("maxsize,named", [("None", True), ("100000", True), ("8", False)])
def test_a_small_cache_is_no_cause(one_python, tmp_path, maxsize, named):
    with Program(one_python, tmp_path, CACHE % maxsize) as victim:
        victim.tell("go")
        with Pyleak("diff", victim.pid, "--interval", 0.5 * PATIENCE, "--limit", 0, "--format", "json") as running:
            document = running.finish().json()
    names = [row["known_cause"]["name"] for row in document["stats"] if "known_cause" in row]
    assert ("lru-cache-on-a-method" in names) is named, names


def test_threads_that_are_not_there(one_python, tmp_path):
    """Objects of threads that are made and never started are no threads that do not end."""
    text = "KEPT = []\nmeet('ready')\nwhile True:\n    KEPT.append(threading.Thread())\n    time.sleep(0.002)\n"
    with Program(one_python, tmp_path, text) as victim:
        victim.tell("go")
        with Pyleak("diff", victim.pid, "--interval", 0.5 * PATIENCE, "--limit", 0, "--format", "json") as running:
            document = running.finish().json()
    assert not document["known_causes"], document["known_causes"]


def test_a_few_more_or_less(one_python, tmp_path):
    """Beside much else that grows some tasks more are no cause of it."""
    text = ("import asyncio\nKEPT = []\nasync def serve():\n    while True:\n        asyncio.get_event_loop().create_task(asyncio.sleep(9))\n"
            "        for _ in range(50):\n            KEPT.append(bytes(9000))\n            await asyncio.sleep(0.002)\n"
            "meet('ready')\nasyncio.new_event_loop().run_until_complete(serve())\n")
    with Program(one_python, tmp_path, text) as victim:
        victim.tell("go")
        with Pyleak("diff", victim.pid, "--interval", 0.5 * PATIENCE, "--limit", 0, "--format", "json") as running:
            document = running.finish().json()
    assert [row for row in document["stats"] if row["function"].endswith("create_task") and row["count_diff"] > 0], document["stats"]
    assert not document["known_causes"], document["known_causes"]


@pytest.mark.parametrize("name", PACKAGES)
def test_packages(one_python, name):
    probe = "import importlib.util, sys; sys.exit(not importlib.util.find_spec('%s'))" % PACKAGES[name]
    if PACKAGES[name] == "matplotlib" and subprocess.run([one_python, "-c", probe], check=False).returncode:
        skip_here("matplotlib")  # as large as all the others together
    assert_named(one_python, [name])


@pytest.mark.parametrize("name", FETCHED)
def test_fetched_packages(one_python, name):
    assert_named(one_python, [name])


LOOKS_ALIKE = VICTIMS / "no_causes.py"


ALIKE = [name.replace("_", "-") for name in re.findall(r"^def (\w+)\(\):", LOOKS_ALIKE.read_text(), re.M) if name != "main"]
# All of a kind in one process, as none of them is to be told of any cause: those of the standard library, of a
# distribution's packages, of the package index; alone is what is true of some versions, or is a cause of another name.
ALONE = list(VERSIONS) + ["exception-raised-again"]
KINDS = {"library": [name for name in ALIKE if name not in PACKAGES and name not in FETCHED and name not in ALONE],
         "packages": [name for name in ALIKE if name in PACKAGES], "fetched": [name for name in ALIKE if name in FETCHED]}
KINDS.update({name: [name] for name in ALIKE if name in ALONE})


@pytest.mark.parametrize("kind", KINDS)
def test_what_looks_alike(one_python, kind):
    python = one_python
    if kind in VERSIONS:
        python = next((entry.executable for entry in pythons.pythons() if is_true_of(entry.executable, kind)), None)
        if not python:
            pytest.skip("may skip: no Python that it is true of")
    grown = growth_by_cause(python, *KINDS[kind], program=LOOKS_ALIKE)
    assert grown[None] and not set(KINDS[kind]) & set(grown), grown
    assert kind in ALONE or set(grown) == {None}, grown


def test_text(one_python):
    with Victim(one_python, PROGRAM, "mock-calls") as victim:
        with Pyleak("diff", victim.pid, "--interval", 0.4 * PATIENCE, "--count", 6, "--limit", 1) as running:
            victim.tell("go")
            result = running.finish()
    assert result.status == 0, result
    windows = [part.partition("\n")[2] for part in result.stdout.split("\n\n") if part.startswith("window ")]
    first, last = windows[0], windows[-1]
    assert first.startswith("known cause, if this goes on: a Mock keeps a record of each call that it ever got (+"), first
    assert re.match(r"known cause: a Mock keeps .* \(\+.* in \d+ rows?\)\n    call its reset_mock\(\) .*\n"
                    r"    https://docs.python.org/3/library/unittest.mock.html#\S+\n", last), last
    assert re.search(r"    # steady growth in \d windows: .*\n    # live: (about )?\d+ dict.*\n    # known cause: mock-calls\n", last), last


def test_a_file_of_ones_own(one_python, tmp_path):
    own = tmp_path / "causes"
    own.write_text("[mine]\ncause it leaks\nremedy do not\nsee https://example.org/\nmatch */causes.py:mock_calls ...\n")

    def diff(environment):
        with Victim(one_python, PROGRAM, "mock-calls") as victim:
            with Pyleak("diff", victim.pid, "--interval", 0.3 * PATIENCE, environment=environment) as running:
                victim.tell("go")
                return running.finish()
    assert re.match(r"known cause, if this goes on: it leaks \(.*\)\n    do not\n    https://example.org/\n", diff(
        {"PYLEAK_CAUSES": str(own)}).stdout)
    own.write_text("[mine]\nnonsense\n")
    result = diff({"PYLEAK_CAUSES": str(own)})
    assert result.status == 0
    assert result.stderr == "pyleak: %s, line 2: nothing follows 'nonsense'; the built-in known causes are used\n" % own
    assert "a Mock keeps" in result.stdout
