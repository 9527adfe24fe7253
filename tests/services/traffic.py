"""Requests for a service: traffic.py PORT [PER-SECOND]"""
import http.client
import sys
import time


def main():
    port, pause = int(sys.argv[1]), 1 / float(sys.argv[2] if len(sys.argv) > 2 else 100)
    number = 0
    while True:
        number += 1
        body = "\n".join("%d,%d,name %d" % (number, line, line) for line in range(40))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("POST", "/import", body, {"X-Request-Id": str(number)})
        connection.getresponse().read()
        connection.close()
        time.sleep(pause)


if __name__ == "__main__":
    main()
