# SPDX-License-Identifier: MIT
"""Programs that make it hard to say which line allocates: signals, threads, recursion, generators,
coroutines, interpreters beside the main one. The figures of the lines that keep blocks are exact."""
import pytest

from programs import Program, assert_kept, assert_nothing_lost, at, control, figures, recorded


@pytest.mark.alike
def test_signals(python, tmp_path):
    """Handlers in Python, a thousand a second, that allocate and keep in the midst of allocations."""
    with Program(python, tmp_path, """
import signal
handled = [None] * 100000
taken = 0
def handler(number, frame):
    global taken
    if taken < len(handled):
        handled[taken] = bytes(300)  # at handler
        taken += 1
    [str(i) for i in range(20)]
kept = [None] * 200000
def work():
    for i in range(200000):
        kept[i] = bytes(2 + i % 100)  # at work
        if i % 1000 == 0:
            [dict(a=k) for k in range(300)]
signal.signal(signal.SIGALRM, handler)
meet("ready")
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
work()
for i in range(2000):
    [str(k) for k in range(200)]
signal.setitimer(signal.ITIMER_REAL, 0)
# One handler may have interrupted another before that had counted.
meet(str(sum(block is not None for block in handled)))
""") as victim:
        with recorded(victim) as record:
            victim.tell("go")
            taken = int(victim.line(60))
    assert taken > 50
    found = at(record.document, victim)
    assert_kept(found["handler"], taken * (victim.header + 300), taken)
    assert_kept(found["work"], sum(victim.header + 2 + i % 100 for i in range(200000)), 200000)
    assert_nothing_lost(record.document)


@pytest.mark.alike
def test_threads_come_and_go(python, tmp_path):
    """3,000 threads, 20 at a time, that keep 20 blocks each, some from the raw domain."""
    with Program(python, tmp_path, """
kept = [None] * 3000
locks = [None] * 3000
def work(number):
    mine = [None] * 20
    for i in range(20):
        mine[i] = bytes(1000 + i)  # at work
    locks[number] = threading.Lock()  # at lock
    kept[number] = mine
def start(first):
    threads = [threading.Thread(target=work, args=(number,)) for number in range(first, first + 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
start(0)
meet("ready")
for first in range(0, 3000, 20):
    start(first)
meet("done")
""") as victim:
        with recorded(victim) as record:
            victim.meet("done", 120)
            counters = control(victim.pid)
    found = at(record.document, victim)
    assert_kept(found["work"], 3000 * sum(victim.header + 1000 + i for i in range(20)), 60000)
    assert found["lock"][1] in (3000, 6000)
    assert_nothing_lost(record.document)
    assert counters["untraced"] == 0


def test_recursion(python, tmp_path):
    recursion(python, tmp_path, 16)


@pytest.mark.parametrize("frames", [1, 128])
def test_recursion_frames(one_python, tmp_path, frames):
    recursion(one_python, tmp_path, frames)


def recursion(python, tmp_path, frames):
    with Program(python, tmp_path, """
sys.setrecursionlimit(3000)
kept = [None] * 1000
def down(depth):
    kept[depth] = bytes(100 + depth)  # at down
    if depth < 899:
        down(depth + 1)
def across(depth):
    if depth:
        return across(depth - 1)
    kept[900] = bytes(77)  # at bottom
down(0)
meet("ready")
for turn in range(5):
    down(0)
    across(800)
meet("done")
""") as victim:
        with recorded(victim, "--frames", frames, "--group-by", "traceback") as record:
            victim.meet("done")
    rows = [row for row in record.document["stats"] if row["lineno"] == victim.lines["down"]
            and row["filename"] == victim.path and row["function"] == "down" and row["size"]]
    assert sum(row["count"] for row in rows) == 900
    assert sum(row["size"] for row in rows) == sum(victim.header + 100 + i for i in range(900))
    assert len(rows) == (1 if frames == 1 else frames)
    assert {len(row["traceback"]) for row in rows} == ({1} if frames == 1 else set(range(2, frames + 1)))
    assert at(record.document, victim)["bottom"] == (victim.header + 77, 1)
    assert_nothing_lost(record.document)


