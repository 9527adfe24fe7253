# SPDX-License-Identifier: MIT
"""The command line: --help, the manual page and the completions agree; wrong lines are answered in
one line; ps and the choice of a process. Nothing here attaches to anything."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import time

import pytest

from helpers import BUILD, PYLEAK, ROOT, skip_here

MANUAL = BUILD / "man"
PAGES = sorted(path.name for path in (ROOT / "man").glob("pyleak*.[1-8]"))
COMMANDS = ["ps", "attach", "run", "diff", "why", "detach", "heap", "holders", "doctor", "report"]


def pyleak(*arguments, **options):
    options.setdefault("timeout", 60)
    return subprocess.run([PYLEAK, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          **options)


def help_options(*command):
    """{name: (letter, argument, default)} as --help has them, in order."""
    text = pyleak(*command, "--help").stdout
    options = {}
    for entry in re.split(r"\n(?=  (?:-\w|    --))", text)[1:]:
        entry = re.split(r"\n\n", entry)[0]
        letter, name, rest = re.match(r"\s+(?:-(\w), )?--([\w-]+)(.*)", entry, re.S).groups()
        rest = re.sub(r"\|\n\s+", "|", rest)  # choices that need more than one line
        argument = re.match(r" ([A-Z]+|\S+\|\S+)(?=\s)", rest)
        words = " ".join(rest.split())
        default = re.search(r"\[([^\]]*)\]$", words)
        options[name] = (letter, argument and argument[1], default and default[1])
    return options


def man_options(body):
    """The same from text of the manual, and the commands that take each option."""
    options, commands = {}, {}
    for entry in re.split(r"\n\.It ", body)[1:]:
        entry = re.split(r"\n\.(?:El|Ss)", entry)[0]
        head, text = entry.split("\n", 1)
        head = head.replace("\\:", "")  # where a line may be broken
        letter, name, argument = re.fullmatch(r"(?:Fl (\w) , )?Fl -([\w-]+)(?: Ar (\S+))?", head).groups()
        default = re.search(r"^\.Bq (.*)$", text, re.M)
        options[name] = (letter, argument, default and default[1])
        takers = re.match(r"\.Pq (.*)\n", text)
        commands[name] = takers[1].split(", ") if takers else COMMANDS
    return options, commands


def test_help_and_manual_page_have_the_same_options():
    assert list(help_options().items()) == list(man_options((ROOT / "man" / "options.mdoc").read_text())[0].items())


@pytest.mark.parametrize("command", COMMANDS)
def test_manual_page_says_which_command_takes_an_option(command):
    takers = man_options((ROOT / "man" / "options.mdoc").read_text())[1]
    names = [name for name, commands in takers.items() if command in commands]
    page = (MANUAL / ("pyleak-%s.1" % command)).read_text().split(".Sh OPTIONS")[1].split("\n.Sh ")[0]
    assert list(help_options(command)) == names == list(man_options(page)[0])


def test_help_and_manual_page_have_the_same_commands():
    body = (MANUAL / "pyleak.1").read_text().split(".Sh COMMANDS")[1].split(".Sh OPTIONS")[0]
    listed = pyleak("--help").stdout.split("Commands:\n")[1].split("\n\n")[0]
    assert re.findall(r"^\.It Cm (\w+)", body, re.M) == COMMANDS
    assert re.findall(r"^\.Xr pyleak-(\w+) 1", body, re.M) == COMMANDS
    assert re.findall(r"^  (\w+) ", listed, re.M) == COMMANDS


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_fits_80_columns_and_goes_to_stdout(command):
    answer = pyleak(*command, "--help")
    assert answer.returncode == 0 and not answer.stderr
    assert max(map(len, answer.stdout.splitlines())) <= 80
    assert pyleak(*command, "-h").stdout == answer.stdout


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_names_its_page(command):
    assert "'man %s'" % "-".join(["pyleak", *command]) in pyleak(*command, "--help").stdout.splitlines()[-1]


@pytest.mark.parametrize("page", PAGES)
def test_manual_pages_have_no_warnings(page):
    if not shutil.which("man"):
        skip_here("man")
    answer = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", MANUAL / page],
                            capture_output=True, text=True, check=True)
    assert answer.stderr == ""
    # What is named is there.
    named = re.findall(r"^\.Xr (pyleak\S*) (\d)", (MANUAL / page).read_text(), re.M)
    assert {"%s.%s" % name for name in named} <= set(PAGES)


def completed(command):
    """The options that completions offer."""
    return [f"--{name}" for name in help_options(command)]


def bash_completes(*words):
    script = ('source <("$0" completions bash); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _pyleak; '
              'printf "%s\\n" "${COMPREPLY[@]}"')
    answer = subprocess.run(["bash", "-c", script, PYLEAK, *words], capture_output=True, text=True, check=True)
    assert answer.stderr == ""
    return answer.stdout.split()


@pytest.mark.parametrize("command", COMMANDS)
def test_bash_completes_options(command):
    assert bash_completes("pyleak", command, "--") == completed(command)


def test_bash_completes_commands_and_values():
    assert bash_completes("pyleak", "d") == ["diff", "detach", "doctor"]
    assert bash_completes("pyleak", "diff", "12", "--sort", "c") == ["count", "count-diff", "churn"]
    assert bash_completes("pyleak", "attach", "--sort", "=", "s") == ["size"]
    assert bash_completes("pyleak", "ps", "--format", "=") == ["text", "json"]
    assert bash_completes("pyleak", "diff", "-g", "f") == ["file", "function"]


@pytest.mark.parametrize("command", COMMANDS)
def test_fish_completes_options(command):
    if not shutil.which("fish"):
        skip_here("fish")
    script = f"function pyleak; {PYLEAK} $argv; end; pyleak completions fish | source; complete -C 'pyleak {command} --'"
    answer = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True, text=True, check=True)
    assert answer.stderr == ""
    assert sorted(line.split("\t")[0] for line in answer.stdout.splitlines()) == sorted(completed(command))


@pytest.mark.parametrize("command", COMMANDS)
def test_zsh_completes_options(command):
    script = pyleak("completions", "zsh").stdout
    block = re.search(rf"\n\t{command}\)\n(.*?);;", script, re.S)[1]
    assert re.findall(r"(?:^\t\t\t'\*?|,)(--[\w-]+)", block, re.M) == completed(command)


WRONG = [
    ["nonsense"], ["heap", "1", "-i", "1s"], ["heap", "1", "-s", "churn"], ["report"], ["report", "1", "2", "3"], ["attach", "12x"], ["attach", "-1"],
    ["attach", "1", "2"], ["ps", "1"], ["diff", "1", "--nonsense"], ["diff", "1", "-i"], ["diff", "1", "-i", "x"],
    ["diff", "1", "-f", "1000"], ["diff", "1", "--sample", "1M", "-e", "breakpoint"], ["diff", "1", "--format", "xml"], ["ps", "--format", "csv"], ["why", "1", "-i", "1s", "-d", "3s"], ["why", "1", "--format", "csv"],
    ["attach", "1", "--keep", "-e", "breakpoint"], ["attach", "1", "--keep", "-d", "1s"], ["attach", "1", "--keep", "--fail-above", "0"],
    ["diff", "1", "-d", "15s", "-i", "10s"], ["diff", "1", "-d", "1s"], ["detach", "1", "--limit", "3"], ["diff", "1", "--f", "3"], ["completions", "ksh"],
    ["attach", "1", "evil\nline"], ["diff", "1", "-n", "\033[31m"], ["diff", "--sort", "é" * 2000],
]


@pytest.mark.parametrize("arguments", WRONG, ids=lambda arguments: " ".join(arguments)[:30].encode("unicode_escape"))
def test_wrong_lines_get_one_line(arguments):
    answer = pyleak(*arguments)
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr.startswith("pyleak: ") and answer.stderr.count("\n") == 1
    assert "\033" not in answer.stderr


def test_alone_it_shows_its_usage():
    answer = pyleak()
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("usage: pyleak COMMAND")


def test_a_full_disk_is_an_error():
    for arguments in (["--help"], ["--version"], ["ps"], ["completions", "bash"]):
        with open("/dev/full", "w", encoding="ascii") as full:
            answer = subprocess.run([PYLEAK, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert answer.returncode == 1
        assert answer.stderr == "pyleak: standard output: No space left on device\n"


@pytest.fixture
def sleeper():
    """A Python that does nothing, of a known version, with a long command line."""
    command = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()", "x" * 300, "tab\there"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process
        process.stdin.close()


def row_of(text, pid):
    titles, *rows = text.splitlines()
    assert titles.split() == ["PID", "PYTHON", "RSS", "THREADS", "ATTACHABLE", "PROBE", "COMMAND"]
    return next(row for row in rows if row.split()[0] == str(pid))


def test_ps_text(sleeper):
    answer = pyleak("ps")
    row = row_of(answer.stdout, sleeper.pid)
    version = ".".join(map(str, sys.version_info[:3]))
    assert answer.returncode == 0
    cells = rf"\s*{sleeper.pid}  {re.escape(version)}\S*\s+[\d.]+ [KM]iB\s+1  yes\s+no\s+"
    assert re.match(cells + re.escape(sys.executable), row)
    assert "x" * 300 in row and "\t" not in row


def test_ps_json(sleeper):
    answer = pyleak("ps", "--format", "json")
    documents = [json.loads(line) for line in answer.stdout.splitlines()]
    document = next(document for document in documents if document["pid"] == sleeper.pid)
    rss = document.pop("rss")
    command = document.pop("command")
    assert 1 << 20 < rss < 1 << 30
    assert command.startswith(sys.executable) and "x" * 300 in command
    assert document.pop("python").startswith(".".join(map(str, sys.version_info[:3])))
    assert document == {"schema": 1, "kind": "ps", "pid": sleeper.pid, "threads": 1, "attachable": True,
                        "reason": None, "probe": False, "landing": False}
    assert list(json.loads(answer.stdout.splitlines()[0])) == [
        "schema", "kind", "pid", "python", "rss", "threads", "attachable", "reason", "probe", "landing",
        "command"]


def test_ps_repairs_what_is_not_utf8():
    command = [sys.executable, "-c", "print(flush=True); input()", b"\xff\xe9t\xc3\xa9"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        text = subprocess.run([PYLEAK, "ps", "--format", "json"], capture_output=True, check=True).stdout.decode()
        process.communicate(b"\n")
    document = next(json.loads(line) for line in text.splitlines() if f'"pid":{process.pid},' in line)
    assert document["command"].endswith("??t\u00e9")


def test_ps_cuts_the_command_on_a_terminal_only(sleeper):
    master, slave = pty.openpty()
    subprocess.run(["stty", "cols", "100"], stdin=slave, check=True)
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
    with subprocess.Popen([PYLEAK, "ps"], stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        text = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:
                break
            if not piece:
                break
            text += piece
        assert process.wait() == 0
    os.close(master)
    lines = text.decode().replace("\r\n", "\n").splitlines()
    assert max(map(len, lines)) == 100
    assert row_of("\n".join(lines), sleeper.pid)
    assert "\033" not in text.decode()
    assert "\033[1m" in pyleak("ps", "--color", "always").stdout


def test_output_is_not_overwritten(tmp_path, sleeper):
    path = tmp_path / "out"
    assert pyleak("ps", "-o", path).returncode == 0
    first = path.read_text()
    assert str(sleeper.pid) in first
    path.write_text("precious")
    answer = pyleak("ps", "-o", path)
    assert answer.returncode == 1 and answer.stdout == ""
    assert answer.stderr == f"pyleak: --output {path}: the file exists; --force overwrites it\n"
    assert path.read_text() == "precious"
    assert pyleak("ps", "-o", path, "--force").returncode == 0
    assert row_of(path.read_text(), sleeper.pid)


def test_output_elsewhere(tmp_path, sleeper):
    assert row_of(pyleak("ps", "-o", "-").stdout, sleeper.pid)
    assert pyleak("ps", "-o", "/dev/null").returncode == 0
    answer = pyleak("ps", "-o", tmp_path / "no" / "such")
    assert answer.returncode == 1 and "No such file or directory" in answer.stderr
    assert pyleak("ps", "-o", "/dev/full").stderr == "pyleak: /dev/full: No space left on device\n"
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert pyleak("ps", "-o", tmp_path / "link").returncode == 1
    assert not (tmp_path / "target").exists()


def alone(script):
    """Runs a shell script where it sees no process but its own: no other test, and no stranger."""
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode != 0:
        skip_here("namespaces")
    return subprocess.run([*unshare, "sh", "-c", script, PYLEAK, sys.executable], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=60, check=False)


def test_without_a_pid_and_without_a_python():
    answer = alone('"$0" detach')
    assert answer.returncode == 1
    assert answer.stderr == "pyleak: no Python process is to be seen from here: give a PID\n"


def test_without_a_pid_and_with_several_pythons():
    answer = alone('''
        for n in 1 2; do "$1" -c "import time; print(flush=True); time.sleep(30)" "number $n" & eval "p$n=$!"; done
        sleep 1
        echo "$p1 $p2"
        "$0" detach
        status=$?
        kill "$p1" "$p2"
        exit "$status"
    ''')
    first, second = answer.stdout.split()
    assert answer.returncode == 1
    assert re.fullmatch(rf"pyleak: several Python processes can be attached to, give the PID of one:\n  {first}  \S.*\n"
                        rf"  {second}  \S.*\n", answer.stderr)


def test_a_process_by_its_name():
    """Where one has it. Where several have it, or none, it says so."""
    answer = alone('''
        for n in 1 2; do "$1" -c "import time; print(flush=True); time.sleep(30)" "number $n" "both" & eval "p$n=$!"; done
        sleep 1
        echo "$p1 $p2"
        "$0" doctor "number 2" | grep -o "process [0-9]*" | head -n 1
        "$0" doctor both
        "$0" doctor neither
        status=$?
        kill "$p1" "$p2"
        exit "$status"
    ''')
    first, second, _, found = answer.stdout.split()
    assert found == second, answer
    assert re.fullmatch(rf"pyleak: several Python processes are called 'both', give the PID of one:\n  {first}  \S.*\n"
                        rf"  {second}  \S.*\npyleak: no Python process that is to be seen is called 'neither': give a PID, "
                        r"see 'pyleak ps'\n", answer.stderr)


def test_ps_is_quick_and_quiet():
    started = time.monotonic()
    answer = pyleak("ps", "--quiet")
    assert answer.returncode == 0 and answer.stderr == ""
    assert time.monotonic() - started < 10


def test_force_follows_no_link(tmp_path):
    """What is at the other end may be another user's choice; a device or a pipe is overwritten by nobody."""
    victim, link = tmp_path / "precious", tmp_path / "link"
    victim.write_text("precious")
    link.symlink_to(victim)
    answer = pyleak("ps", "--force", "-o", link)
    assert answer.returncode == 1 and "symbolic link" in answer.stderr and victim.read_text() == "precious"
    assert pyleak("ps", "--force", "-o", "/dev/stdout").returncode == 0
    assert pyleak("ps", "--force", "-o", victim).returncode == 0 and "PID" in victim.read_text()
