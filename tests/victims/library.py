# SPDX-License-Identifier: MIT
"""The standard library at work, the same in every run: what is kept is kept by its lines and by ours.

    library.py    says "ready" and obeys, one command a line:
        trace N         tracemalloc begins, with N frames; "tracing"
        run             every workload, what each returns is kept; the first time all is imported; "ran"
        collect         a full collection, which also empties free lists; "collected"
        figures         tracemalloc ends: [[[[file, line], ... most recent call first], size, count], ...]
        lacks           [modules that this Python has not, and whose workload was left out]

Runs on every Python from 3.6 on.
"""
import gc
import json
import sys
import tracemalloc
from _tracemalloc import _get_traces as get_traces

kept = []
lacks = set()


def json_documents():
    import decimal
    rows = [{"id": i, "name": "name %d" % i, "values": [i / 7, None, True, {"deep": [str(i)]}]} for i in range(120)]
    text = json.dumps(rows)
    return [json.loads(text), json.loads(text, object_hook=lambda table: list(table.items())),
            json.loads(text, parse_float=decimal.Decimal), json.dumps(rows, indent=1, sort_keys=True),
            list(json.JSONEncoder(indent=2, default=repr).iterencode({"a": [object, 1.5, {"b": set()}]}))]


def csv_tables():
    import csv
    import io
    text = io.StringIO()
    writer = csv.writer(text)
    for i in range(150):
        writer.writerow([i, "a,b %d" % i, 'q"%d' % i, i / 3])
    lines = text.getvalue().splitlines(True)
    return [text, list(csv.reader(lines)), list(csv.DictReader(lines, ["a", "b", "c", "d"])),
            csv.Sniffer().sniff(text.getvalue()[:500])]


def xml_documents():
    import io
    import xml.dom.minidom
    import xml.etree.ElementTree as tree
    import xml.sax
    text = "<r>" + "".join("<e n='%d'>text %d<x/></e>tail" % (i, i) for i in range(100)) + "</r>"
    events = [(event, element) for event, element in tree.iterparse(io.BytesIO(text.encode()), ("start", "end"))]
    seen = []

    class Handler(xml.sax.ContentHandler):
        def startElement(self, name, attributes):
            seen.append((name, dict(attributes)))

    xml.sax.parseString(text.encode(), Handler())
    return [tree.fromstring(text), events, seen, xml.dom.minidom.parseString("<a><b c='d'>e</b></a>")]


def syntax_trees():
    import ast
    import textwrap
    with open(textwrap.__file__) as file:
        source = file.read()
    module = ast.parse(source)

    class Rename(ast.NodeTransformer):
        def visit_Name(self, node):
            return ast.copy_location(ast.Name(id="renamed_" + node.id, ctx=node.ctx), node)

    code = compile(source, "made-up-textwrap.py", "exec")
    space = {"__name__": "made_up"}
    exec(code, space)
    return [module, ast.dump(module), Rename().visit(ast.parse(source)), code, space]


def patterns():
    import re
    made = [re.compile(r"(?P<word>[a-z]+)%d(\d*)|x{%d,%d}?" % (i, i, i + 3)) for i in range(1, 40)]
    text = " ".join("word%d%d xxxxx" % (i, i) for i in range(1, 40))
    return [made, [list(pattern.finditer(text)) for pattern in made], re.split(r"(\s)", text),
            re.sub("[aeiou]", lambda match: match.group().upper() + str(match.start()), text)]


def numbers():
    import decimal
    import fractions
    import random
    import statistics
    context = decimal.Context(prec=60)
    chance = random.Random(7)
    values = [chance.random() for _ in range(200)]
    return [[context.divide(decimal.Decimal(i), decimal.Decimal(7)) for i in range(200)], values,
            [decimal.Decimal("1." + "3" * i).sqrt() for i in range(1, 60)],
            [fractions.Fraction(i, i + 5) ** 3 for i in range(100)], statistics.mean(values),
            [10 ** i for i in range(0, 300, 3)], [complex(i, i / 2) for i in range(50)]]


