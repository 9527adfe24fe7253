# SPDX-License-Identifier: MIT
"""Objects of many kinds, and what the interpreter says that each refers to.

    edges.py FILE PROGRAM

A forked child, whose objects have the same addresses, writes a line "FROM TYPE TO TYPE" for each reference into FILE; then
this process says so and waits. A line "borrowed ADDRESS" names an object whose references are none, as a trial has shown.
A type is followed by the name of what has one: "module:sys".
"""
import array
import asyncio
import collections
import ctypes
import decimal
import enum
import functools
import gc
import itertools
import json
import logging
import os
import re
import sys
import threading
import types
import weakref
import xml.etree.ElementTree

try:
    import contextvars
except ImportError:  # 3.6
    contextvars = None

KEPT = []


class Plain:
    def __init__(self, value):
        self.value, self.other = value, [value]


class Slots:
    __slots__ = ("a", "b", "__weakref__")


class SlotsMore(Slots):
    __slots__ = ("c",)


class WithDict(dict):
    pass


class WithList(list):
    pass


class WithTuple(tuple):
    pass


class WithText(str):
    pass


class WithInt(int):
    pass


class Color(enum.Enum):
    RED = ("red", [1])
    BLUE = ("blue", [2])


class Fails(Exception):
    pass


class Descriptor:
    @property
    def value(self):
        return self

    @classmethod
    def make(cls):
        return cls()

    @staticmethod
    def nothing():
        return None

    @functools.lru_cache(maxsize=100)
    def cached(self, number):
        return [number]


def closure(a):
    b = [a]

    def inner(c=[a]):
        return a, b, c
    return inner


def generator(data):
    for thing in data:
        local = [thing]
        yield local


def keeps_frame(depth):
    rows = [object() for _ in range(10)]
    if depth:
        return keeps_frame(depth - 1)
    try:
        raise Fails(rows)
    except Fails as error:
        return error


def zoo():
    variable = contextvars.ContextVar("variable") if contextvars else None
    for i in range(300):
        slots, more = Slots(), SlotsMore()
        slots.a, slots.b, more.a, more.c = [i], more, slots, Plain(more)
        word = WithText("word %d" % i)
        word.extra = [i]
        number = WithInt(i)
        number.extra = [i]
        pair = WithTuple((slots, i))
        pair.extra = [pair]
        items = WithList([pair])
        items.extra = more
        table = WithDict(a=items)
        table.extra = table
        steps = generator([slots, pair])
        next(steps)
        late = Plain(i)
        late.__dict__["added"] = [i]
        late.more = late
        deleted = Plain(i)
        del deleted.value
        loose = Plain(i)
        loose.__dict__ = {"value": [i]}
        loop = [i]
        loop.append(loop)
        described = Descriptor()
        described.cached(i)
        context = contextvars.copy_context() if contextvars else []
        if contextvars:
            context.run(variable.set, [i])
        KEPT.append([
            slots, more, word, number, pair, items, table, steps, late, deleted, loose, loop, described, context,
            {i: [i] for i in range(i % 40)}, {(i, str(i)): frozenset([i, str(i)])}, {object() for _ in range(i % 20)},
            collections.deque([object() for _ in range(i)], maxlen=200), collections.OrderedDict(a=[i], b=[i]),
            collections.defaultdict(list, a=[i]), collections.Counter("abc"), collections.ChainMap({}, {"a": [i]}),
            functools.partial(closure, [i], key=[i]), closure(i), weakref.ref(slots), weakref.ref(slots, closure(i)),
            weakref.WeakValueDictionary(a=slots), weakref.WeakSet([slots]), weakref.proxy(more), described.make, described.cached,
            [].append, itertools.count(i), itertools.chain([slots], [i]), zip([i], [slots]), map(closure, [i]),
            iter([slots]), iter({1: slots}), reversed([slots]), enumerate([slots]), slice([1], slots), memoryview(bytearray(10)),
            array.array("i", [1, 2]), bytearray(100), types.SimpleNamespace(a=[i]), types.MappingProxyType({"a": [i]}),
            super(SlotsMore, more), property(closure), classmethod(closure), staticmethod(closure), keeps_frame(3),
            type("Made", (Plain,), {"attribute": [i], "__slots__": ("x",)}), re.compile("a%d" % i), threading.local(),
            logging.getLogger("logger%d" % (i % 10)), xml.etree.ElementTree.fromstring("<a x='1'><b/><c>d</c></a>"),
            ctypes.c_int(i), (ctypes.py_object * 2)([i], slots), decimal.Decimal(i), Color.RED, range(i), object(),
        ])


class Hub:
    def __init__(self):
        self.tasks, self.queue, self.lock = set(), asyncio.Queue(), asyncio.Lock()


async def work(hub, number):
    data = {"number": number, "rows": [object() for _ in range(5)]}
    while True:
        await hub.queue.get()
        await asyncio.wait_for(hub.lock.acquire(), 1000)
        data["more"] = number


async def stream(number):
    async def numbers():
        for i in range(number, number + 3):
            yield [i]
    async for item in numbers():
        await asyncio.sleep(1000, result=item)


async def service():
    hub = Hub()
    for i in range(200):
        hub.tasks.add(asyncio.ensure_future(work(hub, i)))
        hub.tasks.add(asyncio.ensure_future(stream(i)))
        asyncio.get_event_loop().call_later(1000, closure(i))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    say()


