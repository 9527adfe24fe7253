# SPDX-License-Identifier: MIT
"""What the growth of the RSS consists of: the parts add up, agree with what Python and the C library say of themselves,
and fragmentation is called by its name."""
import array
import os
import re
import signal
from xml.etree import ElementTree

import pytest

import pythons
from helpers import TABLES_END, TABLES_FIRST, Pyleak, library, needs_library, pyleak, wait_clean, wait_hooked
from programs import Program, recorded

KIB, MIB = 1 << 10, 1 << 20

PROGRAM = """
import ctypes
kept = []
def fragment(blocks):
    small = [object() for i in range(blocks)]  # at small
    large = [bytes(700) for i in range(blocks // 10)]  # at large
    kept.append((small[::50], large[::20]))
def fragment_in_threads(blocks):
    threads = [threading.Thread(target=fragment, args=(blocks,)) for i in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
def of_the_heap(blocks):
    many = [bytes(600 + i % 3000) for i in range(blocks)]
    kept.append(many[::20])
def in_eight_threads(blocks):
    # Each allocates in an arena of its own.
    threads = [threading.Thread(target=of_the_heap, args=(blocks // 8,)) for i in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
def large(blocks):
    # Mapped at first: malloc learns from the first that is freed, and takes the others from its heap.
    first = [bytearray(b"x") * (140000 + i % 7 * 30000) for i in range(blocks)]
    del first[::2]
    second = [bytearray(b"x") * (150000 + i % 5 * 10000) for i in range(blocks)]
    kept.append((first[::10], second[::10]))
def native(blocks):
    library = ctypes.PyDLL(None)
    library.malloc.restype = ctypes.c_void_p
    library.malloc.argtypes = [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    library.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    many = [library.malloc(100 + i % 900) for i in range(blocks)]
    for i, block in enumerate(many): library.memset(block, 1, 100 + i % 900)
    for i, block in enumerate(many):
        if i % 30: library.free(block)
held = []
def hold(blocks):
    library = ctypes.PyDLL(sys.argv[1])
    library.native_take.restype = ctypes.c_void_p
    library.native_take.argtypes = [ctypes.c_int, ctypes.c_size_t]
    library.native_drop.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
    held.extend([library.native_drop, [bytes(40) for i in range(blocks * 100)]])
    for i in range(blocks):
        held.append(library.native_take(0, 200 << 10))
        ctypes.memset(held[-1], 1, 200 << 10)
def let_go(unused):
    drop = held.pop(0)
    held.pop(0)
    while held: drop(0, held.pop(), 0)
def leak(blocks):
    kept.append([bytes(40) for i in range(blocks)])  # at leak
def deep(depth):
    # Through C, so that it takes C's stack on every version.
    return list(map(deep, [depth - 1])) if depth else time.sleep(1000)
def stacks(threads):
    for i in range(threads):
        threading.Thread(target=deep, args=(300,), daemon=True).start()
    time.sleep(0.5)
class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]
def heap(unused):
    # What the fast bins hold is not free to us.
    function = ctypes.CDLL(None).mallinfo2
    function.restype = Mallinfo
    info = function()
    print(info.arena, info.fordblks - info.fsmblks)
def info(unused):
    library = ctypes.CDLL(None)
    library.fopen.restype = ctypes.c_void_p
    library.fopen.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    library.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
    library.fclose.argtypes = [ctypes.c_void_p]
    file = library.fopen((sys.argv[0] + ".info").encode(), b"w")
    library.malloc_info(0, file)
    library.fclose(file)
def advise(unused):
    # As numpy does of large arrays: one mapping becomes three. (MADV_DONTDUMP, which changes nothing else.)
    library = ctypes.CDLL(None)
    for line in open("/proc/self/maps"):
        start, end = (int(number, 16) for number in line.split()[0].split("-"))
        if "[heap]" in line or ("rw-p 00000000 00:00 0" in line and start % (64 << 20) == 0):
            third = (end - start) // 3 & ~4095
            assert library.madvise(ctypes.c_void_p(start + third), ctypes.c_size_t(third), 16) == 0
    assert sum("[heap]" in line for line in open("/proc/self/maps")) == 3
def arenas(unused):
    sys._debugmallocstats()
    sys.stderr.flush()
command = meet("ready")
while True:
    name, argument = command.split()
    globals()[name](int(argument))
    command = meet("done")
"""