def containers():
    import array
    import bisect
    import collections
    import heapq
    import itertools
    Pair = collections.namedtuple("Pair", "left right")
    table = collections.defaultdict(list)
    for i in range(300):
        table[i % 17].append(Pair(i, str(i)))
    heap = []
    for i in range(100):
        heapq.heappush(heap, ((i * 37) % 101, [i]))
    ordered = []
    for i in range(100):
        bisect.insort(ordered, (i * 53) % 107)
    ring = collections.deque(maxlen=64)
    for i in range(500):
        ring.append({i})
    return [table, heap, ordered, ring, collections.OrderedDict((str(i), {}) for i in range(100)),
            collections.Counter("the quick brown fox jumps over the lazy dog" * 3).most_common(),
            collections.ChainMap({1: 2}, {3: 4}).new_child({"x": []}), array.array("d", range(500)),
            list(itertools.permutations(range(5))),
            [list(group) for _, group in itertools.groupby(ordered, lambda x: x // 7)],
            collections.UserDict(a=1), collections.UserList([[]]), {frozenset([i, i + 1]) for i in range(50)}]


def records():
    import dataclasses
    tags = "tags", list, dataclasses.field(default_factory=list)
    Point = dataclasses.make_dataclass("Point", [("x", float), ("y", float), tags])
    points = [Point(i / 3, i / 7, ["t%d" % i]) for i in range(80)]
    return [Point, points, [dataclasses.asdict(point) for point in points],
            [dataclasses.astuple(point) for point in points],
            [dataclasses.replace(point, x=2.5 * i) for i, point in enumerate(points)]]


def tasks():
    import asyncio

    async def work(number, queue):
        await queue.put([number] * 3)
        await asyncio.sleep(0)
        if number % 10 == 7:
            raise ValueError([number])
        return {"number": number / 2}

    async def produce(count):
        for i in range(count):
            yield [i / 3]

    async def main():
        queue = asyncio.Queue()
        made = [asyncio.ensure_future(work(i, queue)) for i in range(60)]
        results = await asyncio.gather(*made, return_exceptions=True)
        produced = [thing async for thing in produce(50)]
        return [results, made, [queue.get_nowait() for _ in range(60)], produced]

    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


def logs():
    import logging
    import logging.handlers
    logger = logging.Logger("made-up")
    handler = logging.handlers.MemoryHandler(10000)
    text = []

    class Texts(logging.Handler):
        def emit(self, record):
            text.append(self.format(record))

    other = Texts()
    other.setFormatter(logging.Formatter("%(levelname)s %(message)s %(funcName)s:%(lineno)d"))
    logger.addHandler(handler)
    logger.addHandler(other)
    for i in range(60):
        logger.warning("number %d of %s", i, {"i": i})
        try:
            [][i]
        except IndexError:
            logger.exception("caught")
    return [handler, text]


def databases():
    import sqlite3
    base = sqlite3.connect(":memory:")
    base.row_factory = sqlite3.Row
    base.create_function("twice", 1, lambda x: str(x) * 2)
    base.execute("create table t (a integer primary key, b text, c real, d blob)")
    base.executemany("insert into t values (?, ?, ?, ?)", [(i, "text %d" % i, i / 3, bytes(i)) for i in range(100)])
    rows = base.execute("select * from t where a % 2").fetchall()
    base.row_factory = None
    more = list(base.execute("select twice(b), c, d from t order by c desc"))
    base.close()
    return [[tuple(row) for row in rows], rows, more]


class Kept(object):
    def __init__(self, number):
        self.number = number
        self.text = "kept %d" % number
        self.others = [number / 3]

    def __eq__(self, other):
        return self.number == other.number

    def method(self):
        return self.number


def pickles():
    import copy
    import io
    import pickle
    things = [Kept(i) for i in range(80)] + [({i: [i / 2]}, (i,), {str(i)}) for i in range(50)]
    texts = [pickle.dumps(things, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    slow = io.BytesIO()
    pickle._Pickler(slow, 2).dump(things[:30])
    return [texts, [pickle.loads(text) for text in texts], slow, pickle._Unpickler(io.BytesIO(slow.getvalue())).load(),
            copy.deepcopy(things), copy.copy(things)]


def texts():
    import difflib
    import html.parser
    import pprint
    import string
    import textwrap
    text = " ".join("word%d" % (i * 7 % 50) for i in range(400))
    found = []

    class Parser(html.parser.HTMLParser):
        def handle_starttag(self, tag, attributes):
            found.append((tag, attributes))

    Parser().feed("<p class='a'>x<b id=%d>y</b></p>" * 20)
    return [textwrap.wrap(text, 60), textwrap.fill(text, 40), textwrap.dedent("  a\n  b\n" * 20), found,
            textwrap.shorten(text, 100), string.Template("$a and ${b}").substitute(a=text, b=[1]),
            list(difflib.unified_diff(text.split()[:60], text.split()[5:70])),
            pprint.pformat({i: text[:40 + i] for i in range(20)}),
            "\u0444\u0430\u0439\u043b" * 50 + "\U0001f40d", text.encode("utf-16"), text.title().swapcase().split("W")]


def caches():
    import functools

    @functools.lru_cache(maxsize=64)
    def bounded(number):
        return [number / 3]

    @functools.lru_cache(maxsize=None)
    def fibonacci(number):
        return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2) + 0.5

    @functools.singledispatch
    def kind(thing):
        return "other", [thing]

    kind.register(int, lambda thing: ("int", [thing]))
    kind.register(list, lambda thing: ("list", [thing]))
    for i in range(200):
        bounded(i)
    return [bounded, fibonacci, fibonacci(90), [kind(thing) for thing in [1, [], "x", 2.5] * 20],
            [functools.partial(bounded, i) for i in range(60)],
            functools.reduce(lambda a, b: a + [b], range(60), []),
            sorted(range(100), key=functools.cmp_to_key(lambda a, b: b - a))]


def exceptions():
    def fail(depth, number):
        local = [number / 3, {"depth": depth}]
        if not depth:
            raise KeyError(number)
        try:
            fail(depth - 1, number)
        except KeyError as error:
            raise ValueError(local) from error

    made = []
    for i in range(40):
        try:
            fail(3, i)
        except ValueError as error:
            made.append(error)
    return made


def callables():
    import contextlib
    import inspect
    import types
    import weakref
    things = [Kept(i) for i in range(60)]
    methods = [thing.method for thing in things]
    builtins = [[].append for _ in range(60)]

    def generate(number):
        received = yield [number]
        while True:
            received = yield {number: received}

    generators = [generate(i) for i in range(50)]
    for generator in generators:
        next(generator)
        generator.send(1.5)

    @contextlib.contextmanager
    def manager(number):
        yield [number]

    stack = contextlib.ExitStack()
    entered = [stack.enter_context(manager(i)) for i in range(30)]
    kept.append(stack)  # its managers run on when it is released
    return [things, methods, builtins, generators, entered, inspect.signature(fails),
            [lambda i=i: i for i in range(40)],
            [weakref.ref(thing) for thing in things], weakref.WeakValueDictionary(enumerate(things)),
            types.SimpleNamespace(a=[], b={}), [slice(i, i + 1000) for i in range(2000, 2050)],
            [iter([]) for _ in range(30)],
            [zip([i], [i]) for i in range(30)], inspect.getsource(exceptions)]


def fails(first, *rest, second: int = 3, **others) -> list:
    return [first, rest, second, others]


def files():
    import base64
    import configparser
    import datetime
    import email
    import gzip
    import hashlib
    import io
    import struct
    import tarfile
    import urllib.parse
    import uuid
    import zipfile
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for i in range(20):
            archive.writestr(zipfile.ZipInfo("file-%d" % i, (2020, 1, 1, 0, 0, 0)), b"content " * i * 10)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for i in range(20):
            archive.addfile(tarfile.TarInfo("file-%d" % i))
    settings = configparser.ConfigParser()
    settings.read_string("".join("[s%d]\na = %d\nb = %%(a)s x\n" % (i, i) for i in range(20)))
    message = email.message_from_string("From: a@b\nSubject: =?utf-8?q?x?=\n\nbody\n" * 3)
    return [packed, zipfile.ZipFile(packed).infolist(), tar, settings, message,
            [hashlib.sha256(bytes(i)).hexdigest() for i in range(30)],
            gzip.compress(b"abc" * 1000, 6), base64.b64encode(bytes(3000)),
            [struct.pack("<id", i, i / 3) for i in range(100)],
            struct.unpack("<100d", bytes(800)),
            [datetime.datetime(2020, 1, 1) + datetime.timedelta(i) for i in range(100)],
            [urllib.parse.urlsplit("http://h/%d?q=%d" % (i, i)) for i in range(50)],
            [uuid.UUID(int=i) for i in range(50)], [line for line in io.TextIOWrapper(io.BytesIO(b"line\n" * 100))]]


def classes():
    import abc
    import ctypes
    import enum
    import typing
    made = []
    for i in range(10):
        class Base(abc.ABC):
            @abc.abstractmethod
            def method(self):
                return [i]

        class Derived(Base):
            __slots__ = ("a", "b")

            def method(self):
                return super().method()

        made.append((Derived(), Derived().method(), isinstance([], Base)))
        made.append(enum.Enum("Color%d" % i, "RED GREEN BLUE"))
        made.append(typing.NamedTuple("Typed%d" % i, [("x", int), ("y", typing.List[str])]))
        fields = [("a", ctypes.c_int), ("b", ctypes.c_char * 8)]
        made.append(type("Structure%d" % i, (ctypes.Structure,), {"_fields_": fields})())
    return made


WORKLOADS = [json_documents, csv_tables, xml_documents, syntax_trees, patterns, numbers, containers, records, tasks,
             logs, databases, pickles, texts, caches, exceptions, callables, files, classes]


def run():
    for workload in WORKLOADS:
        try:
            kept.append((workload.__name__, workload()))
        except ImportError as error:
            lacks.add(error.name)


def figures(traces):
    table = {}
    for trace in traces:
        row = table.setdefault(trace[2], [0, 0])
        row[0] += trace[1]
        row[1] += 1
    return [[frames, size, count] for frames, (size, count) in table.items()]


def main():
    print("ready", flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "trace":
            tracemalloc.start(int(words[1]))
            answer = "tracing"
        elif words[0] == "run":
            run()
            answer = "ran"
        elif words[0] == "collect":
            gc.collect()
            answer = "collected"
        elif words[0] == "figures":
            # At once, as others see it: an attribute that is looked up for the first time takes the place of a name
            # in the cache of attributes, which may have been the last to hold that name.
            traces = get_traces()
            tracemalloc.stop()
            answer = json.dumps(figures(traces))
        elif words[0] == "lacks":
            answer = json.dumps(sorted(lacks))
        print(answer, flush=True)


if __name__ == "__main__":
    main()
