"""An HTTP service with a cache that is full, as it is after some days: cached.py PORT"""
import collections
import http.server
import random
import sys

CACHE = collections.OrderedDict()


def put(key, rows):
    CACHE[key] = rows
    while len(CACHE) > 200:
        CACHE.popitem(last=False)


class Request(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        put(random.random(), [line.split(",") for line in body.splitlines()])
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments):
        pass


if __name__ == "__main__":
    for number in range(200):
        put(number, [["%d" % number, "%d" % line, "name %d" % line] for line in range(40)])
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Request).serve_forever()