def growth(document):
    """The growth of the RSS and its causes, which add up to it as the parts do to the RSS."""
    causes = dict(document["account"]["growth"])
    del causes["fragmentation"]
    rss = causes.pop("rss")
    assert rss == sum(causes.values()) == document["rss"]["after"] - document["rss"]["before"], causes
    for moment in ("before", "after"):
        parts = [part[moment] for name, part in document["account"].items()
                 if name not in ("growth", "arenas_free_by_size")]
        assert sum(part or 0 for part in parts) == document["rss"][moment]
    return rss, causes


def tell(victim, *commands):
    for command in commands:
        victim.tell(command)
        assert victim.line(60) == "done"


def free_threaded(python):
    return pythons.of(python).free_threaded


@pytest.mark.long
def test_fragmentation(python, tmp_path):
    """Many are allocated, most are freed, none leak."""
    with Program(python, tmp_path, PROGRAM) as victim:
        with recorded(victim) as record:
            tell(victim, "fragment 500000")
        document = record.document
        rss, causes = growth(document)
        assert rss > 30 * MIB
        if free_threaded(python):
            assert document["account"]["arenas_free"] == {"before": None, "after": None}
            return
        assert abs(causes["unexplained"]) < 0.05 * rss, causes
        assert causes["arenas_free"] > 0.9 * 500000 * 16 and causes["heap_free"] > 0.9 * 50000 * 736, causes
        assert document["account"]["growth"]["fragmentation"] is True
        sizes = {row["size"]: row["free"] for row in document["account"]["arenas_free_by_size"]}
        assert max(sizes, key=sizes.get) == 16, sizes


@pytest.mark.parametrize("command", ["of_the_heap 40000", "in_eight_threads 80000", "large 500", "native 150000"])
def test_fragmented_heap(one_python, tmp_path, command):
    """The same of the C library: in its main arena, in those of threads, above what it would map, and by native code."""
    with Program(one_python, tmp_path, PROGRAM) as victim:
        with recorded(victim) as record:
            tell(victim, command)
        rss, causes = growth(record.document)
        assert rss > 30 * MIB and abs(causes["unexplained"]) < 0.05 * rss, causes
        assert record.document["account"]["growth"]["fragmentation"] is True, causes
        assert causes["heap_free"] > 0.5 * rss, causes


@pytest.mark.alike
def test_leak(python, tmp_path):
    """A leak is explained by its line, and is not called fragmentation."""
    with Program(python, tmp_path, PROGRAM) as victim:
        with recorded(victim) as record:
            tell(victim, "leak 400000")
        rss, causes = growth(record.document)
        assert causes["tracked"] > 20 * MIB
        assert record.document["account"]["growth"]["fragmentation"] is False
        if not free_threaded(python):
            # Blocks that are rounded up, and a list, all of one line.
            assert abs(causes["unexplained"]) < 0.05 * rss, causes


def test_sentences(one_python, tmp_path):
    with Program(one_python, tmp_path, PROGRAM) as victim:
        with Pyleak("attach", victim.pid) as running:
            wait_hooked(victim.pid, running)
            tell(victim, "fragment 500000")
            result = running.finish(signal.SIGTERM)
        assert result.status == 0, result
        assert re.search(r"^RSS \+[\d.]+ MiB: .*\+[\d.]+ MiB free in the C library's heap", result.stdout, re.M), result
        assert re.search(r"^Most of this is not a leak but fragmentation: [\d.]+ MiB were freed, but Python's arenas and the "
                         r"C library's heap cannot give them back", result.stdout, re.M), result


