# SPDX-License-Identifier: MIT
"""`pyleak why`: the right line, the right variable, the right words, in ten lines; and the services of doc/tutorial.md."""
import re
import signal
import subprocess

import pytest

from cgroups import cgroup  # noqa: F401, a fixture
from conftest import all_pythons
from helpers import PATIENCE, ROOT, Pyleak, Victim, probe_maps, pyleak, skip_here, wait_hooked
from services import line_of, running

INTERVAL = "%gms" % (400 * PATIENCE)


def edges():
    """The oldest Python and the newest."""
    found = all_pythons()
    return sorted({found[0].executable, found[-1].executable})


def ask(pid, *arguments):
    result = pyleak("why", pid, "-i", INTERVAL, *arguments, seconds=120)
    assert result.status == 0, result
    assert result.stderr == "", result
    assert not probe_maps(pid), "a probe was left"
    lines = result.stdout.splitlines()
    assert "json" in arguments or len(lines) <= 10, result
    # What is longer has a name that is: of a file, or of a variable.
    assert "json" in arguments or all(len(line) <= 100 or "/" in line or "held by" in line for line in lines), result
    return result


# What each service is asked about: which line leaks, and which variable keeps it.
SERVICES = {
    "importer": ("rows = [line", r"__main__\.IMPORTS"),
    "audit": ("log.addHandler(", r"logging\.Logger\.manager\.loggerDict\['audit'\]\.handlers"),
    "chat": ("session = Session(", r"__main__\.bus\.listeners"),
    "reports": ("report = Report(", r"reports\.Report\.total lru_cache"),
    "samples": ("return pandas.DataFrame(", r"__main__\.SAMPLES"),
    "thumbnails": ("picture = Picture(", r"weakref\.finalize\._registry"),
    "tenants": ("text = [", r"__main__\.open_files"),
}


@pytest.mark.parametrize("service", SERVICES)
def test_services(one_python, service):
    """Line and variable, of what is in the tutorial."""
    text, variable = SERVICES[service]
    children = ["--children"] if service == "reports" else []
    with running(service, one_python) as process:
        document = ask(process.pid, "--format", "json", *children).json()
    assert document["kind"] == "why" and document["verdict"] == "leak", document
    assert document["row"]["filename"].endswith(service + ".py") and document["row"]["lineno"] == line_of(service, text), document
    assert document["held_by"]["kind"] == "variable" and re.search(variable, document["held_by"]["path"]), document["held_by"]
    assert document["size_per_hour"] > 1 << 20 and document["steady_rows"] >= 1
    assert document["report"]["kind"] == "diff" and document["report"]["group_by"] == "caller"


def test_the_words_of_a_leak(one_python):
    with running("audit", one_python) as process:
        text = ask(process.pid).stdout
    assert re.match(r"process %d leaks [\d.]+ MiB/(h|min): steady growth in \d windows of " % process.pid, text), text
    assert re.search(r"^  memory    RSS [\d.]+ MiB, \+[\d.]+ [KM]iB in ", text, re.M), text
    assert re.search(r"^  line      \S+/audit.py:%d \(\S*do_POST\)" % line_of("audit", "log.addHandler("), text, re.M), text
    assert "\n                log.addHandler(logging.StreamHandler(sys.stdout))\n" in text, text
    assert re.search(r"^  cause     a handler is added to a logger again and again", text, re.M), text
    assert re.search(r"^  do        add handlers once, where the program starts$", text, re.M), text
    assert "pyleak diff %d -c 8 --holders" % process.pid in text and "pyleak holders %d -i 10s" % process.pid in text, text


def test_a_service_that_keeps_nothing(one_python):
    # Python 3.11 has a cache of some 270 strings that one of its modules fills.
    with running("healthy", one_python, warm=400) as process:
        text = ask(process.pid).stdout
    assert re.match(r"process %d (does not|may) leak" % process.pid, text), text
    assert "held by" not in text and "pyleak why %d -d 10m" % process.pid in text, text


def test_a_cache_that_is_full(one_python):
    """The state of most services that have run for days: its blocks are new, and as many old ones go."""
    with running("cached", one_python, warm=400) as process:
        document = ask(process.pid, "--format", "json").json()
    # In windows as short as these the cache is not gone round yet: then it is "perhaps".
    assert document["verdict"] in ("cache", "nothing", "perhaps") and document["held_by"] is None, document
    assert document["full_in_s"] is None, document


def test_a_parent_whose_children_work(one_python):
    """It says so, and how to watch them."""
    with running("reports", one_python) as process:
        text = ask(process.pid).stdout
    assert "did next to nothing" in text.splitlines()[0] or "does not leak" in text.splitlines()[0], text
    assert "watch the 2 Python processes that it started as well: pyleak why %d --children" % process.pid in text, text


