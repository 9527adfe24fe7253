# SPDX-License-Identifier: MIT
"""--listen and --format openmetrics: what Prometheus makes of them."""
import base64
import collections
import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request

import pytest

import helpers
import terminals
import test_exports
from helpers import VICTIMS, Pyleak, Victim, line_of, pyleak, wait_clean, wait_hooked, wait_until

LEAK = str(VICTIMS / "leak.py")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(port, path="/metrics", method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10 * helpers.PATIENCE)
    connection.request(method, path)
    response = connection.getresponse()
    body = response.read().decode(errors="replace")
    connection.close()
    return response, body


def samples(text):
    """{name: {labels: value}}, as the strict parser of the Prometheus project reads it."""
    parser = pytest.importorskip("prometheus_client.openmetrics.parser", reason="may skip: no prometheus_client")
    found = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(sorted((key, value) for key, value in sample.labels.items() if key not in ("pid", "host")))
            assert labels not in found.setdefault(sample.name, {}), "twice: %s" % (sample,)
            found[sample.name][labels] = sample.value
    return found


def leak_labels():
    return tuple(sorted({"domain": "python", "filename": LEAK, "lineno": str(line_of(LEAK, "# leaks here"))}.items()))


@pytest.mark.usefixtures("engine")
def test_a_scrape_is_what_is_live_then(one_python):
    port = free_port()
    with Victim(one_python, "leak.py") as victim:
        with Pyleak("attach", victim.pid, "--engine", helpers.engine, "--listen", port, "-n", 0, "--format", "json") as running:
            wait_hooked(victim.pid, running)
            for leaked in (300, 800):
                victim.tell("leak %d" % (leaked - (300 if leaked > 300 else 0)))
                assert victim.line(60) == "leaked"
                response, body = get(port)
                assert response.status == 200
                assert response.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
                assert body.endswith("# EOF\n")
                assert samples(body)["pyleak_live_blocks"][leak_labels()] == leaked
                assert samples(body)["pyleak_allocated_blocks_total"][leak_labels()] == leaked
            assert get(port, "/nothing")[0].status == 404
            assert get(port, method="POST")[0].status == 405
            assert get(port, method="HEAD")[1] == ""
            # Who says nothing, or does not listen, is in nobody's way.
            with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)) as rude:
                rude.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
                assert get(port)[0].status == 200
            result = running.finish(signal=15)
        assert result.status == 0, result
        wait_clean(victim.pid, 1)
    row = next(row for row in result.json()["stats"] if row["filename"] == LEAK and "leak" == row["function"])
    assert row["count"] == 800


def test_rows_are_bounded(one_python):
    port = free_port()
    with Victim(one_python, "leak.py") as victim:
        with Pyleak("attach", victim.pid, "--listen", "127.0.0.1:%d" % port, "-n", 2) as running:
            wait_hooked(victim.pid, running)
            time.sleep(0.3)
            found = samples(get(port)[1])
            assert all(len(found[name]) <= 2 for name in found)
            assert sum(found["pyleak_rows"].values()) > 2
            running.finish(signal=15)


def test_the_address_is_taken(one_python):
    """It is said before the process is touched."""
    with Victim(one_python, "leak.py") as victim, socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        result = pyleak("attach", victim.pid, "--listen", other.getsockname()[1], "-d", "1s", "-v")
        assert result.status == 1 and "Address already in use" in result.stderr, result
        assert "0 ptrace steps" in result.stderr, result


@pytest.mark.parametrize("arguments", [["-g", "line"], ["-g", "file"], ["-g", "function"], ["-g", "traceback"],
                                       ["--from", "200ms"]], ids=" ".join)
def test_openmetrics(one_python, tmp_path, arguments):
    """Of hostile names too: every series once, and the figures of json."""
    tape = tmp_path / "names.pyleak"
    with Victim(one_python, "hostile_names.py") as victim:
        with Pyleak("attach", victim.pid, "-i", "200ms", "-d", "800ms", "-o", tape) as running:
            wait_hooked(victim.pid, running)
            victim.tell("leak")
            assert victim.line() == "leaked"
            assert running.finish().status == 0
    document = json.loads(pyleak("report", tape, "--format", "json", "-n", 0, *arguments).stdout)
    found = samples(pyleak("report", tape, "--format", "openmetrics", "-n", 0, *arguments).stdout)
    assert sorted(found["pyleak_live_bytes"].values()) == sorted(row["size"] for row in document["stats"])
    assert found["pyleak_tracked_live_blocks"][()] == document["total"]["count"]
    if document["kind"] == "diff":
        assert sum(found["pyleak_growth_bytes"].values()) == document["total"]["size_diff"]
        assert "pyleak_allocated_bytes_total" not in found
    assert len(pyleak("report", tape, "--format", "openmetrics", "-o", "-").stdout.splitlines()) < 200


