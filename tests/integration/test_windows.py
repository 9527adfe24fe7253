# SPDX-License-Identifier: MIT
"""Windows have numbers and times, what grew over all of them stands at the end, and who waits is told for how long."""
import json
import re

from helpers import PYLEAK, Pyleak, Victim, VICTIMS, line_of, pyleak, wait_hooked
from terminals import Terminal

INTERVAL = "300ms"
TIME = r"(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d"


def watched(one_python, *arguments):
    with Victim(one_python, "growth.py", "steady") as victim:
        victim.tell("go")
        with Pyleak(*arguments[:1], victim.pid, "--interval", INTERVAL, *arguments[1:]) as running:
            result = running.finish()
    assert result.status == 0, result
    return result.stdout


def test_text(one_python):
    reports = watched(one_python, "diff", "-c", 3, "-n", 2).split("\n\n")
    assert len(reports) == 4, reports
    for number, report in enumerate(reports[:3], 1):
        assert re.match(r"window %d of 3, %s to %s:\n" % (number, TIME, TIME), report), report
    first = reports[3].splitlines()
    assert re.fullmatch(r"over all 3 windows \([\d.]+ m?s\) grew most:", first[0]), first
    # The line that leaks, by the sum of its windows.
    place = "%s:%d" % (VICTIMS / "growth.py", line_of(VICTIMS / "growth.py", "# grows here"))
    assert re.fullmatch(r" +\+[\d.]+ [KM]iB  %s(: .+)?" % re.escape(place), first[1]), first


def test_one_window_needs_no_number(one_python):
    text = watched(one_python, "diff", "-n", 2)
    assert "window 1" not in text and "over all" not in text, text


def test_json(one_python):
    documents = [json.loads(line) for line in watched(one_python, "diff", "-c", 3, "--format", "json").splitlines()]
    assert [(document["window"]["number"], document["window"]["of"]) for document in documents] == [(1, 3), (2, 3), (3, 3)]
    assert documents[0]["window"]["from"] <= documents[0]["window"]["to"] <= documents[2]["window"]["to"]
    assert [("over_all" in document) for document in documents] == [False, False, True]
    top = documents[2]["over_all"]["stats"][0]
    assert top["lineno"] == line_of(VICTIMS / "growth.py", "# grows here")
    # What stands at the end is the sum of the windows.
    sums = sum(row["size_diff"] for document in documents for row in document["stats"]
               if (row["filename"], row["lineno"], row["domain"]) == (top["filename"], top["lineno"], top["domain"]))
    assert top["size_diff"] == sums > 0


def test_recordings(one_python, tmp_path):
    tape = tmp_path / "tape.pyleak"
    watched(one_python, "attach", "-d", 1.5, "-o", tape)
    text = pyleak("report", tape).stdout
    assert re.search(r"\n\nover all \d windows \([\d.]+ m?s\) grew most:\n +\+[\d.]+ [KM]iB  .*growth\.py:\d+(: .+)?\n", text), text
    info = pyleak("report", "--info", tape).stdout
    assert re.match(re.escape(str(tape)) + r": of process \d+, Python 3\.\d+\.\d+\n  recorded:  %s to %s, 1\.\d s\n"
                    r"  snapshots: [5-7], the first after .* ms, then one each [\d.]+ ms\n  RSS: " % (TIME, TIME), info), info
    assert "made with: --engine inline --frames 16 --domain all\n" in info
    document = pyleak("report", "--info", tape, "--format", "json").json()
    assert document["kind"] == "recording" and 5 <= document["snapshots"] <= 7 and 1.4 < document["length_s"] < 3, document
    # From one process to another nothing grew.
    watched(one_python, "attach", "-d", 1, "-o", tmp_path / "other.pyleak")
    text = pyleak("report", tape, tmp_path / "other.pyleak").stdout
    assert "difference of the two recordings" in text and "over all" not in text, text
    result = pyleak("report", tape, "--from", "9h")
    assert result.status == 1 and re.search(r"is 1\.\d s long: --from 9 h 0 min is beyond its end", result.stderr), result
    result = pyleak("report", tape, "--to", "9h")
    assert result.status == 0 and re.fullmatch(r"pyleak: .* is 1\.\d s long: --to 9 h 0 min is beyond its end; this is up to there\n",
                                               result.stderr), result
    assert result.stdout == pyleak("report", tape).stdout
    result = pyleak("report", "--info", tape, "--format", "csv")
    assert result.status == 2 and "--info" in result.stderr, result


def test_who_waits_is_told_for_how_long(one_python, tmp_path):
    with Victim(one_python, "growth.py", "steady") as victim, Terminal(tmp_path, columns=100) as terminal:
        victim.tell("go")
        terminal.command(PYLEAK, "diff", victim.pid, "-i", "2", "-n", "1")
        terminal.wait(lambda screen: re.search(r"^first of two windows: [12] s left; \^C ends it$", screen, re.M))
        terminal.wait(lambda screen: re.search(r"^second of two windows: [12] s left; \^C ends it$", screen, re.M))
        screen = terminal.wait("growth in ")
        assert "left" not in screen, screen
        # Nobody is told who does not look.
        terminal.command("clear;", PYLEAK, "diff", victim.pid, "-i", "500ms", "-q", "-n", "1", "2>/dev/null")
        assert "left" not in terminal.wait("growth in ")
