# SPDX-License-Identifier: MIT
"""Leaks that were reported in public, by the versions that had them: pyleak holders has their cause on its first screen."""
import os
import re

import pytest

import pythons
import wheels
from helpers import Victim, pyleak, skip_here

FIRST_SCREEN = 24

END = """
print("ready", flush=True)
import sys
sys.stdin.read()
"""

# https://github.com/python/cpython/issues/127750: each object's bound method stands in a cache that keeps the object.
SINGLE_DISPATCH = """
import functools
class Report:
    def __init__(self, number):
        self.rows = [number + i / 7 for i in range(50)]
    @functools.singledispatchmethod
    def add(self, thing):
        self.rows.append(thing)
for i in range(3000):
    Report(i).add("text")
"""

# https://github.com/aio-libs/aiohttp/pull/9852: what answers a method that is not allowed is made anew each time, and kept in
# the cache of middlewares.
MIDDLEWARES = """
import asyncio
from aiohttp import test_utils, web
@web.middleware
async def timed(request, handler):
    return await handler(request)
async def hello(request):
    return web.Response(text="hello")
async def main():
    app = web.Application(middlewares=[timed])
    app.router.add_get("/", hello)
    async with test_utils.TestClient(test_utils.TestServer(app)) as client:
        for i in range(1000):
            async with client.post("/") as response:
                assert response.status == 405
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
import sys
asyncio.run(main())
"""

# https://github.com/lovasoa/marshmallow_dataclass/issues/198: the cache of schemas has the caller's frame in its key.
SCHEMAS = """
from dataclasses import dataclass
import marshmallow_dataclass
@dataclass
class Sample:
    a: str
def handle(number):
    body = [str(number) * 3 for _ in range(2000)]
    schema = marshmallow_dataclass.class_schema(Sample)()
    return len(body), schema.load({"a": "text"})
for i in range(100):
    handle(i)
"""

# https://github.com/pyserial/pyserial/issues/437: one exception is raised again and again, and its traceback grows.
RAISED_AGAIN = """
import serial
port = serial.Serial()
def poll(number):
    buffer = [number + i / 3 for i in range(200)]
    try:
        port.write(b"ping")
    except serial.SerialException:
        return len(buffer)
for i in range(1000):
    poll(i)
"""

# https://github.com/ijl/orjson/issues/89: the message of a text that is no JSON is never let go. (PyO3 of that time seems to
# have it still in the list of what it would release: it is known to native code, and not a reference that nobody owns.)
ORPHANS = """
import gc
import orjson
for i in range(5000):
    try:
        orjson.loads("no json %d" % i)
    except orjson.JSONDecodeError:
        pass
gc.collect()
"""

# https://github.com/aio-libs/multidict/issues/1131: the lower case of each key that an istr is made of is left behind.
KEYS = """
from multidict import CIMultiDict
for i in range(500):
    headers = CIMultiDict({"X-Any-%d-%d" % (i, j): "value" for j in range(10)})
    result = CIMultiDict()
    for key, value in headers.items():
        result.add(key, value)
del headers, result
"""


def interpreter(version):
    found = [python for python in pythons.pythons() if python.version[:len(version)] == version and not python.free_threaded and
             not python.root]
    if not found:
        skip_here("pythons", ".".join(map(str, version)))
    return found[0]


def look(version, name, packages, program):
    """The document and the lines of the first screen."""
    python = interpreter(version)
    environment = dict(os.environ, PYTHONPATH=wheels.fetch(python, name, packages)) if packages else dict(os.environ)
    program = program if "ready" in program else program + END
    with Victim(python.executable, None, "-c", program, env=environment) as victim:
        result = pyleak("holders", victim.pid, "--format", "json")
        lines = pyleak("holders", victim.pid).stdout.splitlines()
    assert result.status == 0, result
    return result.json(), lines[:FIRST_SCREEN]


def shows(lines, pattern):
    assert any(re.search(pattern, line) for line in lines), lines


def test_single_dispatch():
    document, lines = look((3, 13, 0), None, None, SINGLE_DISPATCH)
    assert re.search(r"__main__\.Report\.\w*add.*_method_cache", document["holders"][0]["path"]), lines
    shows(lines[1:4], r"__main__\.Report")


def test_middlewares():
    document, lines = look((3, 11), "aiohttp-3.10.10", ["aiohttp==3.10.10"], MIDDLEWARES)
    assert "lru_cache" in document["holders"][0]["path"] and "middleware" in document["holders"][0]["path"], lines


def test_schemas():
    packages = ["marshmallow_dataclass==8.5.7", "marshmallow==3.19.0"]
    document, lines = look((3, 10), "marshmallow_dataclass-8.5.7", packages, SCHEMAS)
    assert re.search(r"_internal_class_schema lru_cache", document["holders"][0]["path"]), lines


def test_an_exception_that_is_raised_again():
    document, lines = look((3, 10), "pyserial-3.4", ["pyserial==3.4"], RAISED_AGAIN)
    assert re.search(r"portNotOpenError", document["holders"][0]["path"]), lines


def test_orphans():
    document, lines = look((3, 8), "orjson-2.6.5", ["orjson==2.6.5"], ORPHANS)
    first = document["native"]["types"][0]
    assert first["type"] == "str" and first["count"] >= 4900 and "expected ident" in first["sample"], first
    shows(lines[1:4], r"held by native code")
    shows(lines[1:4], r"5,\d\d\d x str: ")
    shows(lines[1:5], r"'expected ident at line 1")


def test_keys():
    document, lines = look((3, 11), "multidict-6.3.2", ["multidict==6.3.2"], KEYS)
    first = document["native"]["types"][0]
    assert first["type"] == "str" and first["kind"] == "unowned" and first["count"] >= 4900, first
    assert first["sample"].startswith("'x-any-"), first
    shows(lines[1:4], r"5,\d\d\d x str: .*references that nobody owns")
