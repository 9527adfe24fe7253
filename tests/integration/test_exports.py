# SPDX-License-Identifier: MIT
"""Each format is opened by what it is made for, and has the figures that --format json has."""
import collections
import csv
import html.parser
import io
import json
import os
import re
import shutil
import subprocess

import pytest

import helpers
from helpers import VICTIMS, Pyleak, Victim, pyleak, wait_hooked

SCHEMA = helpers.ROOT / "tests" / "integration" / "data" / "speedscope.schema.json"


@pytest.fixture(scope="module")
def tape(one_python, tmp_path_factory):
    """A recording, so that every format is about the same."""
    path = tmp_path_factory.mktemp("exports") / "leak.pyleak"
    with Victim(one_python, "leak.py") as victim:
        with Pyleak("attach", victim.pid, "-i", "300ms", "-d", "2s", "-o", path) as running:
            wait_hooked(victim.pid, running)
            for _ in range(3):
                victim.tell("leak 400")
                assert victim.line() == "leaked"
            assert running.finish().status == 0
    return path


def report(*arguments):
    result = pyleak("report", *arguments)
    assert (result.status, result.stderr) == (0, ""), result
    return result.stdout


# What a report of the recording is: all that was live at its end, and how it differs.
KINDS = pytest.mark.parametrize("kind", [[], ["--from", "300ms"]], ids=["top", "diff"])


def as_json(tape, kind, *arguments):
    return json.loads(report(tape, *kind, "--format", "json", "-n", 0, *arguments))


@KINDS
def test_csv(tape, kind):
    document = as_json(tape, kind)
    text = report(tape, *kind, "--format", "csv")
    assert text.count("\r\n") == text.count("\n") == len(document["stats"]) + 1
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    for row, wanted in zip(rows, document["stats"]):
        assert (row["domain"], row["filename"], row["function"]) == tuple(
            wanted[key] for key in ("domain", "filename", "function"))
        for key in ("lineno", "size", "size_diff", "count", "count_diff", "average"):
            assert int(row[key]) == wanted[key]
        for key in ("allocated", "freed"):
            assert int(row[key + "_size"]) == wanted[key]["size"]
            assert int(row[key + "_count"]) == wanted[key]["count"]


@KINDS
@pytest.mark.parametrize("sort", ["size", "count", "churn"])
def test_folded(tape, kind, sort):
    document = as_json(tape, kind)
    lines = report(tape, *kind, "--format", "folded", "--sort", sort).splitlines()
    two = kind and sort != "churn"
    sums = [0, 0]
    for line in lines:
        stack, *weights = re.fullmatch(r"(.+?) (\d+)" + (r" (\d+)" if two else "()"), line).groups()
        assert all(stack.split(";")), line
        sums = [total + int(weight or 0) for total, weight in zip(sums, weights)]
    if sort == "churn":
        assert sums[0] == sum(row["allocated"]["size"] for row in document["stats"])
    elif two:
        assert sums == [document["total"][sort] - document["total"][sort + "_diff"], document["total"][sort]]
    else:
        assert sums[0] == document["total"][sort]


def pprof(path, *arguments):
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if not go:
        helpers.skip_here("go")
    environment = {**os.environ, "PPROF_TMPDIR": str(path.parent), "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"}
    return subprocess.run([go, "tool", "pprof", *arguments, path], env=environment, capture_output=True, text=True,
                          check=True).stdout


def pprof_rows(path, index, granularity):
    """{name: flat} of -top, in bytes or blocks."""
    text = pprof(path, "-top", "-" + granularity, "-sample_index=" + index, "-unit=B", "-nodecount=100000",
                 "-nodefraction=0", "-edgefraction=0")
    assert "Type: " + index in text
    rows = collections.Counter()
    for line in text.split("cum%\n")[1].splitlines():
        flat, _, _, _, _, name = line.split(None, 5)
        rows[name.replace(" (inline)", "")] += int(flat.removesuffix("B"))
    return +rows - (-rows)


@KINDS
def test_go_tool_pprof(tape, kind, tmp_path):
    """By line and by function, live and allocated, bytes and blocks."""
    path = tmp_path / "leak.pb.gz"
    report(tape, *kind, "-o", path)
    document = as_json(tape, kind)
    difference = "_diff" if kind else ""
    figures = {"inuse_space": lambda row: row["size" + difference], "inuse_objects": lambda row: row["count" + difference],
               "alloc_space": lambda row: row["allocated"]["size"],
               "alloc_objects": lambda row: row["allocated"]["count"]}
    for index, figure in figures.items():
        lines, functions = collections.Counter(), collections.Counter()
        for row in document["stats"]:
            # As pprof prints a place: a line that is 0 not at all.
            lines[" %s:%d" % (row["filename"], row["lineno"]) if row["lineno"] else " " + row["filename"]] += figure(row)
        by_function = as_json(tape, kind, "-g", "function")
        for row in by_function["stats"]:
            functions[row["function"]] += figure(row)
        got = collections.Counter()
        for name, value in pprof_rows(path, index, "lines").items():
            places = [place for place in lines if name.endswith(place)]
            got[max(places, key=len) if places else name] += value
        assert +got == +lines, index
        assert +pprof_rows(path, index, "functions") == +functions, index


