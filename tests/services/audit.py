"""An HTTP service whose every request adds a handler to its logger: audit.py PORT"""
import http.server
import logging
import sys


class Request(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        log = logging.getLogger("audit")
        log.addHandler(logging.StreamHandler(sys.stdout))
        log.debug("a request to %s", self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204 if body else 400)
        self.end_headers()

    def log_message(self, *arguments):
        pass


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Request).serve_forever()
