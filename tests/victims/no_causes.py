# SPDX-License-Identifier: MIT
"""What looks like a known cause and is none: no_causes.py NAME... does what programs do that are not to be told of any NAME,
and keeps something else, over and over, until its parent ends. What is alive in between is little: a look may come then."""
import functools
import itertools
import os
import sys
import time

kept = []
number = itertools.count()
made = {}


def once(name, make):
    if name not in made:
        made[name] = make()
    return made[name]


def logging_handlers():
    """Each is taken off again; and so below."""
    import logging
    handler = logging.NullHandler()
    logging.getLogger("service").addHandler(handler)
    logging.getLogger("service").removeHandler(handler)


def logging_filters():
    import logging
    sees = logging.Filter("service")
    logging.getLogger("service").addFilter(sees)
    logging.getLogger("service").removeFilter(sees)


def loggers_by_name():
    import logging
    logging.getLogger("service.%d" % (next(number) % 3)).debug("hello")


def mock_calls():
    from unittest import mock
    once("mock", mock.Mock).send("text")
    once("mock", mock.Mock).reset_mock()


def asyncio_tasks():
    """One after the other, which end; and coroutines that are kept and that nobody awaits are no tasks."""
    import asyncio

    async def request():
        await asyncio.sleep(0)

    async def requests():
        for _ in range(20):
            await asyncio.get_event_loop().create_task(request())
    once("loop", asyncio.new_event_loop).run_until_complete(requests())
    kept.append(request())


def asyncio_timers():
    import asyncio

    async def wait():
        asyncio.get_event_loop().call_later(0, int)
        await asyncio.sleep(0)
    once("loop", asyncio.new_event_loop).run_until_complete(wait())


def unbounded_queue():
    import queue
    for i in range(3):
        once("queue", queue.Queue).put(i)
    for _ in range(3):
        once("queue", queue.Queue).get()


def asyncio_queue():
    import asyncio

    async def pass_on():
        for i in range(3):
            await once("asyncio queue", asyncio.Queue).put(i)
        for _ in range(3):
            await once("asyncio queue", asyncio.Queue).get()
    once("loop", asyncio.new_event_loop).run_until_complete(pass_on())


def executor_backlog():
    from concurrent.futures import ThreadPoolExecutor
    once("executor", ThreadPoolExecutor).submit(int).result()


def threads_that_never_end():
    """Ten that stay, as of a pool."""
    import threading
    once("threads", lambda: [threading.Thread(target=threading.Event().wait, daemon=True).start() for _ in range(10)])


def linecache():
    import linecache as cache
    cache.getlines(os.__file__)
    cache.checkcache()


def classes_made_per_call():
    """Once, and many of it."""
    import collections
    kept.append(once("Row", lambda: collections.namedtuple("Row", "a b"))(next(number), 1))


class Report:
    @functools.lru_cache(maxsize=8)
    def text(self):
        return bytes(1000)


def lru_cache_on_a_method():
    kept.append(Report())
    kept[-1].text()


@functools.lru_cache(maxsize=None)
def cached(key):
    return bytes(1000)


def unbounded_cache():
    cached(next(number) % 10)


def prometheus_labels():
    import prometheus_client
    counter = once("counter", lambda: prometheus_client.Counter("requests", "Requests by status", ["status"]))
    counter.labels(status=str(200 + next(number) % 2)).inc()


def requests_sessions():
    import requests
    with requests.Session():
        pass


def django_signals():
    import django.dispatch
    once("signal", django.dispatch.Signal).connect(fails, weak=False, dispatch_uid="requests")


def sqlalchemy_sessions():
    import sqlalchemy.orm
    sqlalchemy.orm.Session(bind=once("engine", lambda: sqlalchemy.create_engine("sqlite://"))).close()


def dataclasses_made_per_call():
    import dataclasses
    kept.append(once("dataclass", lambda: dataclasses.make_dataclass("Row", ["a"]))(next(number)))


def abc_of_new_classes():
    """Of few classes, however often."""
    import collections.abc
    isinstance(kept, collections.abc.Mapping)
    issubclass(Report, collections.abc.Mapping)


def interned_for_ever():
    for i in range(50):
        sys.intern("request-%d" % i)


def ctypes_pointer_types():
    import ctypes
    ctypes.POINTER(ctypes.c_int)


def path_entries():
    sys.path.insert(0, "/nonexistent")
    sys.path.remove("/nonexistent")


def exceptions_kept():
    """Their text is, and one without its traceback."""
    try:
        fails(3)
    except KeyError as error:
        kept.append(str(error))
        kept.append(error.with_traceback(None))


def locks_of_threads():
    import threading
    for _ in range(5):
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()


def fails(depth):
    if depth:
        fails(depth - 1)
    raise KeyError(next(number))


def exception_raised_again():
    """New instances, of which each has a long traceback, and is kept."""
    try:
        fails(200)
    except KeyError as error:
        kept.append(error)


def greenlets():
    import greenlet
    for _ in range(20):
        greenlet.greenlet(int).switch()


def celery_results():
    import celery
    app = once("celery", lambda: celery.Celery("service", broker="memory://", backend="cache+memory://"))
    result = app.AsyncResult("task-%d" % next(number))
    result.forget()


def opentelemetry_attributes():
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    counter = once("otel counter", lambda: MeterProvider([InMemoryMetricReader()]).get_meter("service").create_counter("requests"))
    counter.add(1, {"status": 200 + next(number) % 2})


def opentelemetry_meters():
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    provider = once("meters", lambda: MeterProvider([InMemoryMetricReader()]))
    provider.get_meter("service").create_counter("requests")


def opentelemetry_spans():
    from opentelemetry.sdk.trace import TracerProvider
    with once("tracers", TracerProvider).get_tracer("service").start_as_current_span("request %d" % next(number)):
        pass


def main():
    turns = [globals()[name.replace("-", "_")] for name in sys.argv[1:]]
    rest = []
    for turn in turns * 3:
        turn()
    print("ready", flush=True)
    sys.stdin.readline()
    while os.getppid() != 1:
        for turn in turns:
            turn()
        rest.append("something else %d" % next(number))
        time.sleep(0.005)


if __name__ == "__main__":
    main()
