# SPDX-License-Identifier: MIT
"""pyleak run: a program is recorded from before its own first line, and is itself in all else."""
import json
import os
import re
import signal
import subprocess

import pytest

import test_lists_of_ints as lists_of_ints
import test_matplotlib
import test_servers
from cgroups import cgroup  # noqa: F401, a fixture
from helpers import PATIENCE, PYLEAK, VICTIMS, line_of, skip_here, state, wait_until

STARTED = VICTIMS / "started.py"
PARKED = 3


def command(*arguments):
    return [PYLEAK, "run", *map(str, arguments)]


def run(*arguments, **keywords):
    """With nothing on standard input, so that started.py ends at once."""
    keywords.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=60 * PATIENCE, check=False, **keywords)


class Running:
    """started.py under pyleak, which has done all its work."""

    def __init__(self, python, *options, arguments=(), **keywords):
        self.process = subprocess.Popen(command(*options, "--", python, STARTED, *arguments), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **keywords)
        assert self.process.stdout.readline() == "done\n", self.process.communicate()

    def end(self):
        """Its status, what it has printed besides, and what pyleak says."""
        out, err = self.process.communicate(timeout=60 * PATIENCE)
        return self.process.returncode, out, err

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def program_of(pid):
    """The pid of what was started: pyleak's only child."""
    with open("/proc/%d/task/%d/children" % (pid, pid)) as file:
        return int(file.read().split()[0])


def test_from_the_first_line_as_tracemalloc(python, tmp_path):
    """Size and count of every line of the program, from its imports on."""
    counted = subprocess.run([python, "-X", "tracemalloc=1", str(STARTED)], stdin=subprocess.DEVNULL, check=False,
                             stdout=subprocess.PIPE).stdout
    expected = {line: (size, count) for line, size, count in json.loads(counted)}
    report = tmp_path / "report.json"
    # tracemalloc knows of CPython's free lists since 3.8.
    lists = ["--no-free-lists"] if version_of(python) < (3, 8) else []
    with Running(python, "-d", "%ds" % (2 * PATIENCE), "-f", "1", "-n", "0", *lists, "--format", "json", "-o", report) as running:
        wait_until(lambda: report.exists() and report.read_text().endswith("\n"), 30, "a report")
        status, out, _ = running.end()
    document = json.loads(report.read_text())
    found = {row["lineno"]: (row["size"], row["count"]) for row in document["stats"]
             if row["filename"].endswith("started.py") and row["count"]}
    assert (status, out) == (7, "")
    assert document["lost"] == {"events": 0, "sites": 0}
    last = line_of(STARTED, '"tracemalloc" in')
    expected, found = ({line: value for line, value in table.items() if line < last} for table in (expected, found))
    assert len(expected) >= 6 and sorted(found) == sorted(expected)
    # What the interpreter had parked before the first frame has no line until it is freed for good: a few blocks.
    apart = {line: (value, found[line]) for line, value in expected.items()
             if abs(value[1] - found[line][1]) > PARKED or abs(value[0] - found[line][0]) > PARKED * 300}
    assert not apart
    if lists:
        assert found == expected


@pytest.mark.parametrize("how", [["sh", "-c", "true; \"$@\"; exit $?", "sh"], ["env"], ["nice", "sh", "-c", "exec \"$@\"", "sh"]])
def test_what_starts_it_is_followed(python, how):
    result = run("-g", "file", "--format", "json", "--", *how, python, STARTED)
    assert result.returncode == 7, result
    assert result.stdout.splitlines()[0] == "done"
    document = json.loads(result.stdout.splitlines()[-1])
    assert document["python"].startswith("%d.%d." % version_of(python))


def version_of(python):
    """(3, 11)"""
    return tuple(json.loads(subprocess.run([python, "-c", "import sys; print(list(sys.version_info[:2]))"], check=True,
                                           stdout=subprocess.PIPE).stdout))


@pytest.mark.parametrize("program,status", [
    (["true"], 0), (["sh", "-c", "exit 3"], 3), (["sh", "-c", "kill -KILL $$"], 137),
    (["sh", "-c", "sleep 0.1 & wait; exit 4"], 4)])
def test_no_python(program, status):
    """As if pyleak were not there, but for a line."""
    result = run("--", *program)
    assert (result.returncode, result.stdout) == (status, ""), result
    assert result.stderr == "pyleak: '%s' has started no Python: nothing was recorded\n" % program[0]


