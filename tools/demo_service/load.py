# SPDX-License-Identifier: MIT
"""Sends POST /import to the service on this machine, one after the other: load.py PORT SECONDS COUNT."""
import http.client
import random
import sys
import time
import uuid


def csv(generator):
    return "\n".join(f"{uuid.UUID(int=generator.getrandbits(128))},product-{generator.randrange(20)},"
                     f"{generator.randrange(1, 9)},{generator.randrange(10000) / 100}" for _ in range(40))


def main():
    port, seconds, count = map(int, sys.argv[1:])
    generator = random.Random(1)
    end = time.monotonic() + seconds
    for number in range(count):
        if time.monotonic() > end:
            break
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("POST", f"/import?currency={generator.choice(['EUR', 'USD', 'CHF'])}", csv(generator),
                               {"X-Request-Id": f"request-{number}", "Content-Type": "text/csv"})
            connection.getresponse().read()
        except OSError:
            break  # the service has ended
        finally:
            connection.close()
        time.sleep(0.005)


if __name__ == "__main__":
    main()
