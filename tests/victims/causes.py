# SPDX-License-Identifier: MIT
"""Leaks that everyone has met: causes.py NAME leaks as data/known-causes says of NAME, over and over, until its
parent ends. Runs on every Python from 3.6 on.

Each function is one turn, written as one meets it in programs.
"""
import functools
import itertools
import os
import sys
import time

kept = []
number = itertools.count()


def logging_handlers():
    import logging
    logger = logging.getLogger("service")
    logger.addHandler(logging.StreamHandler())


def logging_filters():
    import logging
    for _ in range(20):
        logging.getLogger("service").addFilter(logging.Filter("a.b"))


def loggers_by_name():
    import logging
    logging.getLogger("request-%d" % next(number)).debug("hello")


def mock_calls():
    from unittest import mock
    if not kept:
        kept.append(mock.Mock())
    kept[0].send("text")


def asyncio_tasks():
    import asyncio

    async def request():
        for _ in range(20):
            asyncio.get_event_loop().create_task(asyncio.sleep(3600))
        await asyncio.sleep(0)
    if not kept:
        kept.append(asyncio.new_event_loop())
    kept[0].run_until_complete(request())


def unbounded_queue():
    import queue
    if not kept:
        kept.append(queue.Queue())
    for _ in range(100):
        kept[0].put(next(number))


def asyncio_queue():
    import asyncio

    async def produce():
        if not kept:
            kept.append(asyncio.Queue())
        for _ in range(100):
            await kept[0].put(next(number))
    asyncio.new_event_loop().run_until_complete(produce())


def executor_backlog():
    from concurrent.futures import ThreadPoolExecutor
    if not kept:
        kept.append(ThreadPoolExecutor(max_workers=1))
    for _ in range(5):
        kept[0].submit(time.sleep, 1)


def threads_that_never_end():
    import threading
    threading.Thread(target=threading.Event().wait, daemon=True).start()


def asyncio_timers():
    import asyncio
    if not kept:
        kept.append(asyncio.new_event_loop())
    for _ in range(20):
        kept[0].call_later(3600, print)


def linecache():
    import linecache as cache
    import tempfile
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write("pass\n" * 50)
        file.flush()
        cache.getlines(file.name)


def classes_made_per_call():
    import collections
    kept.append(collections.namedtuple("Row", "a b"))


class Report:
    @functools.lru_cache(maxsize=None)
    def text(self):
        return bytes(1000)


def lru_cache_on_a_method():
    Report().text()


@functools.lru_cache(maxsize=None)
def cached(key):
    return bytes(1000)


def unbounded_cache():
    cached(next(number))


def prometheus_labels():
    import prometheus_client
    if not kept:
        kept.append(prometheus_client.Counter("requests", "Requests by user", ["user"]))
    kept[0].labels(user=str(next(number))).inc()


def requests_sessions():
    import requests
    kept.append(requests.Session())


def aiohttp_sessions():
    import aiohttp
    import asyncio

    async def request():
        kept.append(aiohttp.ClientSession())
    if not kept:
        kept.append(asyncio.new_event_loop())
    kept[0].run_until_complete(request())


def httpx_clients():
    import httpx
    kept.append(httpx.Client())


def boto3_clients():
    import boto3
    kept.append(boto3.session.Session().client("sts", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="y"))


def pymongo_clients():
    import pymongo
    pymongo.MongoClient("mongodb://127.0.0.1:1/", serverSelectionTimeoutMS=10)


def sqlalchemy_engines():
    import sqlalchemy
    kept.append(sqlalchemy.create_engine("sqlite://"))


def django_queries():
    import django
    from django.conf import settings
    if not settings.configured:
        settings.configure(DEBUG=True, DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
        django.setup()
    from django.db import connection
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s", [next(number)])


def pyplot_figures():
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import io
    figure, axes = plt.subplots(figsize=(1, 1))
    axes.plot([1, 2, 3])
    figure.savefig(io.BytesIO(), format="png")


def django_signals():
    import django.dispatch
    if not kept:
        kept.append(django.dispatch.Signal())
    kept[0].connect(lambda **values: None, weak=False)


def sqlalchemy_sessions():
    import sqlalchemy.orm
    if not kept:
        kept.append(sqlalchemy.create_engine("sqlite://"))
    kept.append(sqlalchemy.orm.Session(bind=kept[0]))


def dataclasses_made_per_call():
    import dataclasses
    kept.append(dataclasses.make_dataclass("Row", ["a", "b"]))


def abc_of_new_classes():
    import collections.abc
    for _ in range(5):
        kept.append(type("Request", (), {}))
        isinstance(kept[-1](), collections.abc.Mapping)


def interned_for_ever():
    for _ in range(50):
        sys.intern("request-%d" % next(number))


def atexit_callbacks():
    import atexit
    for _ in range(20):
        atexit.register(os.unlink, "/nonexistent/%d" % next(number))


def ctypes_pointer_types():
    import ctypes
    ctypes.POINTER(type("Row", (ctypes.Structure,), {"_fields_": [("a", ctypes.c_int)]}))


def path_entries():
    sys.path.insert(0, "/nonexistent/request-%d" % next(number))


def exceptions_kept():
    for _ in range(20):
        try:
            raise KeyError(next(number))
        except KeyError as error:
            kept.append(error)


def locks_of_threads():
    import threading
    for _ in range(5):
        threading.Thread(target=int).start()


NOT_FOUND = KeyError("not found")


def look_up():
    raise NOT_FOUND


def exception_raised_again():
    for _ in range(50):
        try:
            look_up()
        except KeyError:
            pass


def greenlets():
    import greenlet

    def request():
        greenlet.getcurrent().parent.switch()
    for _ in range(20):
        kept.append(greenlet.greenlet(request))
        kept[-1].switch()


def celery_results():
    import celery
    if not kept:
        kept.append(celery.Celery("service", broker="memory://", backend="cache+memory://"))
    for _ in range(5):
        kept.append(kept[0].AsyncResult("task-%d" % next(number)))


def opentelemetry_attributes():
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    if not kept:
        kept.append(MeterProvider([InMemoryMetricReader()]).get_meter("service").create_counter("requests"))
    kept[0].add(1, {"user": "user-%d" % next(number)})


def opentelemetry_meters():
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    if not kept:
        kept.append(MeterProvider([InMemoryMetricReader()]))
    kept[0].get_meter("request-%d" % next(number)).create_counter("requests")


def opentelemetry_spans():
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    if not kept:
        kept.append(TracerProvider())
        kept[0].add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    with kept[0].get_tracer("service").start_as_current_span("request %d" % next(number)):
        pass


def main():
    turn = globals()[sys.argv[1].replace("-", "_")]
    turn()
    print("ready", flush=True)
    sys.stdin.readline()
    while os.getppid() != 1:
        turn()
        time.sleep(0.005)


if __name__ == "__main__":
    main()