def test_not_to_be_started(tmp_path):
    (tmp_path / "text").write_text("no program")
    missing, wrong, none = run("--", tmp_path / "missing"), run("--", tmp_path / "text"), run("-d", "1s")
    assert (missing.returncode, wrong.returncode, none.returncode) == (127, 126, 2)
    for result, words in ((missing, "not to be found"), (wrong, "cannot be started: Permission denied"),
                          (none, "needs a program")):
        assert words in result.stderr and result.stderr.count("\n") == 1 and not result.stdout, result


def test_options_of_the_program_are_its_own(python):
    """From its name on."""
    result = run("-q", "-n", "1", python, "-c", "import sys; print(sys.argv[1:])", "-n", "3", "--help")
    assert result.returncode == 0 and result.stdout.splitlines()[0] == "['-n', '3', '--help']", result


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_are_the_programs(python, number):
    """It dies of them, or not; pyleak reports and ends as it did."""
    code = "import signal, sys, time\nsignal.signal(%d, lambda *_: sys.exit(9))\nprint('ready', flush=True)\ntime.sleep(60)"
    with subprocess.Popen(command("-n", "1", "--", python, "-c", code % number), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=30 * PATIENCE)
    assert process.returncode == 9, err
    assert "total: size=" in out and not err


def test_killed_program(python):
    with Running(python) as running:
        wait_until(lambda: state(program_of(running.process.pid)) == "S", 10, "it reads")
        os.kill(program_of(running.process.pid), signal.SIGKILL)
        status, out, _ = running.end()
    assert status == 128 + signal.SIGKILL
    assert "total: size=" in out


def test_the_duration_ends_the_recording_and_not_the_program(python):
    with Running(python, "-d", "500ms", "-n", "1") as running:
        lines = [running.process.stdout.readline() for _ in range(2)]
        assert any("total:" in line or "started.py" in line or "importlib" in line for line in lines), lines
        pid = program_of(running.process.pid)
        wait_until(lambda: state(pid) == "S", 10, "it reads")
        with open("/proc/%d/maps" % pid) as maps:
            assert "70796c" not in maps.read()
        status, _, _ = running.end()
    assert status == 7


def test_workers(python):
    """--children: those that the program forks too, and a parent that is no Python."""
    code = ("import os, time\n"
            "kept = []\n"
            "for worker in range(2):\n"
            "    if os.fork() == 0: break\n"
            "end = time.time() + 4\n"
            "while time.time() < end:\n"
            "    kept.extend([bytes(2000) for _ in range(10)]); time.sleep(0.01)  # line 7\n")
    result = run("--children", "--format", "json", "-n", "3", "--", "sh", "-c", "\"$@\"; exit 5", "sh", python, "-c", code)
    assert result.returncode == 5, result
    assert any(row["lineno"] == 7 for row in json.loads(result.stdout.splitlines()[-1])["stats"]), result


def test_without_any_capability(tmp_path):
    """As in a container that gives none: another user, who has dropped all."""
    if os.geteuid() != 0:
        skip_here("user")
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    code = "import time; x = [bytes(3000) for _ in range(500)]; time.sleep(%g)" % (1.5 * PATIENCE)
    result = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all",
                             "--bounding-set=-all", "--no-new-privs", pyleak_for_others(tmp_path), "run", "-n", "0", "--format",
                             "json", "--", "/usr/bin/python3", "-c", code],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 0 and not result.stderr, result
    row = next(row for row in json.loads(result.stdout)["stats"] if row["filename"] == "<string>")
    assert row["lineno"] == 1 and row["count"] >= 500, row


def pyleak_for_others(folder):
    """The build may lie where only root comes."""
    path = folder / "pyleak"
    path.write_bytes(open(PYLEAK, "rb").read())
    path.chmod(0o755)
    return str(path)


def steps_of(python):
    result = run("--verbose", "-n", "1", "--", python, STARTED)
    return int(re.search(r"(\d+) ptrace steps", result.stderr).group(1))


