# SPDX-License-Identifier: MIT
"""A service in small, to record series of: service.py KIND TRAFFIC SEED

What its requests keep is told by KIND, how many there are by TRAFFIC. A line whose growth is judged ends in a comment:
`# leak`, `# tables` (one in tables alone), or what it is instead. Requests work for their money: most of it goes.
"""
import collections
import functools
import gc
import json
import math
import random
import sys
import time

KIND, TRAFFIC, SEED = sys.argv[1], sys.argv[2], int(sys.argv[3])
SECONDS = 10.0  # how long a recording is, about
TICK = 0.02
number = random.Random(SEED)
SCALE = number.choice([0.5, 1, 1, 2])


class Thing(object):
    pass


class Node(object):
    def __init__(self, other=None):
        self.other = other
        self.payload = [1, 2, 3]


# -- traffic: requests in the tick at this time ----------------------------------------------------------------------

class Bursts(object):
    on, until = True, 0.0

    def __call__(self, at):
        if at > self.until:
            self.on = not self.on
            self.until = at + number.uniform(0.2, 0.9)
        return 24 if self.on else 0


TRAFFICS = {
    "constant": lambda at: 10,
    "falling": lambda at: 24 * math.exp(-1.6 * at / SECONDS),
    "rising": lambda at: 4 + 20 * at / SECONDS,
    "bursts": Bursts(),
    "uneven": lambda at: number.expovariate(0.1),
}


def work(i):
    """What every request does and leaves nothing of."""
    text = json.dumps({"id": i, "name": "n%d" % i, "items": [str(i + k) for k in range(6)]})
    return len(json.loads(text)["items"])


# -- leaks -----------------------------------------------------------------------------------------------------------

LIST, DICT, SET, DEQUE, DEFAULT, SETDEFAULT, THINGS = [], {}, set(), collections.deque(), None, {}, []
DEFAULT = collections.defaultdict(list)
COUNTER, NESTED = collections.Counter(), []


def leak_list(i):
    work(i)
    LIST.append("request %d" % i)  # leak


def leak_dict(i):
    work(i)
    DICT["request %d" % i] = i * 1000003  # leak


def leak_set(i):
    work(i)
    SET.add("request %d" % i)  # leak


def leak_deque(i):
    work(i)
    DEQUE.append(("request", i * 1000003))  # leak


def leak_defaultdict(i):
    work(i)
    DEFAULT["request %d" % i].append(i)  # leak


def leak_setdefault(i):
    work(i)
    SETDEFAULT.setdefault("request %d" % i, {}).update(id=i)  # leak


def leak_attribute(i):
    work(i)
    thing = Thing()  # leak
    thing.name = "request %d" % i  # leak
    THINGS.append(thing)  # leak


def leak_counter(i):
    work(i)
    COUNTER["path %d" % i] += i  # leak


def leak_nested(i):
    work(i)
    NESTED.append({"id": i, "tags": ["a%d" % i, "b%d" % i]})  # leak


def leak_buffers(i):
    work(i)
    THINGS.append(bytearray(700 + i % 300))  # leak


def leak_closures(i):
    work(i)
    text = "callback %d" % i  # leak
    NESTED.append(lambda: text)  # leak


def leak_some(i):
    """One request in twenty stays."""
    work(i)
    value = ["request %d" % i, i * 1000003]  # leak
    if i % 20 == 0:
        THINGS.append(value)


def leak_two(i):
    """Two of different rates."""
    work(i)
    LIST.append("request %d" % i)  # leak
    if number.random() < 0.1:
        DICT[i] = "seldom %d" % i  # leak


def leak_cycles(i):
    """Cycles that the collector frees in bursts, and one in three that is kept."""
    work(i)
    node = Node()  # leak
    node.other = Node(node)
    if i % 3 == 0:
        THINGS.append(node)


# -- what is no leak -------------------------------------------------------------------------------------------------

LRU = collections.OrderedDict()
RING = collections.deque(maxlen=int(3000 * SCALE))
TIMED = collections.deque()


def cache_put(key, size):
    LRU[key] = "value of %d" % key  # full
    if len(LRU) > size:
        LRU.popitem(last=False)