def test_generators_and_coroutines(python, tmp_path):
    with Program(python, tmp_path, """
import asyncio
kept = [None] * 9000
place = iter(range(9000))
def numbers(n):
    for i in range(n):
        data = bytes(200)  # at generator
        yield data
def delegated(n):
    yield from numbers(n)
async def leaf(n):
    for i in range(n):
        kept[next(place)] = bytes(300)  # at coroutine
        await asyncio.sleep(0)
async def nest(depth):
    if depth:
        await nest(depth - 1)
    else:
        await leaf(30)
async def stream(n):
    for i in range(n):
        data = bytes(400)  # at stream
        yield data
async def all_of_it():
    await asyncio.gather(*[nest(i % 20) for i in range(100)])
    async for data in stream(1000):
        kept[next(place)] = data
def run():
    for data in delegated(1000):
        kept[next(place)] = data
    for data in sorted(numbers(1000), key=len):
        kept[next(place)] = data
    loop = asyncio.new_event_loop()
    loop.run_until_complete(all_of_it())
    loop.close()
meet("ready")
run()
meet("done")
""") as victim:
        with recorded(victim) as record:
            victim.meet("done")
    found = at(record.document, victim)
    assert found["generator"] == (2000 * (victim.header + 200), 2000)
    assert found["coroutine"] == (3000 * (victim.header + 300), 3000)
    assert found["stream"] == (1000 * (victim.header + 400), 1000)
    assert_nothing_lost(record.document)


INTERPRETERS = """
try:
    import _interpreters as interpreters
except ImportError:
    try:
        import _xxsubinterpreters as interpreters
    except ImportError:
        interpreters = None
import _testcapi
def make(own_gil):
    if not interpreters:
        return None
    if hasattr(interpreters, "new_config"):
        return interpreters.create("isolated" if own_gil else "legacy")
    try:
        return interpreters.create(isolated=own_gil)
    except TypeError:
        return interpreters.create()
TEXT = '''
import sys
def work():
    blocks = [bytes(1000 + i) for i in range(500)]
    for turn in range(100):
        more = [str(i) * 10 for i in range(300)]
        for i, block in enumerate(blocks):
            assert len(block) == 1000 + i
work()
'''
def run(number, own_gil):
    if not interpreters:
        return
    for turn in range(3):
        one = make(own_gil)
        wrong = interpreters.run_string(one, TEXT)
        interpreters.destroy(one)
        if wrong is not None:
            failures.append(str(wrong))
failures = []
kept = [None] * 20000
def main_work():
    for i in range(20000):
        kept[i] = bytes(500)  # at main
        if i % 10 == 0:
            [str(k) for k in range(50)]
meet("ready")
threads = [threading.Thread(target=run, args=(i, i % 2)) for i in range(4)]
for thread in threads:
    thread.start()
main_work()
for thread in threads:
    thread.join()
if not interpreters:
    failures += [str(code) for code in [_testcapi.run_in_subinterp(TEXT) for _ in range(5)] if code]
meet("done" if not failures else repr(failures)[:1000])
"""


def test_subinterpreters(python, tmp_path):
    """Interpreters come and go, from 3.12 on with a GIL of their own; the main one's figures stay exact."""
    with Program(python, tmp_path, INTERPRETERS.replace("import _testcapi", """
try:
    import _testcapi
except ImportError:
    if not interpreters:
        sys.exit("nothing makes interpreters here")
""")) as victim:
        with recorded(victim) as record:
            victim.meet("done", 120)
    assert_kept(at(record.document, victim)["main"], 20000 * (victim.header + 500), 20000)
    assert record.document["lost"]["events"] == 0
    # 500 blocks of about 1,500 bytes in each: they are gone.
    rows = figures(record.document, victim)
    assert all(size < 100 << 20 for size, _ in rows.values())