def test_pprof_difference_is_one(tape, tmp_path):
    """What pprof makes of two files is what is in the one that pyleak makes of their difference."""
    for name, arguments in (("now", []), ("before", ["--to", "300ms"]), ("difference", ["--from", "300ms"])):
        report(tape, *arguments, "-o", tmp_path / (name + ".pb.gz"))
    ours = pprof(tmp_path / "difference.pb.gz", "-top", "-nodecount=100000", "-nodefraction=0")
    theirs = pprof(tmp_path / "now.pb.gz", "-top", "-nodecount=100000", "-nodefraction=0",
                   "-diff_base=%s" % (tmp_path / "before.pb.gz"))
    assert sorted(ours.split("Showing nodes")[1].splitlines()) == sorted(theirs.split("Showing nodes")[1].splitlines())


@KINDS
def test_speedscope(tape, kind):
    jsonschema = pytest.importorskip("jsonschema", reason="may skip: jsonschema is not installed")
    document = as_json(tape, kind)
    exported = json.loads(report(tape, *kind, "--format", "speedscope"))
    jsonschema.validate(exported, json.loads(SCHEMA.read_text()))
    sums = {profile["name"]: sum(profile["weights"]) for profile in exported["profiles"]}
    assert sums["live bytes"] == document["total"]["size"]
    if kind:
        assert sums["grown: live bytes"] - sums["shrunk: live bytes"] == document["total"]["size_diff"]
    frames = exported["shared"]["frames"]
    leaves = collections.Counter()
    profile = exported["profiles"][-1]
    for stack, weight in zip(profile["samples"], profile["weights"]):
        frame = frames[stack[-1]]
        leaves[(frame["file"], frame.get("line", 0))] += weight
    assert leaves == +collections.Counter({(row["filename"], row["lineno"]): row["size"] for row in document["stats"]})


@pytest.mark.parametrize("format", ["pprof", "recording"])
def test_a_terminal_is_spared(one_python, format):
    if not shutil.which("script"):
        helpers.skip_here("script")
    with Victim(one_python, "leak.py") as victim:
        command = "%s diff %d --format %s" % (helpers.PYLEAK, victim.pid, format)
        answer = subprocess.run(["script", "-qec", command, "/dev/null"], capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert "--format %s is not for a terminal: give --output FILE" % format in answer.stdout


def test_the_name_says_the_format(one_python, tmp_path):
    """And diff makes one document of all its windows."""
    with Victim(one_python, "leak.py") as victim:
        result = pyleak("diff", victim.pid, "-i", "200ms", "-c", 2, "-o", tmp_path / "growth.speedscope.json")
    assert result.status == 0, result
    assert json.loads((tmp_path / "growth.speedscope.json").read_text())["exporter"].startswith("pyleak")


def open_page(address, tmp_path):
    """What the page becomes in a browser, which has nothing to complain about."""
    if not shutil.which("chromium"):
        helpers.skip_here("chromium")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
               "--disable-background-networking", "--disable-component-update", "--disable-sync",
               "--user-data-dir=%s" % (tmp_path / "profile"), "--enable-logging=stderr", "--virtual-time-budget=5000",
               "--dump-dom", address if isinstance(address, str) else address.as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120 * helpers.PATIENCE, check=True)
    assert "CONSOLE" not in result.stderr, result.stderr
    assert 'data-ready="yes"' in result.stdout, result.stderr
    return result.stdout