@pytest.mark.parametrize("guardian", ["on", "off"])
def test_killed_at_a_step(python, tmp_path, guardian):
    """The program goes on, is right, and ends as it would."""
    steps = steps_of(python)
    assert steps > 100
    chosen = sorted(set(list(range(1, 8)) + list(range(8, steps - 40, max(1, steps // 12))) + list(range(steps - 40, steps, 3))))
    for step in chosen:
        written = tmp_path / ("written-%d" % step)
        environment = dict(os.environ, PYLEAK_FAULT=str(step), PYLEAK_GUARDIAN=guardian)
        with subprocess.Popen(command("-n", "1", "-d", "100ms", "--", python, STARTED, written), stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
            process.wait(60 * PATIENCE)
        # Before the program's first instruction there is nothing to go on.
        wait_until(lambda: written.exists() and written.read_text() == "whole" or step < 3 and not written.exists(), 30,
                   "step %d of %d" % (step, steps))


def test_killed_for_its_memory(cgroup):
    """What was live is shown, and the kernel's reason said."""
    code = ("import time\nkept = [bytes(1000000) for _ in range(10)]\ntime.sleep(%g)\n"
            "while True:\n    kept.append(bytes(20 << 20))\n" % (1.5 * PATIENCE))
    (cgroup.path / cgroup.limit).write_text(str(150 << 20))
    result = run("-n", "3", "--", DEBIAN, "-c", code, preexec_fn=cgroup.enter)
    assert result.returncode == 128 + signal.SIGKILL, result
    assert "for want of memory (oom_kill): its cgroup's limit is 150 MiB" in result.stderr, result
    assert "<string>:2: size=9766 KiB" in result.stdout or "<string>:5: size=" in result.stdout, result


DEBIAN = "/usr/bin/python3"


def first_row(path, *command, seconds):
    """Of the report after so long; the program is then ended, and its end is pyleak's."""
    with subprocess.Popen([PYLEAK, "run", "-d", "%gs" % (seconds * PATIENCE), "--format", "json", "-o", str(path), *map(str, command)],
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: path.exists() and path.read_text().endswith("\n"), 10 * seconds, "a report")
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(30 * PATIENCE)
    return json.loads(path.read_text())["stats"][0], status


def test_figures_that_nobody_closes(tmp_path):
    """The pixels are numpy's, which is loaded while the program is recorded: its own code is unchanged."""
    if subprocess.run([DEBIAN, "-c", "import matplotlib, flask"], stderr=subprocess.DEVNULL, check=False).returncode:
        skip_here("matplotlib")
    row, status = first_row(tmp_path / "report", "--", DEBIAN, "-W", "ignore", "-c", test_matplotlib.SERVICE, seconds=8)
    assert status == 128 + signal.SIGTERM
    assert row["filename"].endswith(("/matplotlib/cbook/__init__.py", "/matplotlib/cbook.py")), row
    assert row["domain"] == "native" and abs(row["size"] - row["count"] * test_matplotlib.PIXELS) < 0.02 * row["size"], row
    # Imports have used the rows up that tracebacks get: who called is known of what had one before.


def test_lists_of_ints(tmp_path):
    """The biggest line, in a module of the program's own."""
    if subprocess.run([DEBIAN, "-c", "import numpy"], stderr=subprocess.DEVNULL, check=False).returncode:
        skip_here("numpy")
    (tmp_path / "formatter.py").write_text(lists_of_ints.FORMATTER)
    (tmp_path / "app.py").write_text("import numpy, time\nfrom formatter import encode_to_json\n"
                                     "array = numpy.arange(400000).reshape(400, 1000) + 1000.5\n"
                                     "kept = encode_to_json({'chr%d' % i: array for i in range(5)})\ntime.sleep(600)\n")
    row, _ = first_row(tmp_path / "report", "--", DEBIAN, tmp_path / "app.py", seconds=5)
    line = lists_of_ints.FORMATTER.splitlines().index(
        "        new_karyogram[key] = value.astype(int).tolist()") + 1
    assert row["filename"].endswith("/formatter.py") and row["lineno"] == line, row
    assert 2000000 <= row["count"] < 2000000 + 5 * 2 * 401 + 10, row


def test_gunicorn_with_four_workers(tmp_path):
    (tmp_path / "service.py").write_text(test_servers.SERVICE)
    port = test_servers.free_port()
    client = subprocess.Popen([DEBIAN, "-c", test_servers.REQUESTS, str(port)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        row, status = first_row(tmp_path / "report", "--children", "--", "/usr/bin/gunicorn", "--workers", "4", "--chdir",
                                tmp_path, "--bind", "127.0.0.1:%d" % port, "--no-sendfile", "service:app", seconds=8)
    finally:
        client.kill()
        client.wait()
    assert status == 0, "gunicorn ends well"
    assert (os.path.basename(row["filename"]), row["lineno"]) == ("service.py", 3), row
    pids = json.loads((tmp_path / "report").read_text())["pids"]
    assert len(pids) == 5, pids