def full_cache(i):
    work(i)
    cache_put(i, int(4000 * SCALE))


def full_ring(i):
    work(i)
    RING.append([i, "event %d" % i])  # full


@functools.lru_cache(maxsize=3000)
def looked_up(i):
    return "answer %d" % i  # full


def full_lru_cache(i):
    work(i)
    looked_up(i)


def full_timed(i):
    """What is older than half the time goes, when somebody looks."""
    work(i)
    TIMED.append((clock(), "session %d" % i))  # full
    if i % 50 == 0:
        while TIMED and TIMED[0][0] < clock() - 4:
            TIMED.popleft()


FILLING = {}
KEYS = int(1500 * SCALE)


def filling_cache(i):
    """Of keys that come at random: the more there are, the seldomer one is missing."""
    work(i)
    key = number.randrange(KEYS)
    if key not in FILLING:
        FILLING[key] = "value of %d" % key  # filling


LOADED = {}


def warm_up(i):
    """Parts that are needed for the first time, all of them in the first seconds."""
    work(i)
    part = int(number.expovariate(1 / 60.0))
    if part not in LOADED:
        LOADED[part] = [str(k) for k in range(50)]  # warm-up


BATCH = []
BATCH_SIZE = int(500 * SCALE)


def sawtooth(i):
    work(i)
    BATCH.append("row %d" % i)  # sawtooth
    if len(BATCH) >= BATCH_SIZE:
        del BATCH[:]


def collected(i):
    """Cycles: garbage until the collector comes."""
    work(i)
    node = Node()  # collected
    node.other = Node(node)


OPEN = []


def sessions(i):
    """As many as come and go, each at its own time."""
    work(i)
    OPEN.append((clock() + number.expovariate(1.0), "session %d" % i))  # level
    if i % 7 == 0:
        OPEN[:] = [entry for entry in OPEN if entry[0] > clock()]


def in_flight(i):
    """Day and night: as many as traffic leaves waiting."""
    work(i)
    wanted = int(400 * (1.2 + math.sin(2 * math.pi * clock() / (SECONDS / 3.2) + SEED)))
    while len(OPEN) < wanted:
        OPEN.append("waiting %d" % len(OPEN))  # day-and-night
    del OPEN[wanted:]


TABLE = {}
ONCE_AT = number.uniform(1, SECONDS - 2)
ONCE = []


def one_resize(i):
    """One table is made, once, and a thing that stays with it."""
    work(i)
    if not ONCE and clock() > ONCE_AT:
        ONCE.append(["entry %d" % k for k in range(20000)])  # once


def service(i):
    """A steady state: forty caches that are full, each with a line of its own, and a leak of one block in twenty."""
    work(i)
    CACHES[i % len(CACHES)](i)
    leak_of_service(i)


def service_without(i):
    work(i)
    CACHES[i % len(CACHES)](i)


def leak_of_service(i):
    value = ("kept", "request %d" % i)  # leak
    if i % 20 == 0:
        THINGS.append(value)


CACHE = """
import collections
STORE_%(n)d = collections.OrderedDict()
def cache_%(n)d(i):
    value = "value %%d of %(n)d" %% i  # full
    STORE_%(n)d[i] = [value]  # full
    if len(STORE_%(n)d) > %(size)d:
        STORE_%(n)d.popitem(last=False)
"""
CACHES = []


def make_caches(count):
    """In a file of their own each, as far as a traceback says."""
    for n in range(count):
        names = {}
        text = CACHE % {"n": n, "size": number.randrange(60, 260)}
        exec(compile(text, "/srv/cache_%d.py" % n, "exec"), names)
        CACHES.append(names["cache_%d" % n])


def beside_forty(i):
    """The same, and the leak is nearer to where caches drop what they have than where that comes from."""
    items = [str(i + k) for k in range(3)]  # full
    work(i)
    CACHES[i % len(CACHES)](i)
    ITEMS.append(items)
    note = ("kept", i * 1000003)  # leak
    if i % 20 == 0:
        THINGS.append(note)


