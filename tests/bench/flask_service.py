# SPDX-License-Identifier: MIT
"""A Flask service on the loopback interface: flask_service.py [EMPTY_HOOK_SO]. It prints {"port": N}, ends when its stdin
does, and answers these commands on it by JSON lines, as target.py does:

    tracemalloc FRAMES  starts it; 0 stops it
    hook 0|1            the empty hook of empty_hook.c

A request carries a few records as JSON, and gets a page made of them by a template.
"""
import ctypes
import json
import logging
import os
import sys
import threading
import tracemalloc

import jinja2
from flask import Flask, render_template, request
from werkzeug.serving import WSGIRequestHandler, make_server

app = Flask(__name__)

PAGE = """<html><body><h1>{{ title }}</h1><table>
{% for row in rows %}<tr><td>{{ row.id }}</td><td>{{ row.name|title }}</td><td>{{ "%.2f"|format(row.price) }}</td>
<td>{% for tag in row.tags %}<i>{{ tag }}</i> {% endfor %}</td></tr>
{% endfor %}</table><p>{{ total }}</p></body></html>"""


app.jinja_loader = jinja2.DictLoader({"orders.html": PAGE})


@app.route("/orders", methods=["POST"])
def orders():
    rows = sorted(request.get_json(), key=lambda row: row["name"])
    total = sum(row["price"] for row in rows)
    return render_template("orders.html", title=request.args.get("title", "orders"), rows=rows, total=total)


def command(words, hook):
    if words[0] == "hook":
        hook.empty_hook(int(words[1]))
    elif int(words[1]):
        tracemalloc.start(int(words[1]))
    else:
        tracemalloc.stop()


def main():
    hook = ctypes.PyDLL(sys.argv[1]) if sys.argv[1:] else None
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    WSGIRequestHandler.protocol_version = "HTTP/1.1" # keeps connections
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"port": server.server_port}), flush=True)
    for line in iter(sys.stdin.readline, ""):
        command(line.split(), hook)
        print("{}", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
