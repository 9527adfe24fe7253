# SPDX-License-Identifier: MIT
"""pyleak run: a program is recorded from before its own first line, and is itself in all else."""
import concurrent.futures
import json
import os
import re
import shutil
import signal
import subprocess

import pytest

import test_lists_of_ints as lists_of_ints
import test_matplotlib
import test_servers
from cgroups import cgroup  # noqa: F401, a fixture
from helpers import HOOKS, PATIENCE, PYLEAK, VICTIMS, hook_words, is_armed, line_of, skip_here, state, wait_until

STARTED = VICTIMS / "started.py"


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
    version = version_of(python)
    # tracemalloc knows of CPython's free lists since 3.8: before, a block from one keeps the line that it had at first.
    lists = ["--no-free-lists"] if version < (3, 8) else []
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
    assert len(expected) >= 6
    if (3, 8) <= version < (3, 11):
        expected, found = without_kept_frame(expected, found)
    # A class is known to its base by an int, its address: one of the two processes may have it beyond 1 GiB, in two digits.
    kept = line_of(STARTED, "class Kept")
    if abs(found[kept][0] - expected[kept][0]) == 4:
        found[kept] = (expected[kept][0], found[kept][1])
    assert found == expected


def without_kept_frame(expected, found):
    """Until 3.10 a function's frame stays with its code for the next call. tracemalloc has it at the line of the last call,
    pyleak at that of the first, which has allocated it: here Kept(), in two lines."""
    first, again = line_of(STARTED, "KEPT = ["), line_of(STARTED, "KEPT.append")
    size, count = (found[first][i] - expected[first][i] for i in range(2))
    assert count == 1 and 350 < size < 500, (expected[first], found[first])
    return expected, {**found, first: expected[first], again: (found[again][0] + size, found[again][1] + count)}


@pytest.mark.alike
def test_what_starts_it_is_followed(python):
    followed(python, ["sh", "-c", "true; \"$@\"; exit $?", "sh"])


@pytest.mark.parametrize("how", [["env"], ["nice", "sh", "-c", "exec \"$@\"", "sh"]], ids=["env", "nice"])
def test_what_becomes_it_is_followed(edge_python, how):
    followed(edge_python, how)


def followed(python, how):
    result = run("-g", "file", "--format", "json", "--", *how, python, STARTED)
    assert result.returncode == 7, result
    assert result.stdout.splitlines()[0] == "done"
    document = json.loads(result.stdout.splitlines()[-1])
    assert document["python"].startswith("%d.%d." % version_of(python))


# A Python of a root knows itself by another name than we do.
BEGINS = ("import os, sys, time\nkept = [bytes(3000) for _ in range(100)]\ntime.sleep(%g)\n"
          "begun = [sys.executable if word == 'itself' else word for word in sys.argv[1:]]\nos.execvp(begun[0], begun)\n")
GROWS = "import sys, time\nkept = []\nfor _ in range(100):\n    kept.append(bytes(50000)); time.sleep(0.01)\nsys.exit(6)\n"


@pytest.mark.parametrize("seconds", [0, 0.4])
def test_python_that_begins_another(edge_python, tmp_path, seconds):
    """ddtrace-run and its like: what they begin is what is meant, however soon they do."""
    (tmp_path / "grows.py").write_text(GROWS)
    result = run("--format", "json", "-n", "0", "--", edge_python, "-c", BEGINS % seconds, "itself", tmp_path / "grows.py")
    assert result.returncode == 6, result
    document = json.loads(result.stdout)
    row = document["stats"][0]
    assert row["filename"].endswith("grows.py") and row["lineno"] == 4 and 40 <= row["count"] <= 102, row
    gone = [row for row in document["stats"] if row["filename"] == "<string>" and row["lineno"] == 2 and row["count"] > 90]
    assert not gone, gone
    assert document["lost"] == {"events": 0, "sites": 0}


def test_python_that_begins_another_while_it_is_hooked(edge_python, tmp_path):
    """On a machine so busy that it has gone on before pyleak has: while words were planted, or before the first look. (Of 16
    such runs two or three said "cannot be hooked: Bad address", or had no row.)"""
    (tmp_path / "grows.py").write_text(GROWS.replace("range(100)", "range(300)"))

    def once(_):
        return run("--format", "json", "-n", "0", "--", edge_python, "-c", BEGINS % 0, "itself", tmp_path / "grows.py")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for result in pool.map(once, range(16)):
            assert result.returncode == 6, result
            rows = json.loads(result.stdout)["stats"]
            assert any(row["filename"].endswith("grows.py") and row["lineno"] == 4 for row in rows), (result.stderr, rows[:3])