class Page(html.parser.HTMLParser):
    """Text of the elements of a page, by id or by tag."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.tags = [], collections.defaultdict(str), collections.Counter()
        self.cells = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        attributes = dict(attrs)
        for name in ("src", "href", "action"):
            assert name not in attributes, "a reference to the outside: %s" % attrs
        if tag not in ("meta", "link", "br", "img", "input"):
            self.open.append((tag, attributes.get("id")))
        if tag == "tr" and ("table", "rows") in self.open:
            self.cells.append("")

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        for _, name in self.open:
            if name:
                self.texts[name] += data
        if ("table", "rows") in self.open:
            self.cells[-1] += data


@KINDS
def test_html(tape, kind, tmp_path):
    document = as_json(tape, kind)
    path = tmp_path / "leak.html"
    report(tape, *kind, "-o", path)
    assert not re.search(r"(src|href)=|url\(|@import|https?://(?!www\.w3\.org/2000/svg)", path.read_text())
    page = Page(open_page(path, tmp_path))
    assert page.texts["title"] == "Process %d: %s" % (document["pid"], "what grew" if kind else "what is live")
    assert page.texts["row-count"] == "%d rows" % len(document["stats"])
    # The heading and a row each, the first one first.
    assert len(page.cells) == 1 + len(document["stats"])
    top = document["stats"][0]
    assert "%s:%d" % (top["filename"], top["lineno"]) in page.cells[1]
    assert "{:,}".format(top["count"]) in page.cells[1]
    assert "kept[i] = BASE + i  # leaks here" in page.texts["rows"]
    assert page.tags["svg"] > 1 and "all that is tracked" in page.texts["legend"]
    assert "leak " in page.texts["flame"]
    grown = document["over_all"]
    wanted = "Over all %d windows " % grown["windows"]
    if grown["stats"]:
        wanted += r"\([\d.]+ s\) %(filename)s:%(lineno)d grew most, by [\d.]+ [KM]?i?B( \(.*\))?(; .* by .*)?\." % grown["stats"][0]
    else:
        wanted += r"no row grew\."
    assert re.fullmatch(wanted, page.texts["over-all"]), (wanted, page.texts["over-all"])
    # What the text says of the growth beside its rows, the page says in the same words.
    said = [line for line in report(tape, *kind).splitlines() if line.startswith(("RSS ", "older blocks freed", "No full"))]
    assert "".join(said) == page.texts["where"], (said, page.texts["where"])


def test_html_by_caller(one_python, tmp_path):
    """Who called a library's line stands under it, and by caller where most was allocated."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "library.py").write_text("kept = []\ndef keep():\n    for i in range(1000):\n        kept.append(bytes(400))  # inner\n")
    (tmp_path / "work.py").write_text("import sys\nsys.path.append(%r)\nimport library\nprint('ready', flush=True)\ninput()\n"
                                      "library.keep()  # outer\nprint('done', flush=True)\ninput()\n" % str(folder))
    tape = tmp_path / "work.pyleak"
    with Victim(one_python, None, str(tmp_path / "work.py")) as victim:
        with Pyleak("attach", victim.pid, "-o", tape) as running:
            wait_hooked(victim.pid, running)
            victim.tell("go")
            assert victim.line() == "done"
            assert running.finish(2).status == 0
    for group, line, words in (("line", "library.py:4", "called from <module> (%s/work.py:6)library.keep()  # outer" % tmp_path),
                               ("caller", "work.py:6", "allocated in keep (%s/library.py:4)kept.append(bytes(400))  # inner" % folder)):
        path = tmp_path / ("%s.html" % group)
        report(tape, "-g", group, "-o", path)
        page = Page(open_page(path, tmp_path))
        assert line in page.cells[1] and words in page.cells[1], page.cells[1]


def test_attach_has_what_was_between(one_python, tmp_path):
    """The page of an attach has its growth, window by window, as that of a recording."""
    path = tmp_path / "leak.html"
    with Victim(one_python, "leak.py") as victim:
        result = pyleak("attach", victim.pid, "-i", "200ms", "-d", "1s", "-o", path)
    assert result.status == 0, result
    data = json.loads(re.search('id="data">(.*?)</script>', path.read_text(), re.S)[1])
    assert 4 <= len(data["series"]["at_s"]) <= 7
    assert all(len(data["series"][name]) == len(data["series"]["at_s"]) for name in ("rss", "size"))
    # The axis has round times: 0 s, 0.2 s, 0.4 s, ...
    marks = re.findall(r'<text[^>]*>([\d.]+) s</text>', open_page(path, tmp_path))
    assert marks[:3] in (["0", "0.2", "0.4"], ["0", "0.5", "1"]), marks


def test_html_of_hostile_names(one_python, tmp_path):
    """They are text, whatever they say."""
    tape, path = tmp_path / "names.pyleak", tmp_path / "names.html"
    with Victim(one_python, "hostile_names.py") as victim:
        with Pyleak("attach", victim.pid, "-i", "200ms", "-d", "1500ms", "-o", tape) as running:
            wait_hooked(victim.pid, running)
            for _ in range(2):
                victim.tell("leak")
                assert victim.line() == "leaked"
            assert running.finish().status == 0
    report(tape, "-o", path)
    text = open_page(path, tmp_path)
    page = Page(text)
    assert "owned" not in re.search("<title>(.*?)</title>", text)[1]
    assert page.tags["img"] == 0 and page.tags["script"] == 2
    for name in ("</script><script>document.title='owned'</script>", "<!--<script>", "]]>&lt;", "\\u202e", "constructor"):
        assert name in page.texts["rows"], name
    # And nothing of it is a formula, or a line of its own, in the other formats.
    rows = list(csv.reader(io.StringIO(report(tape, "--format", "csv"), newline=""), strict=True))
    assert all(len(row) == len(rows[0]) and not field.startswith(("=", "+", "@")) for row in rows for field in row)
    assert all(re.fullmatch(r".+ \d+", line) for line in report(tape, "--format", "folded").splitlines())
    json.loads(report(tape, "--format", "speedscope"))