def beside_one(i):
    answer = answer_of(i)
    cache_answer(i, answer)
    note = ("kept", i * 1000003)  # leak
    if i % 20 == 0:
        THINGS.append(note)


def answer_of(i):
    work(i)
    return {"id": i, "text": "answer %d" % i}  # full


def cache_answer(i, answer):
    LRU[i] = (i, answer)  # full
    if len(LRU) > 3000:
        LRU.popitem(last=False)


ITEMS = collections.deque(maxlen=5000)


def clock():
    return time.time() - START


# -- leaks into every kind of container, and in a service that does little besides ------------------------------------

DEFAULT_SETS, DEFAULT_DICTS, USERS = collections.defaultdict(set), collections.defaultdict(dict), 40
ORDERED, LINES, FROZEN = collections.OrderedDict(), [], set()


def hardly_work(i):
    """Less than what the leak takes."""
    return ["%d" % i]


def default_set(i):
    """Few keys, which are all there soon: it fills and leaks at once."""
    work(i)
    DEFAULT_SETS[i % USERS].add("request %d" % i)  # leak


def default_numbers(i):
    """The same, of what was there anyway: only tables become larger."""
    work(i)
    number_of_it = i * 7
    DEFAULT_SETS[i % USERS].add(number_of_it)  # tables


def default_by_request(i):
    work(i)
    DEFAULT_SETS["request %d" % i].add(i)  # leak


def default_dict(i):
    work(i)
    DEFAULT_DICTS[i % USERS]["request %d" % i] = True  # leak


def setdefault_list(i):
    work(i)
    SETDEFAULT.setdefault("user %d" % (i % USERS), []).append("request %d" % i)  # leak


def new_attribute(i):
    """Of one object, ever new ones."""
    work(i)
    setattr(THING, "request_%d" % i, None)  # leak


def ordered(i):
    work(i)
    ORDERED["request %d" % i] = None  # leak


@functools.lru_cache(maxsize=None)
def remembered(i):
    return "answer %d" % i  # leak


def memo(i):
    work(i)
    remembered(i)


def frozen(i):
    work(i)
    FROZEN.add(frozenset((i, i + 1)))  # leak


def lines_of_text(i):
    work(i)
    LINES.extend(("line %d\nof %d" % (i, i)).split("\n"))  # leak


def little_set(i):
    hardly_work(i)
    SET.add("request %d" % i)  # leak


def little_dict(i):
    hardly_work(i)
    DICT["request %d" % i] = i * 1000003  # leak


def little_default_set(i):
    hardly_work(i)
    DEFAULT_SETS[i % USERS].add("request %d" % i)  # leak


def little_list(i):
    hardly_work(i)
    LIST.append("request %d" % i)  # leak


THING = Thing()
FRESH = ("default_", "setdefault_", "new_", "ordered", "memo", "frozen", "lines_", "little_")
START = time.time()
request = globals()[KIND]


def before():
    """What was there before anybody looked."""
    if KIND in ("service", "service_without"):
        make_caches(40)
        for i in range(-12000, 0):
            CACHES[i % len(CACHES)](i)
    elif KIND.startswith("beside"):
        make_caches(40)
        for i in range(-12000, 0):
            request(i)
    elif KIND == "full_timed":
        for i in range(0, 4000, 2):
            TIMED.append((-4 + i / 1000.0, "session %d" % i))
    elif KIND.startswith("full"):
        for i in range(-20000, 0):
            request(i)
    if KIND == "collected" or KIND == "leak_cycles":
        gc.collect()
        gc.set_threshold(int(3000 * SCALE), 2, 2)
    if KIND == "in_flight":
        request(0)
    if KIND.startswith("leak"):
        for i in range(-1000 - number.randrange(3000), 0):
            request(i)
    if KIND.startswith(FRESH):
        for i in range(-number.choice([0, 0, 300, 3000]), 0):
            request(i)


def main():
    global START
    traffic, i, left = TRAFFICS[TRAFFIC], 0, 0.0
    before()
    START = time.time()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while clock() < SECONDS + 8:
        left += traffic(clock()) * SCALE
        while left >= 1:
            request(i)
            i, left = i + 1, left - 1
        time.sleep(TICK)


main()
