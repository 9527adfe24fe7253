# SPDX-License-Identifier: MIT
"""--children with the servers that it is for, as Debian has them: one table, one row, the growth of every worker; a
worker that is killed meanwhile, and the one that takes its place."""
import contextlib
import json
import os
import signal
import socket
import subprocess

import pytest

from helpers import PATIENCE, Pyleak, skip_here, wait_until

SERVICE = ("CACHE = []\n"
           "def app(environment, start_response):\n"
           "    CACHE.append(environment['QUERY_STRING'] * 1000)  # leaks here\n"
           "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
           "    return [b'ok']\n")
REQUESTS = ("import http.client, sys\n"
            "i = 0\n"
            "while True:\n"
            "    try:\n"
            "        connection = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]))\n"
            "        connection.request('GET', '/?%08d' % i)\n"
            "        assert connection.getresponse().read() == b'ok'\n"
            "        connection.close()\n"
            "        i += 1\n"
            "    except OSError:\n"
            "        pass  # its worker was killed\n")
TASKS = ("import celery, pathlib\n"
         "queue = str(pathlib.Path(__file__).parent / 'queue')\n"
         "app = celery.Celery('service', broker='filesystem://')\n"
         "app.conf.update(broker_transport_options={'data_folder_in': queue, 'data_folder_out': queue},\n"
         "                worker_hijack_root_logger=False)\n"
         "CACHE = []\n"
         "@app.task(ignore_result=True)\n"
         "def work(i):\n"
         "    CACHE.append(str(i) * 5000)  # leaks here\n"
         "    pathlib.Path(queue, '../begun').touch()\n")
ORDERS = ("import itertools, service, time\n"
          "for i in itertools.count(1000):\n"
          "    service.work.delay(i)\n"
          "    time.sleep(0.01)\n")
DEBIAN = "/usr/bin/python3"


@contextlib.contextmanager
def running(folder, command, clients):
    """A server in its folder, and what keeps it busy."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    everything = {"cwd": folder, "env": environment, "stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(command, stderr=log, **everything)
    busy = []
    try:
        for client in clients:
            busy.append(subprocess.Popen([DEBIAN, "-c", *client], stderr=subprocess.DEVNULL, **everything))
        yield server
    finally:
        for process in busy:
            process.kill()
            process.wait()
        server.send_signal(signal.SIGINT if "uwsgi" in command[0] else signal.SIGTERM)
        try:
            server.wait(30 * PATIENCE)
        finally:
            server.kill()


def listens(port):
    with contextlib.closing(socket.socket()) as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def free_port():
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def workers_of(server):
    with open("/proc/%d/task/%d/children" % (server.pid, server.pid)) as file:
        return [int(pid) for pid in file.read().split()]


def place(row):
    return os.path.basename(row["filename"]), row["lineno"]


def check(server, leak, workers):
    """Differences: one of all workers, then one of them is killed, then with its successor, for which a busy machine may
    take its time, and until they grow again: that one of a worker's end can fall."""
    documents = []
    with Pyleak("diff", server.pid, "--children", "-i", "2s", "-c", 15, "--format", "json",
                prefix=["stdbuf", "-oL"]) as watching:
        victim = None
        for line in watching.process.stdout:
            document = json.loads(line)
            documents.append(document)
            if not victim:
                victim = next(pid for pid in workers_of(server) if pid in document["pids"])
                os.kill(victim, signal.SIGKILL)
            elif victim not in document["pids"] and len(document["pids"]) == workers + 1 and \
                    place(document["stats"][0]) == leak and document["stats"][0]["size_diff"] > 0:
                break
        watching.process.send_signal(signal.SIGINT)
        assert watching.finish().status == 0
    for document in documents:
        rows = {place(row): row for row in document["stats"]}
        # What the server says of a worker's end has a traceback, and that sources of its own: in that window they grow more.
        if document in (documents[0], documents[-1]):
            assert next(iter(rows)) == leak
        others = [row["size"] for where, row in rows.items() if where[1] and where != leak and where[0] != "linecache.py"]
        assert rows[leak]["size"] > 5 * sum(others)
    first, last = documents[0], documents[-1]
    assert first["stats"][0]["size_diff"] > 0 and last["stats"][0]["size_diff"] > 0
    assert len(first["pids"]) == workers + 1 and len(last["pids"]) == workers + 1
    assert victim in documents[1]["pids"] and victim not in last["pids"]
    assert set(last["pids"]) - set(first["pids"]), "the new worker is recorded too"


@pytest.mark.parametrize("name", ["gunicorn", "uwsgi"])
def test_web_server(tmp_path, name):
    port = free_port()
    address = "127.0.0.1:%d" % port
    commands = {
        "gunicorn": ["/usr/bin/gunicorn", "--workers", "4", "--bind", address, "--no-sendfile", "service:app"],
        "uwsgi": ["/usr/bin/uwsgi", "--plugin", "python3", "--master", "--processes", "4", "--http-socket", address,
                  "--wsgi-file", "service.py", "--callable", "app", "--disable-logging", "--need-app"],
    }
    if name == "uwsgi" and not os.path.exists("/usr/lib/uwsgi/plugins/python3_plugin.so"):
        skip_here("uwsgi")
    (tmp_path / "service.py").write_text(SERVICE)
    with running(tmp_path, commands[name], [(REQUESTS, str(port))] * 2) as server:
        wait_until(lambda: listens(port), 10, "the server listens")
        check(server, ("service.py", 3), 4)


def test_celery(tmp_path):
    if subprocess.run([DEBIAN, "-c", "import celery"], stderr=subprocess.DEVNULL, check=False).returncode:
        skip_here("celery")
    (tmp_path / "queue").mkdir()
    (tmp_path / "service.py").write_text(TASKS)
    command = [DEBIAN, "-m", "celery", "-A", "service", "worker", "--concurrency", "3", "--without-gossip",
               "--without-mingle", "--without-heartbeat"]
    with running(tmp_path, command, [(ORDERS,)]) as server:
        wait_until(lambda: len(workers_of(server)) == 3, 20, "three workers")
        wait_until((tmp_path / "begun").exists, 20, "work")
        check(server, ("service.py", 9), 3)
