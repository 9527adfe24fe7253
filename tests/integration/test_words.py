# SPDX-License-Identifier: MIT
"""Each kind of word through which an extension may reach the allocator: recorded, right with pointers that were kept, and
harmless with pyleak killed at any step."""
import json
import os
import re
import signal
import subprocess

import pytest

import pythons
from helpers import (PYLEAK, VICTIMS, Trace, Victim, landing, leftovers, library, line_of, native_words, needs_library, pyleak)

SCRIPT = VICTIMS / "words.py"
WAYS = ["plt", "loaded", "data", "stored", "kept"]
LINES = {way: line_of(SCRIPT, "# line: %s" % way) for way in WAYS + ["hold"]}

# The distribution's is not position-independent: its PLT stands for the functions in the words of others, and no landing
# page is needed for them. One of each way to tell which thread runs.
FEW = [entry for entry in pythons.pythons() if not entry.root and
       (entry.executable.startswith("/usr/bin/") or entry.version[:2] in ((3, 6), (3, 12)) or entry.free_threaded)]
few_pythons = pytest.mark.parametrize("python", [entry.executable for entry in FEW], ids=map(pythons.label, FEW))


def words(python):
    if pythons.of(python).root:
        needs_library(python, "words")
    return Victim(python, "words.py", library("words"))


def keep(pid):
    result = pyleak("attach", pid, "--keep")
    assert result.status == 0 and not result.stderr, result


def detach(victim):
    result = pyleak("detach", victim.pid)
    assert result.status == 0, result
    # The victim has no copies in its data but those that led to the functions before.
    assert not leftovers(victim.pid)


def figures(pid):
    """{way: (size, count)} of what is live, and the whole document."""
    result = pyleak("attach", pid, "--duration", "20ms", "--format", "json", "--limit", 0)
    assert result.status == 0, result
    document = result.json()
    found = {row["lineno"]: (row["size"], row["count"]) for row in document["stats"]
             if row["domain"] == "native" and os.path.basename(row["filename"]) == "words.py"}
    return {way: found.get(line, (0, 0)) for way, line in LINES.items()}, document


def assert_seen(victim, ways=("plt", "loaded", "data", "stored"), count=30):
    """Taken and dropped, way by way, in the ways themselves and across."""
    before = figures(victim.pid)[1]["freed_before"]
    for way in ways:
        victim.ask("take %s %d" % (way, count))
    now, document = figures(victim.pid)
    assert {way: now[way] for way in ways} == {way: (1000 * count, count) for way in ways}, now
    assert document["freed_before"] == before, document["freed_before"]
    for way in ways:
        victim.ask("drop %s" % way)
    now, document = figures(victim.pid)
    assert all(now[way] == (0, 0) for way in ways), now
    assert document["freed_before"] == before, document["freed_before"]
    assert document["lost"] == {"events": 0, "sites": 0}


@pytest.mark.alike
def test_each_kind_of_word(python):
    with words(python) as victim:
        before = Trace(victim.pid)
        for _ in range(2):
            assert victim.ask("differ") == 0
            keep(victim.pid)
            assert victim.ask("differ") == 0
            assert_seen(victim)
            for way in WAYS[:4]:
                assert victim.ask("fork %s" % way) == 42
            detach(victim)
            assert victim.ask("differ") == 0
            assert not before.differences(victim.pid)


@pytest.mark.alike
def test_what_is_hooked_is_listed(python):
    """By doctor, before and while it records, and by -v: each object, by which kind of word."""
    def listed(answer):
        return next(library for library in json.loads(answer)["libraries"] if library["path"].endswith("/victim_words.so"))

    with words(python) as victim:
        before = listed(pyleak("doctor", victim.pid, "--format", "json").stdout)
        assert before["not_recorded"] == 0 and before["why"] is None
        # calloc, realloc, and what the threads' are: one of each is called only.
        assert before["jumped"] >= 2
        if before["covered"] == 0:
            assert (before["loaded"], before["pointers"]) == (2, 4), before
        result = pyleak("attach", victim.pid, "--keep", "--verbose")
        line = next(line for line in result.stderr.splitlines() if "/victim_words.so: " in line)
        assert "%d loaded, %d pointers" % (before["loaded"], before["pointers"]) in line, line
        assert listed(pyleak("doctor", victim.pid, "--format", "json").stdout) == before
        text = pyleak("doctor", victim.pid).stdout
        assert re.search(r"%d +%d +%d +\S+/victim_words.so$" % (before["jumped"], before["loaded"], before["pointers"]), text,
                         re.MULTILINE), text
        assert "not recorded, the dynamic linker's own" in text
        detach(victim)