def test_prometheus(one_python, tmp_path):
    """Debian's, with a configuration of five lines."""
    if not shutil.which("prometheus"):
        helpers.skip_here("prometheus")
    port, own = free_port(), free_port()
    config = {"global": {"scrape_interval": "1s"},
              "scrape_configs": [{"job_name": "pyleak", "static_configs": [{"targets": ["127.0.0.1:%d" % port]}]}]}
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    command = ["prometheus", "--config.file=%s" % (tmp_path / "prometheus.yml"), "--storage.tsdb.path=%s" % (tmp_path / "data"),
               "--web.listen-address=127.0.0.1:%d" % own, "--log.level=warn"]

    def ask(query):
        address = "http://127.0.0.1:%d/api/v1/query?%s" % (own, urllib.parse.urlencode({"query": query}))
        try:
            with urllib.request.urlopen(address, timeout=5) as response:
                return json.load(response)["data"]["result"]
        except OSError:
            return []

    with Victim(one_python, "leak.py") as victim, \
            Pyleak("attach", victim.pid, "--listen", "127.0.0.1:%d" % port, "-n", 5) as running, \
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as prometheus:
        try:
            wait_hooked(victim.pid, running)
            victim.tell("leak 600")
            assert victim.line() == "leaked"
            query = 'pyleak_live_blocks{job="pyleak",filename="%s",lineno="%d"}' % (LEAK, line_of(LEAK, "# leaks here"))
            wait_until(lambda: [found for found in ask(query) if found["value"][1] == "600"], 30, "600 blocks in Prometheus")
            assert ask('up{job="pyleak"}')[0]["value"][1] == "1"
            assert ask("pyleak_recording_info")[0]["metric"]["engine"] == "inline"
            assert running.finish(signal=15).status == 0
        finally:
            prometheus.terminate()
            prometheus.communicate()


def test_not_with_keep():
    result = pyleak("attach", 1, "--keep", "--listen", "9810")
    assert result.status == 2 and "--listen needs a pyleak that stays" in result.stderr


@pytest.fixture
def leaking(one_python):
    """A port where pyleak answers for a program that leaks at one line, and drops much at another."""
    code = ("import time\nkept = []\ndef leaker():\n    kept.append(bytes(3000))\n"
            "def churner():\n    for _ in range(50): bytes(20000)\nwhile True:\n    leaker(); churner(); time.sleep(0.001)\n")
    port = free_port()
    with Pyleak("run", "--listen", port, "-n", 0, "--", one_python, "-c", code) as running:
        wait_until(lambda: answers(port), 30, "an answer")
        yield port
        result = running.finish(signal=15)
    assert result.status == 128 + 15, result


def answers(port):
    """Whether it is the page that was asked for; None: nobody answers."""
    try:
        return get(port)[0].status == 200
    except OSError:
        return None


def top_of(url, home):
    """The first function of `go tool pprof -top`, and the type of what it counts."""
    if not shutil.which("go"):
        helpers.skip_here("go")
    # From 1.25 on it is compiled when it is first called: once, and not once for each folder.
    cache = subprocess.run(["go", "env", "GOCACHE"], check=True, text=True, stdout=subprocess.PIPE).stdout.strip()
    output = subprocess.run(["go", "tool", "pprof", "-top", "-nodecount=1", url], stdin=subprocess.DEVNULL, check=True, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env=dict(os.environ, HOME=str(home), GOCACHE=cache, PPROF_TMPDIR=str(home))).stdout
    kind = next(line.split(": ")[1] for line in output.splitlines() if line.startswith("Type: "))
    return kind, output.splitlines()[-1].split()[-1]


def test_profiles_as_go_has_them(leaking, tmp_path):
    """What fetches profiles of Go programs fetches these: live, allocated, and what grew meanwhile."""
    url = "http://127.0.0.1:%d/debug/pprof/" % leaking
    assert top_of(url + "heap?seconds=2", tmp_path) == ("inuse_space", "leaker")
    assert top_of(url + "allocs?seconds=1", tmp_path) == ("alloc_space", "churner")
    wait_until(lambda: top_of(url + "heap", tmp_path) == ("inuse_space", "leaker"), 60, "the leak is on top of what is live")
    assert top_of(url + "allocs", tmp_path) == ("alloc_space", "churner")


def test_difference_waits_and_is_no_hindrance(leaking):
    """Eight may wait; who else asks for a difference is told so, and all others are answered meanwhile."""
    waiting = [http.client.HTTPConnection("127.0.0.1", leaking, timeout=60 * helpers.PATIENCE) for _ in range(8)]
    started = time.monotonic()
    for connection in waiting:
        connection.request("GET", "/debug/pprof/heap?seconds=3")
    assert wait_until(lambda: get(leaking, "/debug/pprof/heap?seconds=1")[0].status == 503, 2, "the ninth is sent away")
    assert get(leaking)[0].status == 200
    for connection in waiting:
        response = connection.getresponse()
        assert response.status == 200 and response.read()[:2] == b"\x1f\x8b"
        connection.close()
    assert time.monotonic() - started >= 2.9
    for wrong in ("0", "-1", "601", "x", ""):
        assert get(leaking, "/debug/pprof/heap?seconds=" + wrong)[0].status == 400


