# SPDX-License-Identifier: MIT
"""A small Flask service, of the kind that has run for a week and has grown to 9 GiB.

POST /import takes CSV and answers with totals. It allocates all the time, as every service does, and
nearly all of that is given back. One line keeps what it should not.
"""
import functools
import json
import logging
import signal
import sys

from flask import Flask, request
from werkzeug.serving import make_server

app = Flask(__name__)

# So that a client which retries gets the same answer twice. Nobody wrote the code that forgets.
IMPORTS = {}


@functools.lru_cache(maxsize=64)
def currency(code):
    return {"code": code, "digits": 2, "name": f"currency {code}"}


def parse(import_id, text):
    if import_id not in IMPORTS:
        IMPORTS[import_id] = [line.split(",") for line in text.splitlines()]
    return IMPORTS[import_id]


def totals(rows):
    amounts = [float(amount) * int(quantity) for _, _, quantity, amount in rows]
    by_product = {}
    for (_, product, _, _), amount in zip(rows, amounts):
        by_product[product] = by_product.get(product, 0.0) + amount
    return {"rows": len(rows), "total": sum(amounts), "products": by_product}


@app.post("/import")
def import_csv():
    rows = parse(request.headers["X-Request-Id"], request.get_data(as_text=True))
    answer = totals(rows)
    answer["currency"] = currency(request.args.get("currency", "EUR"))
    return json.loads(json.dumps(answer))


def main():
    port_file, seconds = sys.argv[1], int(sys.argv[2])
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    # However it was started, it does not outlive the demonstration.
    signal.alarm(seconds)
    server = make_server("127.0.0.1", 0, app)
    with open(port_file, "w", encoding="ascii") as file:
        file.write(f"{server.server_port}\n")
    server.serve_forever()


if __name__ == "__main__":
    main()