def web():
    """A Flask application with SQLAlchemy behind it, after some requests."""
    import flask
    import sqlalchemy
    from sqlalchemy import orm

    base = orm.declarative_base()

    class User(base):
        __tablename__ = "users"
        id = sqlalchemy.Column(sqlalchemy.Integer, primary_key=True)
        name = sqlalchemy.Column(sqlalchemy.String(50))
        orders = orm.relationship("Order", back_populates="user")

    class Order(base):
        __tablename__ = "orders"
        id = sqlalchemy.Column(sqlalchemy.Integer, primary_key=True)
        text = sqlalchemy.Column(sqlalchemy.String(50))
        user_id = sqlalchemy.Column(sqlalchemy.ForeignKey("users.id"))
        user = orm.relationship("User", back_populates="orders")

    engine = sqlalchemy.create_engine("sqlite://")
    base.metadata.create_all(engine)
    session = orm.Session(engine)
    app = flask.Flask("edges")
    app.config["cache"] = {}

    @app.route("/user/<int:number>")
    def user(number):
        made = User(name="user %d" % number, orders=[Order(text="order %d" % i) for i in range(3)])
        session.add(made)
        session.flush()
        app.config["cache"][number] = made
        return flask.jsonify({"name": made.name, "orders": [order.text for order in made.orders]})

    client = app.test_client()
    for i in range(100):
        assert client.get("/user/%d" % i).status_code == 200
    KEPT.extend([app, client, session, engine, session.query(User).filter(User.name.like("%1%")).all()])
    say()


def frames():
    """Data frames and figures."""
    import matplotlib
    matplotlib.use("Agg")
    import pandas
    from matplotlib import pyplot

    table = pandas.DataFrame({"a": range(2000), "b": [str(i) for i in range(2000)], "c": [[i] for i in range(2000)]})
    table["when"] = pandas.date_range("2020-01-01", periods=2000, freq="h")
    table["kind"] = pandas.Categorical(["even", "odd"] * 1000)
    KEPT.extend([table, table.groupby("kind").a.sum(), table.set_index("when").resample("D").a.mean(), table.pivot_table(
        values="a", index="kind", aggfunc="sum"), table.c.to_numpy()])
    for i in range(2):
        figure, axes = pyplot.subplots(2)
        axes[0].plot(table.a[:50], [j * i for j in range(50)], label="line %d" % i)
        axes[1].hist(table.a)
        axes[0].legend()
        figure.canvas.draw()
        KEPT.append(figure)
    say()


def is_atom(thing):
    return thing is None or type(thing) in (bool, type(Ellipsis), type(NotImplemented)) or \
        (type(thing) in (int, str, bytes, float, complex) and (sys.getrefcount(thing) > 1 << 28 or
                                                                (type(thing) is int and -6 < thing < 1025))) or \
        (type(thing) in (str, bytes) and len(thing) < 2) or (type(thing) is tuple and not thing)  # noqa: E721


def type_name(thing):
    kind = type(thing)
    own = None
    try:  # a class may have its own way to say it, and fail
        if issubclass(kind, (types.ModuleType, type, types.FunctionType, types.BuiltinFunctionType)):
            own = thing.__name__
        elif kind is types.CodeType:
            own = thing.co_name
    except Exception:
        pass
    name = kind.__name__ if not isinstance(own, str) else "%s:%s" % (kind.__name__, own)
    return name.replace(" ", "_")


def interned_dict():
    """The dict of interned strings, where the collector sees it; None. It counts none of them: a string that becomes one of
    its keys, and values, has no more references than before."""
    word = "".join(["nobody has ", "this word"])
    before = sys.getrefcount(word)
    sys.intern(word)
    counted = sys.getrefcount(word) != before
    for thing in gc.get_objects():
        if type(thing) is dict and len(thing) > 256 and thing.get(word) is word:
            return thing if not counted else None
    return None


def write(path):
    """In the child: the closure over all references."""
    seen, waiting, frame = set(), [], sys._getframe()
    borrows = interned_dict()
    mine = {id(seen), id(waiting), id(frame), id(locals())}
    with open(path, "w") as file:
        if borrows is not None:
            file.write("borrowed %x\n" % id(borrows))
        waiting.extend(gc.get_objects())
        mine.add(id(file))
        known = {id(thing) for thing in waiting}
        while waiting:
            thing = waiting.pop()
            if id(thing) in seen or id(thing) in mine or thing is known or thing is mine or isinstance(thing, types.FrameType):
                continue
            seen.add(id(thing))
            for other in gc.get_referents(thing):
                if id(other) in mine or other is known or other is mine:
                    continue
                try:
                    atom = is_atom(other)
                except Exception:  # what cannot be compared
                    atom = False
                if not atom:
                    file.write("%x %s %x %s\n" % (id(thing), type_name(thing), id(other), type_name(other)))
                waiting.append(other)
            del thing


def say():
    gc.collect()
    gc.disable()
    child = os.fork()
    if not child:
        try:
            write(sys.argv[1])
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[2] == "zoo":
        zoo()
        say()
    elif sys.argv[2] in ("web", "frames"):
        globals()[sys.argv[2]]()
    else:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        loop.run_until_complete(service())