def test_pymalloc_agrees(python, tmp_path):
    """What the interpreter says of its own arenas."""
    if free_threaded(python):
        return
    with open(str(tmp_path / "stats"), "w+") as stats, \
            Program(python, tmp_path, PROGRAM, stderr=stats) as victim:
        tell(victim, "fragment 300000", "leak 100000", "arenas 0")
        result = pyleak("diff", victim.pid, "--interval", "200ms", "--format", "json")
        assert result.status == 0, result
        account = result.json()["account"]
        stats.seek(0)
        text = stats.read()
        says = {name: int(value.replace(",", "")) for name, value in re.findall(r"^(.*?) += +([\d,]+)$", text, re.M)}
        allocated, available = says["# bytes in allocated blocks"], says["# bytes in available blocks"]
        unused = next(value for name, value in says.items() if "unused pools" in name)
        lost = says["# bytes lost to pool headers"] + says["# bytes lost to quantization"]
        free = account["arenas_free"]["after"]
        # Of the last arena a part was never touched; pyleak's window has allocated a little.
        assert available + unused - 1.2 * MIB < free <= available + unused + 0.1 * MIB, (free, available, unused)
        # Where an arena is not aligned, its ends are no pool: some of that is in memory.
        beside = says["# bytes lost to arena alignment"]
        assert -0.1 * MIB < account["arenas_used"]["after"] - allocated - lost < beside + 0.1 * MIB, (account, says)


@pytest.mark.parametrize("command", ["fragment 300000", "fragment_in_threads 100000"])
def test_glibc_agrees(one_python, tmp_path, command):
    """What malloc says of its own arenas: the main one, and those of threads."""
    with Program(one_python, tmp_path, PROGRAM) as victim:
        tell(victim, command)
        victim.tell("heap 0")
        arena, free = map(int, victim.line().split())
        assert victim.line() == "done"
        result = pyleak("diff", victim.pid, "--interval", "200ms", "--format", "json")
        assert result.status == 0, result
        account = result.json()["account"]
        assert free > 10 * MIB
        used = account["heap_used"]["after"]
        # Some of the free pages were given back (trimmed), or never used.
        assert 0.95 * free - 256 * KIB < account["heap_free"]["after"] < free + 64 * KIB, (account, arena, free)
        assert abs(used - (arena - free)) < 256 * KIB, (used, arena, free)


def c_libraries():
    """One Python for each C library there is: this machine's, and with PYLEAK_EVERY_PYTHON=1 those of roots."""
    own = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else pythons.pythons()[-1].executable
    roots = {python.root: python.executable for python in pythons.pythons() if python.root and not python.free_threaded}
    return [own] + (list(roots.values()) if os.environ.get("PYLEAK_EVERY_PYTHON") == "1" else [])


@pytest.mark.parametrize("python", c_libraries())
@pytest.mark.parametrize("command", ["fragment 300000", "fragment_in_threads 100000", "native 150000"])
def test_malloc_info_agrees(python, command, tmp_path):
    """What malloc_info() says of all its arenas, on each version of glibc."""
    with Program(python, tmp_path, PROGRAM) as victim:
        tell(victim, command, *(["advise 0"] if "threads" in command else []), "info 0")
        says = ElementTree.parse(victim.path + ".info").getroot()
        # The sums of all arenas stand behind them. The rest is free, with the top; what lies in fast bins is not to us.
        free = int(says.find("total[@type='rest']").get("size"))
        used = int(says.find("system[@type='current']").get("size")) - free
        result = pyleak("diff", victim.pid, "--interval", "200ms", "--format", "json")
        assert result.status == 0, result
        account = result.json()["account"]
        assert free > 8 * MIB
        assert 0.95 * free - 256 * KIB < account["heap_free"]["after"] < free + 64 * KIB, (account, free, used)
        assert abs(account["heap_used"]["after"] - used) < 256 * KIB, (account, free, used)