def test_python_that_begins_something_else(one_python):
    """Then it is the one that was meant."""
    result = run("--format", "json", "-n", "0", "--", one_python, "-c", BEGINS % (0.8 * PATIENCE), "sh", "-c", "echo begun; exit 4")
    assert result.returncode == 4 and result.stdout.startswith("begun\n"), result
    rows = json.loads(result.stdout.splitlines()[-1])["stats"]
    assert any(row["filename"] == "<string>" and row["lineno"] == 2 and row["count"] >= 100 for row in rows), rows


def test_python_that_uv_asks_what_it_is(one_python, tmp_path):
    """uv run does so once for each Python, before it starts the program with it."""
    question = "import sys; sys.path = sys.path  # from python.get_interpreter_info import main; main()"
    (tmp_path / "grows.py").write_text(GROWS)
    result = run("--format", "json", "-n", "3", "--", "sh", "-c", "\"$1\" -I -B -c \"$2\"; \"$1\" \"$3\"", "sh", one_python, question,
                 tmp_path / "grows.py")
    assert result.returncode == 6 and json.loads(result.stdout)["stats"][0]["filename"].endswith("grows.py"), result


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


@pytest.mark.alike
def test_options_of_the_program_are_its_own(python):
    """From its name on."""
    result = run("-q", "-n", "1", python, "-c", "import sys; print(sys.argv[1:])", "-n", "3", "--help")
    assert result.returncode == 0 and result.stdout.splitlines()[0] == "['-n', '3', '--help']", result