@few_pythons
def test_what_is_said_of_the_page(python):
    """ps, doctor and detach -v: there is none before, and one after, if words are loaded."""
    with words(python) as victim:
        def said():
            documents = map(json.loads, pyleak("ps", "--format", "json").stdout.splitlines())
            return (next(document["landing"] for document in documents if document["pid"] == victim.pid),
                    "landing page" in pyleak("doctor", victim.pid).stdout,
                    "landing page stays" in pyleak("detach", "--verbose", victim.pid).stderr)
        assert said() == (False, False, False)
        keep(victim.pid)
        detach(victim)
        there = landing(victim.pid) is not None
        assert said() == (there, there, there)
        row = next(line for line in pyleak("ps").stdout.splitlines() if line.split()[0] == str(victim.pid))
        assert re.search(r" yes +(\w+) ", row).group(1) == ("landing" if there else "no"), row


@pytest.mark.alike
def test_kept_on_the_heap(python):
    """From a recording on: used in it, after it, in the next one, and from before it."""
    with words(python) as victim:
        victim.ask("keep")
        keep(victim.pid)
        victim.ask("take kept 10") # a copy of the function's own address: not seen, and harmless
        victim.ask("drop kept")
        victim.ask("keep")
        assert_seen(victim, WAYS)
        victim.ask("take kept 20")
        detach(victim)
        victim.ask("take kept 10")
        victim.ask("drop kept")
        assert victim.ask("fork kept") == 42
        for _ in range(2):
            keep(victim.pid)
            assert_seen(victim, WAYS)
            assert victim.ask("fork kept") == 42
            detach(victim)
            victim.ask("take kept 10")
            victim.ask("drop kept")


@few_pythons
def test_freed_where_nobody_saw_it(python):
    """Through a pointer that was kept before the recording began: the marks of the C library say that they are free."""
    with words(python) as victim:
        victim.ask("keep")
        keep(victim.pid)
        assert figures(victim.pid)[1]["freed_unseen"] == {"size": 0, "count": 0}
        for way, size, count in ("loaded", 200000, 40), ("data", 1000000, 10), ("stored", 1000, 3000), ("plt", 70000, 20):
            victim.ask("take %s %d %d" % (way, count, size))
        victim.ask("take kept 10")
        victim.ask("drop loaded kept")
        victim.ask("drop data kept")
        now, document = figures(victim.pid)
        seen = document["freed_unseen"]["count"] == 0
        assert now["loaded"] == now["data"] == (0, 0), now
        assert now["stored"] == (3000 * 1000, 3000) and now["plt"] == (20 * 70000, 20), now
        assert seen or document["freed_unseen"] == {"size": 18000000, "count": 50}, document["freed_unseen"]
        victim.ask("drop stored kept")
        now, document = figures(victim.pid)
        # Seven are in the thread's cache, and look as if they were in use; and what begins with a page is not looked at.
        assert now["stored"][1] <= 15, now
        assert now["plt"] == (20 * 70000, 20), now
        # The addresses are given out again: the recorder finds it by itself, and nothing counts twice.
        for _ in range(3):
            victim.ask("take loaded 40 200000")
            victim.ask("take stored 3000")
            now, document = figures(victim.pid)
            assert now["loaded"] == (8000000, 40) and 2985 <= now["stored"][1] <= 3015, now
            victim.ask("drop loaded")
            victim.ask("drop stored")
            now, document = figures(victim.pid)
            assert now["loaded"] == (0, 0) and now["stored"][1] <= 15, now
        assert now["plt"] == (20 * 70000, 20), now
        detach(victim)


@pytest.mark.alike
def test_kept_in_a_register_that_was_pushed(python):
    """The thread comes back to it after the detach, in the next recording, and after pyleak was killed."""
    with words(python) as victim:
        keep(victim.pid)
        assert victim.ask("hold 10") == 0
        assert figures(victim.pid)[0]["hold"] == (30080, 11) # and the array of them
        detach(victim)
        assert victim.ask("release") == 0

        keep(victim.pid)
        assert victim.ask("hold 10") == 0
        detach(victim)
        keep(victim.pid)
        assert victim.ask("release") == 0
        detach(victim)

        keep(victim.pid)
        assert victim.ask("hold 10") == 0
        assert victim.ask("release") == 0
        assert figures(victim.pid)[0]["hold"] == (0, 0)
        assert victim.ask("hold 10") == 0
        environment = dict(os.environ, PYLEAK_FAULT="20", PYLEAK_GUARDIAN="off")
        subprocess.run([PYLEAK, "detach", str(victim.pid)], env=environment, capture_output=True, check=False, timeout=60)
        assert victim.ask("release") == 0
        detach(victim)


