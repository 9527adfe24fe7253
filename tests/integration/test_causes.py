# SPDX-License-Identifier: MIT
"""The known causes of data/known-causes are those of real leaks: for each, tests/victims/causes.py has a
program that leaks so, and pyleak names the cause."""
import collections
import concurrent.futures
import re
import subprocess

import pytest

import pythons
from helpers import PATIENCE, ROOT, VICTIMS, Pyleak, Victim, skip_here
from programs import Program

PROGRAM = VICTIMS / "causes.py"
NAMES = re.findall(r"^\[(.*)\]$", (ROOT / "data" / "known-causes").read_text(), re.M)
# Those that need a package.
PACKAGES = {"pyplot-figures": "matplotlib", "prometheus-labels": "prometheus_client", "requests-sessions": "requests",
            "aiohttp-sessions": "aiohttp", "httpx-clients": "httpx", "boto3-clients": "boto3", "pymongo-clients": "pymongo",
            "sqlalchemy-engines": "sqlalchemy", "django-queries": "django",
            "django-signals": "django", "sqlalchemy-sessions": "sqlalchemy"}
# Those that are true of some versions only: from this one on, and before that one.
VERSIONS = {"interned-for-ever": ((3, 12), (3, 12, 7)), "ctypes-pointer-types": ((3, 6), (3, 14)),
            "dataclasses-made-per-call": ((3, 7), (4,))}
# The share of the growth that its rows have at least: the rest is on lines of the program itself, or of
# modules that everything uses. (What OpenSSL allocates has no Python line.)
LEAST_SHARE = 0.1


def growth_by_cause(python, name):
    """{name of the cause or None: bytes that its rows grew by} in one second of the program."""
    with Victim(python, PROGRAM, name, stderr=subprocess.DEVNULL) as victim:
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
    assert sorted(NAMES) == sorted(set(name.replace("_", "-") for name in functions) - {"main"})


@pytest.mark.parametrize("which", [0, -1], ids=["oldest", "newest"])
def test_standard_library(which):
    """The oldest Python does not know qualified names of functions, the newest does."""
    python = pythons.pythons()[which].executable
    assert_named(python, [name for name in NAMES if name not in PACKAGES and is_true_of(python, name)])


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


@pytest.mark.parametrize("name", PACKAGES)
def test_packages(one_python, name):
    probe = "import importlib.util, sys; sys.exit(not importlib.util.find_spec('%s'))" % PACKAGES[name]
    if PACKAGES[name] == "matplotlib" and subprocess.run([one_python, "-c", probe], check=False).returncode:
        skip_here("matplotlib")  # as large as all the others together
    assert_named(one_python, [name])


def test_text(one_python):
    with Victim(one_python, PROGRAM, "mock-calls") as victim:
        with Pyleak("diff", victim.pid, "--interval", 0.4 * PATIENCE, "--count", 6, "--limit", 1) as running:
            victim.tell("go")
            result = running.finish()
    assert result.status == 0, result
    first, last = result.stdout.split("\n\n")[0], result.stdout.split("\n\n")[-1]
    assert first.startswith("known cause, if this goes on: a Mock keeps a record of each call that it ever got (+"), first
    assert re.match(r"known cause: a Mock keeps .* \(\+.* in \d+ rows?\)\n    call its reset_mock\(\) .*\n"
                    r"    https://docs.python.org/3/library/unittest.mock.html#\S+\n", last), last
    assert re.search(r"    # steady growth in \d windows: .*\n    # known cause: mock-calls\n", last), last


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
