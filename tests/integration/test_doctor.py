# SPDX-License-Identifier: MIT
"""`pyleak doctor`: each condition of attaching made to fail for real, what it says then, that its commands
help, and that attach refuses for the same reason. The process is never touched."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import pytest

from helpers import BUILD, PATIENCE, PYLEAK, VICTIMS, Trace, Victim, probe_maps, skip_here, status, wait_until

UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc"]
CHECKS = ["alive", "program", "tracer", "permission", "memory", "sandbox", "python", "kernel", "space", "headroom",
          "calls", "probe"]
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
WAITS = "import sys; print('ready', flush=True); sys.stdin.read()"


def run(*command, **keywords):
    return subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=60 * PATIENCE, check=False, **keywords)


def doctor(pid, prefix=(), program=PYLEAK):
    """What it finds: {name: check}. The text must say the same."""
    answer = run(*prefix, program, "doctor", pid, "--format", "json")
    assert answer.stderr == "" and answer.stdout.count("\n") == 1, answer
    document = json.loads(answer.stdout)
    assert (document["schema"], document["kind"], document["pid"]) == (1, "doctor", pid)
    checks = {check["name"]: check for check in document["checks"]}
    assert list(checks) == CHECKS
    assert document["attachable"] == all(check["outcome"] == "pass" for check in checks.values())
    assert answer.returncode == (0 if document["attachable"] else 1)
    text = run(*prefix, program, "doctor", pid)
    assert text.returncode == answer.returncode
    for name, check in checks.items():
        word = {"pass": "ok", "fail": "no", "not checked": "- "}[check["outcome"]]
        assert "  %s  %-10s  " % (word, name) in text.stdout
        for remedy in check["remedies"]:
            assert "$ %s\n" % remedy in text.stdout
    return checks


def assert_fails(checks, name, *words):
    """Only this check fails, and says so in these words."""
    assert [check["name"] for check in checks.values() if check["outcome"] == "fail"] == [name], checks
    for word in words:
        assert word in checks[name]["text"]


def assert_refused(pid, text, prefix=(), program=PYLEAK):
    """attach asks the same questions and gives the same answer."""
    answer = run(*prefix, program, "attach", pid, "-d", "1s")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr == "pyleak: %s\n" % text


@pytest.fixture
def folder():
    """Everybody's, unlike the build directory and pytest's: another user can run the pyleak in it."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="pyleak-test-", dir="/tmp"))
    path.chmod(0o755)
    shutil.copy(PYLEAK, path)
    yield path
    shutil.rmtree(path)


def need_root():
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        skip_here("user")


def test_healthy(host):
    victim = host()
    before = Trace(victim.pid)
    checks = doctor(victim.pid)
    assert all(check["outcome"] == "pass" and check["text"] and not check["remedies"] for check in checks.values())
    assert "/python3" in checks["python"]["text"]
    assert checks["probe"]["text"] == "none"
    assert re.match(r"[\d.]+ [KMG]iB left of (its cgroup's|the machine's) [\d.]+ [KMG]iB;", checks["headroom"]["text"])
    assert not before.differences(victim.pid)
    victim.check()


def test_without_a_pid_the_only_python(folder):
    """Even one that cannot be attached to: that is what it is asked about."""
    if os.geteuid() != 0 or run(*UNSHARE, "true").returncode:
        skip_here("namespaces")
    script = "/usr/bin/python3 -c 'import time; time.sleep(60)' & sleep 1; exec %s %s/pyleak doctor" % (
        " ".join(NOBODY), folder)
    answer = run(*UNSHARE, "sh", "-c", script)
    assert answer.returncode == 1 and answer.stderr == "", answer
    assert "belongs to user 0 and you are user 65534" in answer.stdout
    assert "$ sudo pyleak attach 2\n" in answer.stdout


def test_kept_probe(host):
    victim = host()
    assert run(PYLEAK, "attach", victim.pid, "--keep").returncode == 0
    try:
        assert "go on with it" in doctor(victim.pid)["probe"]["text"]
    finally:
        assert run(PYLEAK, "detach", victim.pid).returncode == 0
    victim.check()