def test_client_that_goes_while_it_waits(leaking):
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", leaking)) as client:
            client.sendall(b"GET /debug/pprof/heap?seconds=600 HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.05)
    assert get(leaking)[0].status == 200


def test_report_and_json(leaking):
    response, page = get(leaking, "/")
    assert response.headers["Content-Type"] == "text/html; charset=utf-8" and "leaker" in page and page.startswith("<!DOCTYPE html>")
    response, text = get(leaking, "/report.json")
    assert response.headers["Content-Type"] == "application/json"
    assert any(row["function"] == "leaker" for row in json.loads(text)["stats"])


def test_the_page_leads_to_the_others(leaking, tmp_path):
    """Where it is served; that of a file has no links (test_exports.py)."""
    page = test_exports.open_page("http://127.0.0.1:%d/" % leaking, tmp_path)
    for path in ("/metrics", "/report.json", "/debug/pprof/heap", "/debug/pprof/allocs"):
        assert '<a href="%s">' % path in page


def test_socket_in_the_file_system(one_python, tmp_path):
    """Its owner's alone, and gone at the end."""
    path = tmp_path / "socket"
    with Victim(one_python, "leak.py") as victim:
        with Pyleak("attach", victim.pid, "--listen", "unix:%s" % path) as running:
            wait_hooked(victim.pid, running)
            assert path.stat().st_mode & 0o777 == 0o600
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = b"".join(iter(lambda: client.recv(65536), b""))
            assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"# EOF\n")
            result = running.finish(signal=15)
        assert result.status == 0 and not path.exists(), result


