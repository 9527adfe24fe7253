# SPDX-License-Identifier: MIT
"""The examples of the manual pages, as they stand there, run by a shell: only processes and times are others."""
import json
import os
import re
import socket
import subprocess

import pytest

from helpers import PATIENCE, PYLEAK, ROOT, Victim

MANUAL = [path.read_text() for path in sorted((ROOT / "man").glob("pyleak*.1"))]


def examples():
    """The shell commands of each example."""
    sections = [page.split(".Sh EXAMPLES\n")[1].split("\n.Sh ")[0] for page in MANUAL if ".Sh EXAMPLES\n" in page]
    for block in re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed", "\n".join(sections), re.M | re.S):
        yield [command.replace("\\e", "\\") for command in re.split(r"^\$ ", block, flags=re.M)[1:]]


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def shorter(command, window=0.3):
    """Windows of a third of a second or so, seven of them in all, also of what goes on until it is ended; hours that are past
    are a second; a port that nobody else has."""
    command = re.sub(r"(-i|--interval) \d+[smh]", r"\1 %gs" % (window * PATIENCE), command)
    command = re.sub(r"(-d|--duration) \d+[smh]", r"\1 %gs" % (7 * window * PATIENCE), command)
    command = re.sub(r"--from \d+h", "--from 500ms", command)
    if " attach " in command and not re.search(r" (-d|--duration|--keep)\b", command):
        command = command.replace(" attach ", " attach -d %gs " % (7 * window * PATIENCE))
    command = re.sub(r"--listen \d+", "--listen %d" % free_port(), command)
    if "pyleak why " in command:
        command = re.sub(r" (-d|--duration) \S+", "", command).replace("pyleak why ", "pyleak why -i %gs " % (window * PATIENCE))
    if "--interval" not in command and "-i " not in command and "diff" in command:
        command = command.replace("diff ", "diff -i %gs " % (window * PATIENCE))
    return command


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pyleak").symlink_to(PYLEAK)
    return tmp_path


def run(command, victim, folder, environment, window=0.3):
    script = re.sub(r"\b(4711|5012)\b", str(victim.pid), shorter(command, window))
    return subprocess.run(["bash", "-o", "pipefail", "-c", script], cwd=str(folder), env=environment, timeout=60 * PATIENCE,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)


@pytest.fixture
def leaking(one_python, folder):
    """A process whose growth.py makes 120 KiB a second, and a shell's environment with pyleak in it."""
    environment = dict(os.environ, PATH="%s:%s" % (folder / "bin", os.environ["PATH"]))
    with Victim(one_python, "growth.py", "steady") as victim:
        victim.tell("go")
        yield victim, folder, environment


def example_with(*words):
    found = [commands for commands in examples() if all(word in " ".join(commands) for word in words)]
    assert len(found) == 1, (words, found)
    return found[0]


def test_all_examples_run(leaking):
    """None is refused, and none leads nowhere."""
    seen = 0
    for commands in examples():
        for command in commands:
            if "monday.pyleak" in command:
                (leaking[1] / "monday.pyleak").write_bytes((leaking[1] / "tuesday.pyleak").read_bytes())
            result = run(command, *leaking, window=0.15)
            # The process can be attached to: the search for what keeps pyleak from it finds nothing, which is no failure.
            assert result.returncode == 0, (command, result)
            assert result.stderr == "", (command, result)
            seen += 1
    assert seen > 10


def test_a_soak_test_that_fails(leaking):
    command, = example_with("--against first", "--fail-above 10M")
    result = run(command.replace("10M", "100K"), *leaking)
    assert result.returncode == 3, result
    assert re.search(r"^pyleak: .*growth.py:\d+ grew by \d+ KiB, which is more than --fail-above allows$", result.stderr, re.M)
    report = (leaking[1] / "growth.txt").read_text()
    assert 5 <= len(report.split("\n\n")) <= 7
    assert "# steady growth in" in report.split("\n\n")[-2] and report.split("\n\n")[-1].startswith("over all ")


def test_what_is_left_after_a_test(leaking):
    command, = example_with("attach", "--fail-above 50M")
    result = run(command.replace("50M", "50K"), *leaking)
    assert result.returncode == 3, result
    document = json.loads((leaking[1] / "left.json").read_text())
    assert document["kind"] == "top" and document["stats"][0]["size"] > 50 * 1024


def test_a_cron_job(leaking):
    command, = example_with("growth.jsonl")
    for _ in range(2):
        result = run(command, *leaking)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", ""), result
    documents = [json.loads(line) for line in (leaking[1] / "growth.jsonl").read_text().splitlines()]
    assert 8 <= len(documents) <= 12
    assert all(document["kind"] == "diff" for document in documents)


def test_which_lines_leak(leaking):
    command, = example_with("steady")
    result = run(command, *leaking)
    assert result.returncode == 0, result
    file, line, rate = result.stdout.splitlines()[0].split("\t")
    assert file.endswith("growth.py") and int(line) > 0
    assert 100e6 < float(rate) < 2e9