def killed(victim, step, *command):
    """Runs it until it dies at this step; False: it has ended before that."""
    environment = dict(os.environ, PYLEAK_FAULT=str(step), PYLEAK_GUARDIAN="off")
    result = subprocess.run([PYLEAK] + [str(a) for a in command], env=environment, capture_output=True, check=False, timeout=60)
    assert result.returncode in (0, -signal.SIGKILL), (step, result)
    return result.returncode != 0


def use(victim):
    for way in WAYS:
        victim.ask("take %s 5" % way)
    for way in WAYS:
        victim.ask("drop %s" % way)
    assert victim.ask("differ") in range(8) # an answer is enough: killed in between, they may


@few_pythons
def test_killed_at_any_step_of_making_the_page(python):
    """Of planting in a process that has no landing page yet. What comes next finds what is there, and uses it."""
    # All of the first sixty on one of them.
    step, stride = 1, 1 if python == FEW[-1].executable or os.environ.get("PYLEAK_EVERY_PYTHON") == "1" else 3
    while True:
        with words(python) as victim:
            victim.ask("keep")
            if not killed(victim, step, "attach", victim.pid, "--keep"):
                break
            victim.ask("keep")
            assert victim.ask("hold 5") == 0
            use(victim)
            if step % 2:
                detach(victim)
                assert victim.ask("release") == 0
                use(victim)
                keep(victim.pid)
            else:
                keep(victim.pid)
                assert victim.ask("release") == 0
            victim.ask("keep")
            assert_seen(victim, WAYS)
            assert victim.ask("differ") == 0
            detach(victim)
            use(victim)
        step += stride if step < 60 else 7
    assert step > 30


@few_pythons
def test_killed_at_any_step_of_removing(python):
    with words(python) as victim:
        victim.ask("keep")
        step, dead = 1, True
        while dead:
            keep(victim.pid)
            victim.ask("keep")
            assert victim.ask("hold 5") == 0
            dead = killed(victim, step, "detach", victim.pid)
            use(victim)
            assert victim.ask("release") == 0
            detach(victim)
            assert victim.ask("differ") == 0
            use(victim)
            step += 3
        assert step > 20


@few_pythons
def test_the_page_is_used_again(python):
    """No second one, no further row, whatever comes and goes; a page that another version has left is left alone."""
    with words(python) as victim:
        keep(victim.pid)
        first = landing(victim.pid)
        detach(victim)
        for _ in range(5):
            keep(victim.pid)
            detach(victim)
        again = landing(victim.pid)
        assert again == {stub: (function, function) for stub, (function, _) in first.items()}
        if not again:
            return
        base = min(again) & ~0xfff
        with open("/proc/%d/mem" % victim.pid, "r+b", buffering=0) as memory:
            memory.seek(base + 8)
            memory.write(b"\x63") # a version that is not known
        keep(victim.pid)
        assert_seen(victim)
        with open("/proc/%d/maps" % victim.pid) as file:
            assert "%x-%x r-xp" % (base + 0x10000, base + 0x11000) in file.read()
        assert pyleak("detach", victim.pid).status == 0
        victim.ask("take loaded 5")
        victim.ask("drop loaded")


@few_pythons
def test_a_page_that_lies(python):
    """Nothing of it is believed: rows for what is no allocator lead nowhere else, stubs that were changed are not used."""
    with words(python) as victim:
        keep(victim.pid)
        detach(victim)
        there = landing(victim.pid)
        if not there:
            return
        base = min(there) & ~0xfff
        with open("/proc/%d/mem" % victim.pid, "r+b", buffering=0) as memory:
            for offset, bytes_ in ((64 + 16, b"\x01\x02\x03\x04\x05\x06\x07\x08"), # the function of a row
                                   (64 + 8, b"\xff\xff\xff\xff"),                     # the kind of another
                                   (0x1000, b"\0\0\0\0\0\0\0\x41")):                # where the first leads
                memory.seek(base + offset)
                memory.write(bytes_)
            keep(victim.pid)
            assert_seen(victim)
            result = pyleak("detach", victim.pid)
            assert result.status == 0, result
            memory.seek(base + 0x800)
            memory.write(b"\xcc")
        keep(victim.pid)
        assert_seen(victim)
        with open("/proc/%d/maps" % victim.pid) as file:
            assert "%x-%x r-xp" % (base + 0x10000, base + 0x11000) in file.read()
        assert pyleak("detach", victim.pid).status == 0
        assert not native_words(victim.pid)
