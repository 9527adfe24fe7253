# SPDX-License-Identifier: MIT
"""Fixtures, and the rule for skips.

A test may skip itself only through helpers.skip_here(), which names what the machine lacks. With
PYLEAK_MUST_RUN=1 (tools/check sets it) a skip for any other reason is a failure, so that nothing
stops being tested in silence.
"""
import os

import pytest

import helpers
from pythons import pythons

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.skipped and os.environ.get("PYLEAK_MUST_RUN") == "1" and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if "may skip:" not in reason:
            report.outcome = "failed"
            report.longrepr = "PYLEAK_MUST_RUN=1, and this was skipped: " + reason


def pytest_configure(config):
    if not os.path.exists(helpers.PYLEAK):
        pytest.exit("there is no %s: build it, or set PYLEAK_BUILD" % helpers.PYLEAK, returncode=2)


@pytest.fixture(scope="session", autouse=True)
def no_guardian_left():
    """Every pyleak that ended took its guardian with it."""
    before = set(helpers.guardians())
    yield
    helpers.wait_until(lambda: not set(helpers.guardians()) - before, 5, "no guardian is left")


def all_pythons():
    """Oldest first; with PYLEAK_ONE_PYTHON=1 the distribution's only."""
    found = pythons()
    if os.environ.get("PYLEAK_ONE_PYTHON") == "1":
        return [entry for entry in found if entry[1].startswith("/usr/bin/")][-1:] or found[-1:]
    return found


def pytest_generate_tests(metafunc):
    """`python` is each Python found."""
    if "python" in metafunc.fixturenames:
        found = all_pythons()
        metafunc.parametrize("python", [path for _, path in found],
                             ids=[".".join(map(str, version[:3])) for version, _ in found])


@pytest.fixture(scope="session")
def one_python():
    """Where one Python is enough: the distribution's own, which is the hardest (stripped, static, LTO)."""
    return "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else all_pythons()[-1][1]


@pytest.fixture
def host(one_python):
    """Starts host.py, and at the end makes sure that it is still right."""
    started = []

    def start(*arguments, python=one_python, **keywords):
        victim = helpers.Victim(python, "host.py", *arguments, **keywords)
        started.append(victim)
        return victim

    yield start
    for victim in started:
        victim.end()
