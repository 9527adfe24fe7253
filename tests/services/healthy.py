"""An HTTP service that keeps nothing: healthy.py PORT"""
import http.server
import json
import sys


class Request(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        rows = [line.split(",") for line in body.splitlines()]
        answer = json.dumps({"rows": len(rows), "columns": max(map(len, rows))}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Request).serve_forever()