@pytest.mark.alike
def test_shrinks(python, tmp_path):
    """What was allocated before, natively and by Python, is freed: that is said, and nothing is shown as growing."""
    if pythons.of(python).root:
        needs_library(python, "native")
    with Program(python, tmp_path, PROGRAM, library("native")) as victim:
        tell(victim, "hold 200")
        with recorded(victim) as record:
            tell(victim, "let_go 0")
        document = record.document
        rss, causes = growth(document)
        # The blocks of malloc are so large that each is a mapping.
        assert rss < -35 * MIB, causes
        assert causes["older"] < -35 * MIB and causes["tracked"] < MIB, causes
        assert abs(causes["unexplained"]) < 0.1 * -rss, causes
        assert not [row for row in document["stats"] if row["size"] > 256 * KIB], document["stats"]
        assert document["freed_before"]["count"] >= 200, document["freed_before"]
        assert document["freed_before"]["size"] >= 200 * 200 * KIB, document["freed_before"]
        assert document["account"]["growth"]["fragmentation"] is False


def test_stacks(one_python, tmp_path):
    with Program(one_python, tmp_path, PROGRAM) as victim:
        with recorded(victim) as record:
            tell(victim, "stacks 20")
        rss, causes = growth(record.document)
        assert causes["stacks"] > 20 * 40 * KIB, causes
        # The stacks alone are half of it: without them it would not be so.
        assert abs(causes["unexplained"]) < 0.2 * rss, causes


def test_kept_probe_remembers(one_python, tmp_path):
    """Who comes back to a kept probe gets the account since it was planted."""
    with Program(one_python, tmp_path, PROGRAM) as victim:
        assert pyleak("attach", victim.pid, "--keep").status == 0
        tell(victim, "fragment 300000")
        result = pyleak("attach", victim.pid, "--duration", "200ms", "--format", "json")
        assert result.status == 0, result
        rss, causes = growth(result.json())
        assert rss > 20 * MIB and abs(causes["unexplained"]) < 0.05 * rss, causes
        assert result.json()["account"]["growth"]["fragmentation"] is True
        assert pyleak("detach", victim.pid).status == 0
        wait_clean(victim.pid, 1)


def test_nothing_is_brought_into_memory(one_python, tmp_path):
    """What is only reserved stays so: a heap's top, pools that were never used, pages that were given back."""
    with Program(one_python, tmp_path, PROGRAM) as victim:
        tell(victim, "fragment 100000")
        assert pyleak("attach", victim.pid, "--keep").status == 0
        wait_hooked(victim.pid)
        before = [present(victim.pid, start, end) for start, end in heaps(victim.pid)]
        for _ in range(3):
            assert pyleak("diff", victim.pid, "--interval", "50ms", "--format", "json").status == 0
        assert [present(victim.pid, start, end) for start, end in heaps(victim.pid)] == before
        assert pyleak("detach", victim.pid).status == 0
        wait_clean(victim.pid, 1)


def heaps(pid):
    """Where memory without a file is mapped, but for pyleak's."""
    with open("/proc/%d/maps" % pid) as file:
        lines = [line.split() for line in file]
    ranges = [tuple(int(end, 16) for end in words[0].split("-")) for words in lines
              if words[1] == "rw-p" and words[4] == "0" and words[5:] in ([], ["[heap]"])]
    return [(start, end) for start, end in ranges if not TABLES_FIRST <= start < TABLES_END]


def present(pid, start, end):
    """How many pages there have anything behind them: in memory, be it the page of zeros."""
    with open("/proc/%d/pagemap" % pid, "rb") as file:
        file.seek(start // 4096 * 8)
        return sum(word >> 63 for word in array.array("Q", file.read((end - start) // 4096 * 8)))
