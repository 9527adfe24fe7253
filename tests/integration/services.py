# SPDX-License-Identifier: MIT
"""The services of doc/tutorial.md, tests/services: with a leak each, but for one."""
import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time

from helpers import ROOT, pyleak, skip_here, wait_until

FOLDER = ROOT / "tests" / "services"
SERVED = ("importer", "audit", "chat", "healthy", "cached", "reports")
MODULES = {"importer": "flask", "reports": "gunicorn", "samples": "pandas"}


def line_of(name, text):
    """The number of the line of a service that has this text in it."""
    lines = (FOLDER / (name + ".py")).read_text().splitlines()
    found = [number for number, line in enumerate(lines, 1) if text in line]
    assert len(found) == 1, (name, text, found)
    return found[0]


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


# As large as those of traffic.py: a cache that is full of smaller ones grows until it has been gone round.
BODY = "\n".join("0,%d,name %d" % (line, line) for line in range(40))


def answers(port):
    """Whether it takes requests, and answers one."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("POST", "/import", BODY, {"X-Request-Id": "0"})
        connection.getresponse().read()
        connection.close()
    except OSError:
        return False
    return True


SLEEPS = ("7", "23", "35", "230", "270", "271")  # poll, select, nanosleep, clock_nanosleep, pselect6, ppoll


def pauses(pid, looks=4):
    """Whether its main thread sleeps each time that it is looked at: it has imported what it needs, and is at its work."""
    for look in range(looks):
        if look:
            time.sleep(0.01)
        with open("/proc/%d/syscall" % pid) as file:
            if file.read().split()[0] not in SLEEPS:
                return False
    return True


@contextlib.contextmanager
def running(name, python, folder=FOLDER, per_second=100, warm=0):
    """The service, after so many requests, and requests for it, where it serves any: its process."""
    module = MODULES.get(name)
    if module and subprocess.run([python, "-c", "import " + module], stderr=subprocess.DEVNULL, check=False).returncode:
        skip_here("services", module)
    port = str(free_port())
    command = [python, os.path.join(str(folder), name + ".py")] + ([port] if name in SERVED else [])
    if name == "reports":
        command = [python, "-m", "gunicorn", "-w", "2", "-b", "127.0.0.1:" + port, "reports:application"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    processes = [subprocess.Popen(command, cwd=str(folder), **quiet)]
    try:
        if name in SERVED:
            wait_until(lambda: answers(int(port)), 20, name + " answers")
            for _ in range(warm):
                assert answers(int(port))
            processes.append(subprocess.Popen([sys.executable, str(FOLDER / "traffic.py"), port, str(per_second)], **quiet))
        wait_until(lambda: pyleak("doctor", processes[0].pid).status == 0, 20, name + " has begun")
        if name not in SERVED:
            wait_until(lambda: pauses(processes[0].pid), 20, name + " is at its work")
        yield processes[0]
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait()