def test_when_the_memory_is_full(one_python, tmp_path, cgroup):  # noqa: F811
    """At the rate of all that grows, in what is left of its cgroup."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    with Victim(one_python, script, "large", preexec_fn=cgroup.enter) as victim:
        cgroup.leave(300 << 20)
        document = ask(victim.pid, "--format", "json").json()
    headroom = document["report"]["headroom"]
    full = headroom["left"] / max(document["size_per_hour"], document["rss_per_hour"]) * 3600
    assert document["verdict"] == "leak" and full < 100 * document["report"]["window_s"], document
    assert document["full_in_s"] == pytest.approx(full, rel=0.01, abs=1), (document["full_in_s"], headroom)


PROGRAM = """
import functools, sys, time
KEPT = {}
class Report:
    @functools.lru_cache(maxsize=None)
    def total(self, number):
        return [number] * 50
def by_id(number):
    KEPT[number] = "request %d" % number * 10
def method(number):
    Report().total(number)
def large(number):
    KEPT[number] = bytes(20000)
def arrays(number):
    KEPT[number] = numpy.zeros(500)
if sys.argv[1] == "arrays":
    import numpy
work = globals()[sys.argv[1]]
print("ready", flush=True)
for number in range(10 ** 9):
    work(number)
    time.sleep(0.005)
"""
LEAKS = {
    "by_id": (9, "__main__.KEPT"),
    "method": (7, "__main__.Report.total lru_cache"),
    "arrays": (15, "__main__.KEPT"),
}


@pytest.mark.parametrize("leak,python", [(leak, python) for leak in ("by_id", "method") for python in edges()] +
                         [("arrays", "/usr/bin/python3")])
def test_leaks(leak, python, tmp_path):
    line, variable = LEAKS[leak]
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    if leak == "arrays" and lacks(python, "numpy"):
        skip_here("numpy")
    with Victim(python, script, leak) as victim:
        document = ask(victim.pid, "--format", "json").json()
        assert victim.alive()
    assert document["verdict"] == "leak", document
    assert document["row"]["lineno"] == line and document["row"]["filename"] == str(script), document["row"]
    assert document["held_by"]["path"] == variable, document["held_by"]
    if leak == "method":
        assert document["known_cause"] == "lru-cache-on-a-method", document["known_cause"]
    if leak == "arrays":
        assert document["row"]["domain"] == "native", document["row"]


def lacks(python, module):
    return subprocess.run([python, "-c", "import " + module], stderr=subprocess.DEVNULL, check=False).returncode != 0


# -- how it ends ------------------------------------------------------------------------------------

def test_ended_early(one_python):
    """What is known so far is said, and no probe is left."""
    with running("healthy", one_python) as process:
        with Pyleak("why", process.pid, "-i", "20s") as asking:
            wait_hooked(process.pid, asking)
            result = asking.finish(signal.SIGINT)
        assert result.status == 0 and "0 windows are too few to tell whether it leaks" in result.stdout, result
        assert not probe_maps(process.pid)


def test_the_process_ends(one_python):
    with running("healthy", one_python) as process:
        with Pyleak("why", process.pid, "-i", "20s") as asking:
            wait_hooked(process.pid, asking)
            process.kill()
            result = asking.finish()
    assert result.status == 1 and "ended while it was watched" in result.stderr, result
    assert "too few to tell" in result.stdout and "the process has ended" in result.stdout, result


def test_a_stop_that_would_be_too_long(one_python):
    """Then it is not said who holds it, and all else is."""
    with running("importer", one_python) as process:
        text = ask(process.pid, "--max-stop", "1ms").stdout
    assert re.search(r"^  line      \S+/importer.py:", text, re.M), text
    assert re.search(r"^  held by   process %d would have to be stopped for some " % process.pid, text, re.M), text


# -- doc/tutorial.md --------------------------------------------------------------------------------

def test_the_tutorial():
    """It shows the services as they are, and each screen names the line and the variable."""
    checked = subprocess.run([str(ROOT / "tools" / "tutorial"), "--check"], stderr=subprocess.PIPE, universal_newlines=True, check=False)
    assert checked.returncode == 0, checked.stderr
    page = (ROOT / "doc" / "tutorial.md").read_text()
    for service, (text, variable) in SERVICES.items():
        screen, = re.findall(r"<!-- run: %s: pyleak why PID.*? -->\n```\n(.*?)```" % service, page, re.S)
        assert len(screen.splitlines()) <= 11, screen
        assert "/%s.py:%d (" % (service, line_of(service, text)) in screen, screen
        assert re.search(r"^  held by   " + variable, screen, re.M), screen
        assert len(re.findall("<!-- run: %s:" % service, page)) <= 2
