#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Attaches to a busy FastAPI service (uvicorn, pydantic), lets go of it or is killed, over and over; no request may notice.

    service_storm.py [--rounds N] [--clients N] [--seconds S] [--seed N] [--python PATH]

The packages come from the package index, once. Clients post orders all the time, some of them invalid, and compare each
answer with what they work out themselves. Two rounds of three are an attach of a random length and its detach; in the
third pyleak is killed at a random instant, and its guardian, or every other time `pyleak detach`, cleans up. After each
round nothing of pyleak may be left but the page for pointers that the program may have kept.
The last line of the output is "N passed, N failed, N skipped".
"""
import argparse
import http.client
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "integration"), str(ROOT / "wheels")]
import packages  # noqa: E402
from helpers import status  # noqa: E402
from libraries import library  # noqa: E402
from rounds import one_round  # noqa: E402

SERVICE = """
import sys
from typing import List, Optional
import fastapi, pydantic, uvicorn
class Item(pydantic.BaseModel):
    name: str
    price: float = pydantic.Field(ge=0)
    tags: List[str] = []
class Order(pydantic.BaseModel):
    number: int
    items: List[Item]
    note: Optional[str] = None
class Bill(pydantic.BaseModel):
    number: int
    sum: float
    tags: List[str]
app = fastapi.FastAPI()
@app.post("/order")
def order(order: Order) -> Bill:
    return Bill(number=order.number, sum=sum(item.price for item in order.items),
                tags=sorted({tag for item in order.items for tag in item.tags}))
@app.post("/later")
async def later(order: Order) -> Order:
    return order
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
"""


class Client(threading.Thread):
    """Posts until it is told to stop; what went wrong is in `wrong`."""

    def __init__(self, port, seed):
        threading.Thread.__init__(self, daemon=True)
        self.port, self.random = port, random.Random(seed)
        self.done, self.wrong, self.stop = 0, [], False

    def one(self, connection):
        items = [{"name": "n%d" % i, "price": self.random.randrange(1000) / 4, "tags": ["t%d" % self.random.randrange(9)]}
                 for i in range(self.random.randrange(1, 30))]
        order = {"number": self.random.randrange(1 << 30), "items": items, "note": None}
        path = self.random.choice(("/order", "/later"))
        valid = self.random.random() > .1
        if not valid:
            items[-1]["price"] = "dear"
        connection.request("POST", path, json.dumps(order), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        if not valid:
            right = response.status == 422 and answer["detail"][0]["type"] == "float_parsing"
        elif path == "/later":
            right = response.status == 200 and answer == order
        else:
            right = response.status == 200 and answer == {
                "number": order["number"], "sum": sum(item["price"] for item in items),
                "tags": sorted({tag for item in items for tag in item["tags"]})}
        if not right:
            raise AssertionError("%s %s: %d %s" % (path, order, response.status, answer))

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while not self.stop:
            try:
                self.one(connection)
                self.done += 1
            except Exception as error:  # whatever it is, a request has failed
                self.wrong.append(repr(error)[:500])
                return


def start(python, path, folder):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    script = os.path.join(folder, "service.py")
    with open(script, "w") as file:
        file.write(SERVICE)
    process = subprocess.Popen([python, script, str(port)], env=dict(os.environ, PYTHONPATH=path), stdin=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process, port
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(.05)
    process.kill()
    raise AssertionError("the service does not start")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--python", default=packages.python_of("3.12"))
    options = parser.parse_args()
    path, why = packages.folder(library("fastapi", ["fastapi", "uvicorn", "pydantic"]), options.python)
    if not path:
        print("%s\n0 passed, 0 failed, %d skipped" % (why, options.rounds))
        return
    passed, failed, chance, started = 0, 0, random.Random(options.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        process, port = start(options.python, path, folder)
        clients = [Client(port, options.seed + i) for i in range(options.clients)]
        for client in clients:
            client.start()
        try:
            for number in range(options.rounds):
                if failed or time.monotonic() - started > options.seconds:
                    break
                before = [client.done for client in clients]
                try:
                    one_round(number, process.pid, chance, .6, 20)
                    until = time.monotonic() + 30
                    while any(client.done == old and not client.wrong for client, old in zip(clients, before)):
                        if time.monotonic() > until:
                            raise AssertionError("no request is answered any more")
                        time.sleep(.01)
                    if process.poll() is not None or any(client.wrong for client in clients):
                        raise AssertionError("status %s; %s" % (process.poll(), [client.wrong for client in clients]))
                    passed += 1
                except Exception as error:  # the round has failed, whatever it is
                    failed += 1
                    print("FAILED: round %d: %s" % (number, error), flush=True)
            for client in clients:
                client.stop = True
            for client in clients:
                client.join(60)
            size = status(process.pid)["VmRSS"] if process.poll() is None else "-"
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
    wrong = [text for client in clients for text in client.wrong]
    print("%d rounds in %.0f s, seed %d; %d requests, %d wrong; RSS %s at the end" % (
        passed + failed, time.monotonic() - started, options.seed, sum(client.done for client in clients), len(wrong), size))
    print("%d passed, %d failed, %d skipped" % (passed, failed, options.rounds - passed - failed))
    sys.exit(1 if failed or wrong else 0)


main()
