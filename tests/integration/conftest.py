# SPDX-License-Identifier: MIT
"""Fixtures, and the rule for skips.

A test may skip itself only through helpers.skip_here(), which names what the machine lacks. With
PYLEAK_MUST_RUN=1 (tools/check sets it) a skip for any other reason is a failure, so that nothing
stops being tested in silence.
"""
import os
import signal
import zlib

import pytest

import helpers
import pythons

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.skipped and os.environ.get("PYLEAK_MUST_RUN") == "1" and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if "may skip:" not in reason:
            report.outcome = "failed"
            report.longrepr = "PYLEAK_MUST_RUN=1, and this was skipped: " + reason


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes five seconds and more for each Python; runs on some of them by default")
    config.addinivalue_line("markers", "alike: what it tests is the same for each Python; runs on some of them by default")
    if not os.path.exists(helpers.PYLEAK):
        pytest.exit("there is no %s: build it, or set PYLEAK_BUILD" % helpers.PYLEAK, returncode=2)
    # Under nohup, pyleak would ignore it as well.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def no_guardian_left():
    """Every pyleak that ended took its guardian with it."""
    before = set(helpers.guardians())
    yield
    helpers.wait_until(lambda: not set(helpers.guardians()) - before, 5, "no guardian is left")


def all_pythons():
    """Oldest first; with PYLEAK_ONE_PYTHON=1 the distribution's only."""
    found = pythons.pythons()
    if os.environ.get("PYLEAK_ONE_PYTHON") == "1":
        return [entry for entry in found if entry.executable.startswith("/usr/bin/")][-1:] or found[-1:]
    return found


def some_pythons(found):
    """Of many: the oldest, the middle one, the distribution's and the newest, and what has no GIL."""
    if len(found) <= 5 or os.environ.get("PYLEAK_EVERY_PYTHON") == "1":
        return found
    few = {0, len(found) // 2, len(found) - 1}
    return [entry for number, entry in enumerate(found)
            if number in few or entry.executable.startswith("/usr/bin/") or pythons.label(entry).endswith("t")]


def one_of_each_version(found, test):
    """Of two Pythons of one version (3.11.2 and 3.11.7) each has half of the tests."""
    if os.environ.get("PYLEAK_EVERY_PYTHON") == "1":
        return found
    versions = {}
    for entry in found:
        versions.setdefault((entry.version[:2], entry.free_threaded), []).append(entry)
    return [entries[zlib.crc32(test.encode()) % len(entries)] for entries in versions.values()]


def pytest_generate_tests(metafunc):
    """`python` is a Python of each version found, but where a test chooses its own, or takes long: those have some. All
    that are found with PYLEAK_EVERY_PYTHON=1 (tools/check --matrix)."""
    chosen = any("python" in mark.args[0].split(",") for mark in metafunc.definition.iter_markers("parametrize"))
    if "python" in metafunc.fixturenames and not chosen:
        found = one_of_each_version(all_pythons(), metafunc.function.__name__)
        if any(mark.name in ("long", "alike") for mark in metafunc.definition.iter_markers()):
            found = some_pythons(found)
        metafunc.parametrize("python", [entry.executable for entry in found], ids=[pythons.label(entry) for entry in found])
    if "edge_python" in metafunc.fixturenames:
        # The oldest and the newest, where what lies in between says nothing new.
        found = all_pythons()
        found = found[:1] + found[1:][-1:]
        metafunc.parametrize("edge_python", [entry.executable for entry in found], ids=[pythons.label(entry) for entry in found])


@pytest.fixture(params=helpers.ENGINES)
def engine(request):
    """Modules whose tests run with each engine say so by usefixtures."""
    helpers.engine = request.param
    return request.param


@pytest.fixture(scope="session")
def one_python():
    """Where one Python is enough: the distribution's own, which is the hardest (stripped, static, LTO)."""
    return "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else all_pythons()[-1].executable


@pytest.fixture
def host(one_python):
    """Starts host.py, and at the end makes sure that it is still right."""
    started = []

    def start(*arguments, python=one_python, **keywords):
        # A round is a thousand stops of the breakpoint engine, which takes an emulated machine as long as tests wait.
        if helpers.PATIENCE > 1 and "--nested" not in arguments:
            arguments = ("--light",) + tuple(one for one in arguments if one != "--light")
        victim = helpers.Victim(python, "host.py", *arguments, **keywords)
        started.append(victim)
        return victim

    yield start
    for victim in started:
        victim.end()