def test_many_requests(leaking):
    """At fifty in parallel, slow clients among them: all are answered, or told to come again. (10,000 take a minute.)"""
    each = int(os.environ.get("PYLEAK_REQUESTS", "500")) // 50
    slow = [socket.create_connection(("127.0.0.1", leaking)) for _ in range(5)]
    for client in slow:
        client.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
    statuses = collections.Counter()

    def ask(count):
        for _ in range(count):
            try:
                statuses[get(leaking)[0].status] += 1
            except OSError:
                statuses["refused"] += 1

    threads = [threading.Thread(target=ask, args=(each,)) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for client in slow:
        client.close()
    assert sum(statuses.values()) == 50 * each and statuses[200] > 45 * each, statuses
    assert get(leaking)[0].status == 200


def test_while_the_live_view_is_up(one_python, tmp_path):
    port = free_port()
    with Victim(one_python, "leak.py") as victim:
        with terminals.Frozen(helpers.PYLEAK, "attach", victim.pid, "--listen", port) as view:
            wait_until(lambda: view.read() is not None and answers(port), 30, "an answer")
            for _ in range(3):
                response, body = get(port)
                assert response.status == 200 and body.endswith("# EOF\n")
                view.read()
            os.write(view.master, b"q")
            view.read_all()
            assert view.process.wait() == 0
        wait_clean(victim.pid, 1)


TOKEN = "0123456789abcdef-._~+/="


def asked(port, path="/metrics", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10 * helpers.PATIENCE)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def basic(text):
    return "Basic " + base64.b64encode(text.encode()).decode()


def test_token(one_python, tmp_path):
    """Who does not give it gets nothing, at any path; a header may be a password, and any rubbish."""
    port, token = free_port(), tmp_path / "token"
    token.write_text(TOKEN + "\nwhat follows is nobody's\n")
    token.chmod(0o600)
    with Pyleak("run", "--listen", port, "--listen-token", token, "--", one_python, "-c", "import time; time.sleep(600)") as running:
        wait_until(lambda: answers(port) is not None, 30, "an answer")
        for path in ("/", "/metrics", "/report.json", "/debug/pprof/heap", "/debug/pprof/heap?seconds=1", "/nothing"):
            response, body = asked(port, path)
            assert response.status == 401 and response.headers["WWW-Authenticate"].startswith("Basic "), path
            assert TOKEN.encode() not in body
        for wrong in ("", "Bearer", "Bearer ", "Bearer  " + TOKEN, "Bearer " + TOKEN[:-1], "Bearer " + TOKEN * 2, TOKEN,
                      "Bearer \xff", "Basic", "Basic ====", "Basic \x01", "Basic " + "A" * 20000, basic(TOKEN), basic("x:"),
                      basic("x:" + TOKEN[1:]), basic(":" + TOKEN + "\0"), "Digest " + TOKEN):
            assert asked(port, Authorization=wrong)[0].status == 401, wrong
        for right in ("Bearer " + TOKEN, "bearer " + TOKEN, basic("me:" + TOKEN), basic(":" + TOKEN)):
            response, body = asked(port, Authorization=right)
            assert response.status == 200 and body.endswith(b"# EOF\n"), right
        assert asked(port, "/nothing", Authorization="Bearer " + TOKEN)[0].status == 404
        running.finish(signal=15)


def test_token_in_an_address(one_python, tmp_path):
    """go tool pprof takes a user and a password from its URL."""
    port, token = free_port(), tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    token.chmod(0o600)
    code = "import time\nkept = []\ndef leaker():\n    kept.append(bytes(3000))\nwhile True:\n    leaker(); time.sleep(0.001)\n"
    with Pyleak("run", "--listen", port, "--listen-token", token, "--", one_python, "-c", code) as running:
        wait_until(lambda: answers(port) is not None, 30, "an answer")
        assert top_of("http://x:0123456789abcdef@127.0.0.1:%d/debug/pprof/heap?seconds=1" % port, tmp_path)[1] == "leaker"
        running.finish(signal=15)


def test_tokens_that_are_none(tmp_path):
    """Said before anything is started."""
    for text, mode, words in (("short\n", 0o600, "its first line is no token"), ("", 0o600, "its first line is no token"),
                              ("0123456789 abcdef\n", 0o600, "no token"), ("x" * 1025, 0o600, "no token"),
                              ("0123456789abcdef", 0o644, "others may read or change it"),
                              ("0123456789abcdef", 0o620, "others may read or change it"), (None, 0, "No such file"),
                              ("fifo", 0, "not a regular file")):
        path = tmp_path / "token"
        if text == "fifo":
            os.mkfifo(path)
        elif text is not None:
            path.write_text(text)
            path.chmod(mode)
        result = pyleak("attach", os.getpid(), "--listen", free_port(), "--listen-token", path, "-d", "1s", "-v")
        assert result.status == 1 and words in result.stderr and "0 ptrace steps" in result.stderr, result
        path.unlink(missing_ok=True)


class Slow:
    """Connections that ask, or read, a byte at a time, and come back when they are put out."""

    def __init__(self, port, count):
        self.port, self.ended, self.put_out = port, threading.Event(), 0
        self.clients = [self.connect(number) for number in range(count)]
        self.thread = threading.Thread(target=self.drip)
        self.thread.start()

    def connect(self, number):
        client = socket.create_connection(("127.0.0.1", self.port))
        client.setblocking(False)
        # Some have asked for a report, which they do not read.
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" if number % 4 == 0 else b"GET /metrics HTTP/1.1\r\nX: ")
        return client

    def drip(self):
        while not self.ended.wait(1):
            for number, client in enumerate(self.clients):
                try:
                    if number % 4 == 0:
                        client.recv(1)
                    else:
                        client.send(b"x")
                except BlockingIOError:
                    pass
                except OSError:
                    self.put_out += 1
                    client.close()
                    self.clients[number] = self.connect(number)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
        for client in self.clients:
            client.close()


def test_clients_that_take_their_time(leaking):
    """All connections that one address gets: others are answered after a while, and what the program does is recorded."""
    before = json.loads(get(leaking, "/report.json")[1])["total"]["size"]
    with Slow(leaking, 64) as slow:
        assert not answers(leaking), "there is no connection left"
        wait_until(lambda: slow.put_out >= 10, 40, "the first are put out")
    wait_until(lambda: answers(leaking), 30, "an answer")
    assert json.loads(get(leaking, "/report.json")[1])["total"]["size"] > before


def test_requests_that_are_none(leaking):
    """Bytes by chance, heads that are too long, bodies, wrong methods: an answer or none, and the next one is answered."""
    chance = random.Random(17)
    texts = [bytes(chance.randrange(256) for _ in range(chance.randrange(1, 3000))) for _ in range(30)]
    texts += [b"GET /" + b"x" * 100000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20000 + b"\r\n",
              b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
              b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n" + b"x" * 50000,
              b"GET /%00%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", b"\0" * 5000, b"GET\r\n\r\n" * 500,
              b"GET /debug/pprof/heap?seconds=1&seconds=x&" + b"a=b&" * 2000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"]
    for text in texts:
        with socket.create_connection(("127.0.0.1", leaking), timeout=10) as client:
            client.settimeout(0.5)  # one whose end does not come gets no answer, and is put out later
            try:
                client.sendall(text)
                client.shutdown(socket.SHUT_WR)
                answer = client.recv(1000)
            except OSError:
                continue
            assert not answer or answer.startswith(b"HTTP/1."), (text[:100], answer)
            assert b"root:" not in answer
    assert get(leaking)[0].status == 200
