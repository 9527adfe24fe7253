# SPDX-License-Identifier: MIT
"""What doc/fleet.md tells an operator to copy: its commands run, and its configurations are read by whom they are for."""
import collections
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import urllib.request

import pytest

import helpers
from helpers import PATIENCE, PYLEAK, ROOT, Victim, wait_until

PAGE = (ROOT / "doc" / "fleet.md").read_text()
yaml = pytest.importorskip("yaml", reason="may skip: python3-yaml is not installed")
LEAK = "import time\nkept = []\nwhile True:\n    kept.append(bytes(2000)); time.sleep(0.002)\n"


def blocks(language):
    return re.findall(r"^```%s\n(.*?)^```" % language, PAGE, re.M | re.S)


def container(kind, name="orders"):
    """Of the Kubernetes object of that kind and name, the one that has pyleak in its command."""
    document = next(document for document in map(yaml.safe_load, blocks("yaml"))
                    if document.get("kind") == kind and document["metadata"]["name"].startswith(name))
    spec = document["spec"]
    for name in ("jobTemplate", "template"):
        spec = spec[name]["spec"] if name in spec else spec
    return next(entry for entry in spec["containers"] if any("pyleak" in word for word in entry.get("command", [])))


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def fetch(port, path, token=None):
    request = urllib.request.Request("http://127.0.0.1:%d%s" % (port, path),
                                     headers={"Authorization": "Bearer " + token} if token else {})
    try:
        return urllib.request.urlopen(request, timeout=10 * PATIENCE).read()
    except OSError:
        return b""


def here(command, port):
    """Its pyleak is ours, and its port one that is free."""
    return [word.replace("0.0.0.0:9810", "127.0.0.1:%d" % port) if index else PYLEAK for index, word in enumerate(command)]


def test_deployment(one_python):
    """Recorded from its start, behind a shell that starts workers: the line is in the metrics, and SIGTERM ends it all."""
    port, entry = free_port(), container("Deployment")
    assert entry["command"][-1] == "--" and entry["args"][0] == "gunicorn"
    service = ["sh", "-c", "\"$@\" & child=$!; trap 'kill $child' TERM; wait; exit 6", "sh", one_python, "-c", LEAK]
    with subprocess.Popen(here(entry["command"], port) + service, stdin=subprocess.DEVNULL) as running:
        # A sample is of half a megabyte.
        wait_until(lambda: b'filename="<string>",lineno="4"' in fetch(port, "/metrics"), 60, "the line that leaks")
        assert fetch(port, "/debug/pprof/heap?seconds=1")[:2] == b"\x1f\x8b"
        limit = int(entry["command"][entry["command"].index("--limit") + 1])
        series = collections.Counter(line.split(b"{")[0] for line in fetch(port, "/metrics").splitlines() if b"filename=" in line)
        assert series and max(series.values()) <= limit == 50, series
        running.send_signal(signal.SIGTERM)
        assert running.wait(30 * PATIENCE) == 6


def test_deployment_with_a_token(one_python, tmp_path):
    """As a secret is mounted: a link to a file in another folder."""
    port, entry = free_port(), container("Deployment", "orders-with-token")
    token = "0123456789abcdef0123456789abcdef"
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "token").write_text(token)
    (tmp_path / "..data" / "token").chmod(0o400)
    (tmp_path / "token").symlink_to("..data/token")
    command = [str(tmp_path / "token") if word == "/var/run/pyleak/token" else word for word in here(entry["command"], port)]
    with subprocess.Popen(command + [one_python, "-c", LEAK], stdin=subprocess.DEVNULL) as running:
        wait_until(lambda: b'lineno="4"' in fetch(port, "/metrics", token), 60, "the line that leaks")
        assert fetch(port, "/metrics") == fetch(port, "/metrics", token + "0") == b""
        # As Alloy does what its block says: it is on for one profile, and sends the token of a file.
        block, = blocks("alloy")
        profiles = re.findall(r"profile\.(\w+) +\{ enabled = (\w+)(?:, path = \"(.*)\")? \}", block)
        assert [profile for profile in profiles if profile[1] == "true"] == [("memory", "true", "/debug/pprof/allocs")]
        # Those that are on by themselves.
        assert {profile[0] for profile in profiles} == {"memory", "block", "goroutine", "mutex", "process_cpu"}
        assert "bearer_token_file = " in block and block.count("{") == block.count("}")
        assert fetch(port, "/debug/pprof/allocs", token)[:2] == b"\x1f\x8b"
        running.send_signal(signal.SIGTERM)
        assert running.wait(30 * PATIENCE) == 128 + signal.SIGTERM


def test_sidecar(one_python):
    port, entry = free_port(), container("Pod")
    with Victim(one_python, None, "-c", "print('ready', flush=True)\n" + LEAK) as victim:
        command = here(entry["command"], port)
        with subprocess.Popen(command[:2] + [str(victim.pid)] + command[2:], stdin=subprocess.DEVNULL) as running:
            wait_until(lambda: b'lineno="5"' in fetch(port, "/metrics"), 60, "the line that leaks")
            running.send_signal(signal.SIGTERM)
            assert running.wait(30 * PATIENCE) == 0
        assert victim.alive()


def test_report_each_night(one_python, tmp_path):
    """The job's command, and what the page says of its file."""
    script = container("CronJob")["command"][2]
    with Victim(one_python, None, "-c", "print('ready', flush=True)\n" + LEAK) as victim:
        script = script.replace('"$(pgrep -o -f orders:app)"', str(victim.pid)).replace("/reports/", "%s/" % tmp_path)
        script = script.replace("5m", "%gs" % (2 * PATIENCE)).replace("1m", "%gs" % (0.5 * PATIENCE))
        subprocess.run(["sh", "-c", script.replace("pyleak attach", shlex.quote(PYLEAK) + " attach")], check=True,
                       stdin=subprocess.DEVNULL, timeout=60 * PATIENCE)
    written = next(tmp_path.glob("orders-*.pyleak"))
    shown = subprocess.run([PYLEAK, "report", str(written), "--format", "json"], check=True, stdout=subprocess.PIPE).stdout
    assert json.loads(shown)["stats"][0]["lineno"] == 5


def promtool(*arguments):
    if not shutil.which("promtool"):
        helpers.skip_here("prometheus")
    result = subprocess.run(["promtool", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            check=False)
    assert result.returncode == 0, result.stdout


def test_prometheus_takes_the_configuration(tmp_path):
    configurations = [block for block in blocks("yaml") if "scrape_configs" in block]
    assert len(configurations) == 2
    (tmp_path / "pyleak-token").write_text("0123456789abcdef")
    for configuration in configurations:
        (tmp_path / "prometheus.yml").write_text(configuration.replace("/etc/prometheus", str(tmp_path)))
        promtool("check", "config", tmp_path / "prometheus.yml")


def test_prometheus_takes_the_queries(tmp_path):
    queries = [line for block in blocks("promql") for line in block.splitlines()]
    rules = [{"record": "query:%d" % number, "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "page", "rules": rules}]}))
    assert len(queries) == 3
    promtool("check", "rules", tmp_path / "rules.yml")


def test_options_of_the_page_exist():
    """In every line that calls pyleak, and in the words of the text."""
    known = subprocess.run([PYLEAK, "--help"], check=True, text=True, stdout=subprocess.PIPE).stdout
    for option in set(re.findall(r"--[a-z][a-z-]+", PAGE)) - {"--from", "--static", "--workers"}:
        assert re.search(r" %s\b" % option, known), option
    assert os.path.exists(ROOT / "doc" / "Containerfile")
