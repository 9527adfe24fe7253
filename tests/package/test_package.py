# SPDX-License-Identifier: MIT
"""What tools/package makes, on machines that have nothing of ours."""
import json
import pathlib
import shutil
import subprocess
import sys
import urllib.request

import pytest

import roots

ROOT = pathlib.Path(__file__).resolve().parents[2]
LEAK = """
import time
kept = []
print("ready", flush=True)
while True:
    kept.extend([bytes(1000 + i) for i in range(50)])  # leaks here
    time.sleep(0.01)
"""


def make(*arguments):
    """The file that tools/package names last."""
    output = subprocess.run([ROOT / "tools" / "package", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            check=True, text=True).stdout
    return pathlib.Path(output.splitlines()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("package")


@pytest.fixture(scope="module")
def package(folder):
    return make("--output", str(folder))


@pytest.fixture(scope="module")
def program(folder):
    return make("--static", "--output", str(folder))


@pytest.fixture(scope="module")
def wheel(folder):
    return make("--wheel", "--output", str(folder / "wheel"))


@pytest.fixture(scope="module")
def debian(folder):
    """Removed at the end, not kept as pytest keeps its folders: it is large."""
    path = folder / "debian"
    roots.make_debian(path)
    (path / "leak.py").write_text(LEAK)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def empty(tmp_path, program):
    roots.make_empty(tmp_path / "empty", program)
    return tmp_path / "empty"


class Leaking:
    """A Python that leaks at one line, for as long as the with block lasts."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"ready\n"
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        alive = self.process.poll() is None
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        assert alive, "it did not survive"


def assert_finds_the_leak(root, program, pid, *arguments):
    """Recorded from within the root."""
    result = roots.run(root, program, "diff", pid, "--interval", "500ms", "--format", "json", *arguments)
    row = json.loads(result.stdout)["stats"][0]
    assert (row["filename"].rsplit("/", 1)[-1], row["lineno"]) == ("leak.py", 6), row
    assert row["size_diff"] > 50000, row


def test_lintian(package):
    """Has nothing to say."""
    result = subprocess.run(["lintian", "--allow-root", "--info", "--display-info", str(package)], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, check=False)
    assert result.returncode == 0 and not result.stdout, result.stdout


def test_installed_and_removed(package, debian):
    before = roots.run(debian, "dpkg-query", "-f", "${Package}\n", "-W").stdout
    assert "pyleak" not in before and "libcapstone" not in before
    shutil.copy(package, debian / "pyleak.deb")
    roots.run(debian, "apt-get", "update", "-q")
    roots.run(debian, "apt-get", "install", "-y", "-q", "/pyleak.deb")
    assert roots.run(debian, "pyleak", "--version").stdout.splitlines()[0] == "pyleak %s" % package.name.split("_")[1]
    files = [name for name in roots.run(debian, "dpkg", "-L", "pyleak").stdout.splitlines()
             if not (debian / name[1:]).is_dir()]
    for end in ("/bin/pyleak", "/man1/pyleak.1.gz", "/man1/pyleak-diff.1.gz", "/man7/pyleak-output.7.gz",
                "/completions/pyleak", "/vendor-completions/_pyleak", "/pyleak.fish",
                "/doc/pyleak/copyright"):
        assert any(name.endswith(end) for name in files), (end, files)
    with Leaking(roots.enter(debian, "python3", "/leak.py")) as leaking:
        assert_finds_the_leak(debian, "pyleak", leaking.pid)
    roots.run(debian, "apt-get", "purge", "-y", "-q", "--autoremove", "pyleak")
    assert roots.run(debian, "dpkg-query", "-f", "${Package}\n", "-W").stdout == before
    assert not [name for name in files if (debian / name[1:]).exists()]


def test_static_is_alone(empty):
    """A dynamic program would not even start there."""
    version, facts = roots.run(empty, "/pyleak", "--version").stdout.splitlines()
    assert version.startswith("pyleak ") and facts.startswith("x86_64, static; gcc "), facts
    assert sorted(path.name for path in empty.iterdir()) == ["proc", "pyleak"]


@pytest.mark.parametrize("engine", ["inline", "breakpoint"])
def test_static_from_an_empty_root(empty, tmp_path, engine):
    """As from a debug container that has nothing: the program is in another file system."""
    (tmp_path / "leak.py").write_text(LEAK)
    with Leaking([sys.executable, str(tmp_path / "leak.py")]) as leaking:
        listed = [json.loads(line) for line in roots.run(empty, "/pyleak", "ps", "--format", "json").stdout.splitlines()]
        assert any(row["pid"] == leaking.pid and row["attachable"] for row in listed), listed
        assert_finds_the_leak(empty, "/pyleak", leaking.pid, "--engine", engine)
        text = roots.run(empty, "/pyleak", "diff", leaking.pid, "-i", "500ms", "-n", "1").stdout
        assert "kept.extend([bytes(1000 + i) for i in range(50)])" in text, text


def test_static_serves(empty, tmp_path):
    """--listen, with a server that has no library of its own either."""
    (tmp_path / "leak.py").write_text(LEAK)
    with Leaking([sys.executable, str(tmp_path / "leak.py")]) as leaking:
        command = roots.enter(empty, "/pyleak", "attach", leaking.pid, "--duration", "1m", "--listen", "0", "--verbose")
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              text=True) as recording:
            address = next(line.split()[-1] for line in recording.stderr if "metrics are at" in line)
            metrics = urllib.request.urlopen(address, timeout=10).read().decode()  # a loopback address
            recording.terminate()
            recording.stderr.read()
    assert recording.returncode == 0
    assert "leak.py" in metrics and metrics.endswith("# EOF\n"), metrics


def test_static_copied_into_a_container(program, debian):
    """As by `kubectl cp`, beside a Python that has none of our libraries."""
    shutil.copy(program, debian / "tmp" / "pyleak")
    with Leaking(roots.enter(debian, "python3", "/leak.py")) as leaking:
        assert_finds_the_leak(debian, "/tmp/pyleak", leaking.pid)


def test_the_same_to_the_byte(wheel, tmp_path):
    """From a clone that lies elsewhere, at another time."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "clone")], check=True)
    subprocess.run("git -C %s diff HEAD | git -C %s apply --allow-empty" % (ROOT, tmp_path / "clone"), shell=True, check=True)
    output = subprocess.run([tmp_path / "clone" / "tools" / "package", "--wheel", "--output", str(tmp_path / "dist")], text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout
    again = pathlib.Path(output.splitlines()[-1])
    assert again.name == wheel.name and again.read_bytes() == wheel.read_bytes()


def test_what_is_linked_into_the_static_program(program):
    """As CycloneDX has it, and no library that it does not name."""
    bill = json.loads(program.with_name(program.name + ".cdx.json").read_text())
    names = {component["name"]: component for component in bill["components"]}
    assert {"elfutils", "capstone", "libunwind", "libmicrohttpd", "glibc", "libzstd", "ncurses"} <= set(names), set(names)
    assert all(component["version"] and component["purl"].startswith("pkg:deb/debian/") for component in names.values())


MARKED = """
import pytest
KEPT = []

@pytest.mark.limit_leak("1 MB")
def test_that_leaks():
    KEPT.extend([bytes(1000) for _ in range(3000)])

@pytest.mark.limit_leak("100 KB")
def test_that_drops():
    return None if [bytes(1000) for _ in range(3000)] else 1
"""


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_wheel(wheel, tmp_path, installer):
    """In an environment of its own: the program, its manual and completions, and the plugin of pytest."""
    environment = tmp_path / "venv"
    python = environment / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    if installer == "uv":
        subprocess.run(pip + ["uv"], check=True)
        subprocess.run([str(environment / "bin" / "uv"), "pip", "install", "-q", "--python", str(python), str(wheel), "pytest"],
                       check=True)
    else:
        subprocess.run(pip + [str(wheel), "pytest"], check=True)
    for path in ("bin/pyleak", "share/man/man1/pyleak.1", "share/man/man1/pyleak-diff.1",
                 "share/bash-completion/completions/pyleak",
                 "share/zsh/site-functions/_pyleak", "share/fish/vendor_completions.d/pyleak.fish"):
        assert (environment / path).is_file(), path
    (tmp_path / "leak.py").write_text(LEAK)
    started = subprocess.run([str(environment / "bin" / "pyleak"), "run", "-d", "2s", "--format", "json", "-o",
                              str(tmp_path / "report.json"), "--", "timeout", "6", sys.executable, str(tmp_path / "leak.py")],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    assert started.returncode == 124, started  # that of timeout
    assert any(row["filename"].endswith("leak.py") and row["lineno"] == 6
               for row in json.loads((tmp_path / "report.json").read_text())["stats"])
    (tmp_path / "test_marked.py").write_text(MARKED)
    tested = subprocess.run([str(python), "-m", "pytest", "-q", "--pyleak", "-p", "no:cacheprovider", str(tmp_path / "test_marked.py")],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    assert tested.returncode == 1 and "1 failed, 1 passed" in tested.stdout, tested.stdout
    assert "live memory grew by" in tested.stdout and "test_marked.py:7: +" in tested.stdout, tested.stdout
    unmarked = subprocess.run([str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "test_marked.py")],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    assert unmarked.returncode == 0, unmarked.stdout