@pytest.mark.alike
def test_sigterm_is_the_programs(python):
    signalled(python, signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_signals_are_the_programs(edge_python, number):
    signalled(edge_python, number)


def signalled(python, number):
    """It dies of them, or not; pyleak reports and ends as it did."""
    code = "import signal, sys, time\nsignal.signal(%d, lambda *_: sys.exit(9))\nprint('ready', flush=True)\n"
    # A signal between the interpreter's look for one and the call would not end a long sleep.
    code += "for _ in range(600): time.sleep(0.1)"
    with subprocess.Popen(command("-n", "1", "--", python, "-c", code % number), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=30 * PATIENCE)
    assert process.returncode == 9, err
    assert "total: size=" in out and not err


@pytest.mark.alike
def test_killed_program(python):
    with Running(python) as running:
        wait_until(lambda: state(program_of(running.process.pid)) == "S", 10, "it reads")
        os.kill(program_of(running.process.pid), signal.SIGKILL)
        status, out, _ = running.end()
    assert status == 128 + signal.SIGKILL
    assert "total: size=" in out


def test_the_end_is_in_the_report(edge_python):
    """What the program has got shortly before it ends, and not what the interpreter then frees, one object after the other."""
    code = ("import time\nclass Kept: pass\ntime.sleep(%g)\nkept = [Kept() for _ in range(300000)]\ntime.sleep(%g)\n")
    programs = [subprocess.Popen(command("--format", "json", "-n", "0", "--", edge_python, "-c",
                                         code % (1 + shift, 0.3 * PATIENCE)),
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) for shift in (0, 0.12, 0.24, 0.36)]
    for program in programs:
        rows = json.loads(program.communicate(timeout=60 * PATIENCE)[0])["stats"]
        # Kept() from 3.11 on: the dict is not made before it is asked for.
        assert max(row["count"] for row in rows if row["filename"] == "<string>" and row["lineno"] == 4) >= 300000, rows


@pytest.mark.alike
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


@pytest.mark.long
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


def test_in_a_user_namespace(tmp_path):
    """As process 1, by a user who has no capability, in namespaces of users, processes and mounts of their own."""
    if os.geteuid() != 0:
        skip_here("user")
    for parent in (tmp_path, *tmp_path.parents):
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
    contained = [*nobody, "unshare", "--user", "--map-current-user", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*contained, "true"], stderr=subprocess.DEVNULL, check=False).returncode:
        skip_here("namespaces")
    code = ("import os, time\nkept = [bytes(3000) for _ in range(500)]\ntime.sleep(%g)\n"
            "state = dict(line.split(':', 1) for line in open('/proc/1/status'))\n"
            "print(os.getppid(), int(state['CapEff'], 16), state['Name'].strip())\n" % (0.5 * PATIENCE))
    result = subprocess.run([*contained, pyleak_for_others(tmp_path), "run", "-n", "0", "--format", "json", "--", "/usr/bin/python3",
                             "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            check=False)
    assert result.returncode == 0 and not result.stderr, result
    assert result.stdout.splitlines()[0] == "1 0 pyleak", result
    rows = json.loads(result.stdout.splitlines()[1])["stats"]
    assert any(row["filename"] == "<string>" and row["lineno"] == 2 and row["count"] >= 500 for row in rows), rows


def test_nobody_else_is_traced(one_python, tmp_path):
    """What Yama's ptrace_scope of 1 allows: all that are traced or read like that are descendants of who does it."""
    if not shutil.which("strace"):
        skip_here("strace")
    code = "import os, time; print(os.getpid(), os.getppid(), flush=True); time.sleep(%g)" % (0.7 * PATIENCE)
    calls = tmp_path / "calls"
    result = subprocess.run(["strace", "-o", calls, "-e", "trace=ptrace,process_vm_readv,process_vm_writev,openat",
                             *command("-n", "1", "--", "sh", "-c", "\"$@\"; exit 3", "sh", one_python, "-c", code)],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 3, result
    own = set(result.stdout.splitlines()[0].split())
    text = calls.read_text()
    traced = set(re.findall(r"^(?:ptrace\(\w+, |process_vm_\w+\()(\d+)", text, re.M))
    read = set(re.findall(r'^openat\(.*"/proc/(\d+)/(?:mem|maps|auxv|environ|map_files)', text, re.M))
    assert traced == own and read <= own, (own, traced, read)


def pyleak_for_others(folder):
    """The build may lie where only root comes."""
    path = folder / "pyleak"
    path.write_bytes(open(PYLEAK, "rb").read())
    path.chmod(0o755)
    return str(path)


def steps_of(*program):
    return steps_in(run("--verbose", "-n", "1", "--", *program).stderr)


def steps_in(text):
    return int(re.search(r"(\d+) ptrace steps", text).group(1))


@pytest.mark.parametrize("guardian", ["on", "off"])
@pytest.mark.long
def test_killed_at_a_step(python, tmp_path, guardian):
    """The program goes on, is right, and ends as it would."""
    steps = steps_of(python, STARTED)
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


# Says that it has begun, and waits for a file that lets it end: as long as pyleak takes to follow it.
FOLLOWED = ("import os, sys, time\nopen(sys.argv[1] + '.begun', 'w').close()\n"
            "while not os.path.exists(sys.argv[1] + '.end'):\n    time.sleep(0.01)\nopen(sys.argv[1], 'w').write('whole')\n")


def end_followed(process, written):
    """Lets FOLLOWED end as soon as it is recorded, or pyleak is dead."""
    def followed():
        try:
            program = program_of(process.pid)
        except (OSError, IndexError):
            return process.poll() is not None
        return os.path.exists("%s.begun" % written) and len(hook_words(program)) >= HOOKS and is_armed(program) and state(program) != "t"
    wait_until(followed, 60, "hooks in the program that follows")
    open("%s.end" % written, "w").close()


def test_killed_while_it_follows_another_program(one_python, tmp_path):
    """The steps behind those of the first program, some at a time."""
    def start(name, *options, **environment):
        written = tmp_path / name
        program = [one_python, "-c", BEGINS % 0.3, "itself", "-c", FOLLOWED, written]
        return written, subprocess.Popen(command(*options, "-n", "1", "--", *program), stdin=subprocess.DEVNULL, text=True,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **environment})
    written, process = start("written", "--verbose")
    end_followed(process, written)
    first, steps = steps_of(one_python, "-c", "pass"), steps_in(process.communicate(timeout=60 * PATIENCE)[1])
    assert steps > first + 50
    chosen = list(range(first - 60, steps, max(1, (steps - first) // 16)))
    while chosen:
        running = [(step, *start("written-%d" % step, PYLEAK_FAULT=str(step))) for step in chosen[:6]]
        chosen = chosen[6:]
        for step, written, process in running:
            end_followed(process, written)
            process.communicate(timeout=60 * PATIENCE)
            wait_until(lambda: written.exists() and written.read_text() == "whole", 30, "step %d of %d" % (step, steps))


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
    row, status = first_row(tmp_path / "report", "--", DEBIAN, "-W", "ignore", "-c", test_matplotlib.SERVICE, seconds=12)
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
                                tmp_path, "--bind", "127.0.0.1:%d" % port, "--no-sendfile", "service:app", seconds=12)
    finally:
        client.kill()
        client.wait()
    assert status == 0, "gunicorn ends well"
    assert (os.path.basename(row["filename"]), row["lineno"]) == ("service.py", 3), row
    pids = json.loads((tmp_path / "report").read_text())["pids"]
    assert len(pids) == 5, pids
