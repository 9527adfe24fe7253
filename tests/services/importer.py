"""A Flask service that imports CSV files, and keeps each under the id of its request: importer.py PORT"""
import sys

from flask import Flask, request

app = Flask(__name__)
IMPORTS = {}


@app.post("/import")
def upload():
    rows = [line.split(",") for line in request.get_data(as_text=True).splitlines()]
    IMPORTS[request.headers["X-Request-Id"]] = rows
    return {"rows": len(rows)}


if __name__ == "__main__":
    app.run(port=int(sys.argv[1]))