def test_recorded_by_another(host):
    victim = host()
    with subprocess.Popen([PYLEAK, "attach", str(victim.pid)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as other:
        try:
            # Before and while it plants, other things may be said first; when its probe is there and it is no tracer, it has.
            wait_until(lambda: probe_maps(victim.pid) and status(victim.pid)["TracerPid"] == "0", 20, "the other one records")
            assert_refused(victim.pid, doctor(victim.pid)["probe"]["text"])
        finally:
            other.terminate()
            other.communicate()
    victim.check()


def test_other_user(host, folder):
    need_root()
    victim = host()
    checks = doctor(victim.pid, NOBODY, folder / "pyleak")
    assert_fails(checks, "permission", "belongs to user 0 and you are user 65534")
    assert checks["permission"]["remedies"] == [
        "sudo pyleak attach %d" % victim.pid,
        "sudo setpriv --reuid=0 --regid=0 --clear-groups pyleak attach %d" % victim.pid]
    assert checks["sandbox"]["outcome"] == "pass" and checks["python"]["outcome"] == "not checked"
    assert_refused(victim.pid, checks["permission"]["text"], NOBODY, folder / "pyleak")


def test_root_without_the_capability(folder):
    """What it advises does help."""
    need_root()
    weak = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]
    with Victim(NOBODY[0], None, *NOBODY[1:], "/usr/bin/python3", "-c", WAITS) as victim:
        checks = doctor(victim.pid, weak)
        assert_fails(checks, "permission", "you are root without CAP_SYS_PTRACE")
        remedy = checks["permission"]["remedies"][0]
        assert remedy == "setpriv --reuid=65534 --regid=65534 --clear-groups pyleak attach %d" % victim.pid
        path = "%s:%s" % (folder, os.environ["PATH"])
        answer = run(*weak, "sh", "-c", remedy + " -d 100ms", env={**os.environ, "PATH": path})
        assert answer.returncode == 0, answer


def test_container_without_the_capability():
    need_root()
    if run(*UNSHARE, "true").returncode:
        skip_here("namespaces")
    script = ("%s /usr/bin/python3 -c 'import time; time.sleep(60)' & sleep 1; "
              "exec setpriv --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace %s doctor" % (" ".join(NOBODY), PYLEAK))
    answer = run(*UNSHARE, "sh", "-c", script)
    assert answer.returncode == 1 and "you are root without CAP_SYS_PTRACE" in answer.stdout, answer
    assert "$ docker run -it --rm --pid=container:NAME --cap-add=SYS_PTRACE IMAGE pyleak attach 2\n" in answer.stdout
    assert ("$ kubectl debug -it POD --image=IMAGE --target=CONTAINER --profile=general -- pyleak attach 2\n"
            in answer.stdout)


def test_yama(folder):
    """Yama's file is made up, in a mount namespace of pyleak's own, and what the kernel refuses for another reason
    (the process is not dumpable) is put down to it."""
    need_root()
    hide = "import ctypes; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); " + WAITS
    yama = ("mount -t tmpfs none /proc/sys/kernel && mkdir /proc/sys/kernel/yama && "
            "echo 1 > /proc/sys/kernel/yama/ptrace_scope && exec %s \"$@\"" % " ".join(NOBODY))
    prefix = ["unshare", "--mount", "sh", "-c", yama, "sh"]
    if run(*prefix, "true").returncode:
        skip_here("namespaces")
    with Victim(NOBODY[0], None, *NOBODY[1:], "/usr/bin/python3", "-c", hide) as victim:
        assert_fails(doctor(victim.pid, NOBODY, folder / "pyleak"), "permission", "not dumpable")
        checks = doctor(victim.pid, prefix, folder / "pyleak")
        assert_fails(checks, "permission", "/proc/sys/kernel/yama/ptrace_scope is 1")
        assert checks["permission"]["remedies"] == [
            "sudo pyleak attach %d" % victim.pid, "sudo sysctl kernel.yama.ptrace_scope=0"]


def test_tracer(host):
    victim = host()
    with subprocess.Popen([str(BUILD / "tests" / "victims" / "tracer"), str(victim.pid)],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tracer:
        assert tracer.stdout.readline() == b"traced\n"
        checks = doctor(victim.pid)
        assert_fails(checks, "tracer", "already traced by process %d (tracer)" % tracer.pid)
        assert checks["python"]["outcome"] == "pass", "it can be looked into all the same"
        tracer.stdin.close()
        tracer.wait()
    victim.check()


def test_filter_of_the_program():
    if os.geteuid() != 0 or run(*UNSHARE, "true").returncode:
        skip_here("namespaces")
    answer = run(*UNSHARE, sys.executable, VICTIMS / "container.py", "own", PYLEAK, "doctor", "{}", "--format", "json")
    document = json.loads(answer.stdout)
    checks = {check["name"]: check for check in document["checks"]}
    assert answer.returncode == 1
    assert_fails(checks, "sandbox", "not just its container's")
    remedies = "\n".join(checks["sandbox"]["remedies"])
    assert "--pid=container:NAME --privileged IMAGE pyleak attach" in remedies and "--profile=sysadmin" in remedies


def test_not_python():
    with subprocess.Popen(["sleep", "60"]) as process:
        checks = doctor(process.pid)
        assert_fails(checks, "python", "is not a Python process")
        assert_refused(process.pid, checks["python"]["text"])
        process.kill()


def test_unknown_version():
    """A Python of the future: one whose version number was changed under it."""
    script = ("import ctypes; print('ready', flush=True); "
              "print(ctypes.addressof(ctypes.c_ulong.in_dll(ctypes.pythonapi, 'Py_Version')), flush=True); "
              "import sys; sys.stdin.read()")
    with Victim("/usr/bin/python3", None, "-c", script) as victim:
        address = int(victim.line())
        with open("/proc/%d/mem" % victim.pid, "r+b", buffering=0) as memory:
            memory.seek(address)
            memory.write(0x03630000.to_bytes(8, "little"))
        checks = doctor(victim.pid)
        assert_fails(checks, "python", "3.99", "CPython 3.6 to 3.15")
        assert_refused(victim.pid, checks["python"]["text"])


def test_32_bit():
    program = BUILD / "tests" / "victims" / "narrow"
    if not program.exists():
        skip_here("32-bit", "the compiler cannot")
    try:
        process = subprocess.Popen([str(program)])
    except OSError as error:
        skip_here("32-bit", str(error))
    with process:
        checks = doctor(process.pid)
        assert_fails(checks, "program", "32-bit")
        assert checks["python"]["outcome"] == "not checked"
        process.kill()


def test_address_space():
    """attach says the same, though it asks in another place."""
    script = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); " + WAITS
    with Victim("/usr/bin/python3", None, "-c", script) as victim:
        checks = doctor(victim.pid)
        assert_fails(checks, "space", "may map only", "--engine breakpoint")
        answer = run(PYLEAK, "attach", victim.pid, "-d", "1s")
        assert answer.returncode == 1 and "too little for the recorder" in answer.stderr


def test_memory_of_the_parent(tmp_path):
    """Between vfork() and exec() a child has its parent's memory: to hook it is to hook the parent."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = ("import os, sys\n"
              "print('ready', flush=True)\n"
              "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}, "
              "file_actions=[(os.POSIX_SPAWN_OPEN, 3, sys.argv[1], os.O_RDONLY, 0)]), 0)\n"
              "print('ended', flush=True)\n")
    with Victim("/usr/bin/python3", None, "-c", script, fifo) as victim:
        children = "/proc/%d/task/%d/children" % (victim.pid, victim.pid)
        while not (child := open(children).read().strip()):
            pass
        checks = doctor(int(child))
        assert_fails(checks, "memory", "shares its memory with its parent %d" % victim.pid)
        assert_refused(int(child), checks["memory"]["text"])
        os.close(os.open(fifo, os.O_WRONLY))
        assert victim.line() == "ended"


def test_no_process():
    with subprocess.Popen(["true"]) as process:
        process.wait()
    answer = run(PYLEAK, "doctor", process.pid)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr == "pyleak: no process %d: see 'pyleak ps'\n" % process.pid


def test_zombie():
    with subprocess.Popen(["sleep", "60"]) as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        checks = doctor(process.pid)
        assert_fails(checks, "alive", "is a zombie")
        assert {name for name, check in checks.items() if check["outcome"] != "not checked"} == {"alive", "kernel"}
