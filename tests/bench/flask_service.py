# SPDX-License-Identifier: MIT
"""A Flask service on the loopback interface; prints {"port": N} and ends when its stdin does.

A request carries a few records as JSON, and gets a page made of them by a template.
"""
import json
import logging
import os
import sys
import threading

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


def main():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    WSGIRequestHandler.protocol_version = "HTTP/1.1" # keeps connections
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"port": server.server_port}), flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
