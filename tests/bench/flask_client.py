# SPDX-License-Identifier: MIT
"""Sends requests over one kept connection, one after the other: flask_client.py PORT. Commands on stdin:

    load SECONDS    {"requests": N, "wall": s}
"""
import http.client
import json
import sys
import time

ORDERS = json.dumps([{"id": i, "name": "order number %d" % (i * 7 % 20), "price": i * 1.25, "tags": ["new", "paid"]}
                     for i in range(20)])


def main():
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30)
    for line in iter(sys.stdin.readline, ""):
        seconds = float(line.split()[1])
        requests, started = 0, time.perf_counter()
        while time.perf_counter() < started + seconds and requests < 200000:
            connection.request("POST", "/orders?title=bench", ORDERS, {"Content-Type": "application/json"})
            response = connection.getresponse()
            body = response.read()
            if response.status != 200 or b"Order Number 7" not in body:
                sys.exit("flask_client: status %d: %r" % (response.status, body[:200]))
            requests += 1
        print(json.dumps({"requests": requests, "wall": time.perf_counter() - started}), flush=True)


if __name__ == "__main__":
    main()
