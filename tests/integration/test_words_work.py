# SPDX-License-Identifier: MIT
"""Real extensions that reach their allocator by words which are loaded: what they keep is on the line that keeps it, what
they give back is gone from it, and they compute what they compute without pyleak."""
import os

import pytest

import pythons
import wheels
from helpers import Victim, leftovers, pyleak, skip_here

# Of each: what is fetched; the program; how many bytes are kept, where it can be told; how much of the growth of the heap
# must be on the line at least. A request is less than its chunk: blocks of 24 bytes take 32.
PROGRAMS = {
    # Rust: one register holds free() for many calls.
    "pydantic_core": (["pydantic_core==2.14.5", "typing_extensions==4.12.2"], """
from pydantic_core import SchemaValidator, core_schema as s
def keep(): return SchemaValidator(s.typed_dict_schema({"f%d" % i: s.typed_dict_field(s.int_schema()) for i in range(40)})) # leak
validator = SchemaValidator(s.list_schema(s.dict_schema(s.str_schema(), s.int_schema())))
def work(i):
    try: validator.validate_python([{"a": "x"}])
    except ValueError as error: return validator.validate_json(b'[{"a":%d}]' % i), len(str(error))
""", 0.8),
    # A table of functions of its own, in .data.
    "hiredis": (["hiredis==3.0.0"], """
import hiredis
def keep():
    reader = hiredis.Reader()
    reader.feed(b"$100000\\r\\n" + b"x" * 30000) # leak
    return reader
def work(i):
    reader = hiredis.Reader()
    reader.feed(b"*2\\r\\n$3\\r\\nabc\\r\\n:%d\\r\\n" % i)
    return reader.gets()
""", 0.95),
}

FRAME = """
import ctypes, json, sys
%s
class Info(ctypes.Structure):
    _fields_ = [(n, ctypes.c_size_t) for n in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keep".split()]
library = ctypes.CDLL(None)
library.mallinfo2.restype = Info
def used():
    info = library.mallinfo2()
    return info.uordblks + info.hblkhd
kept = []
kept.extend(keep() for _ in range(3))
work(1)
print("ready", flush=True)
for line in sys.stdin:
    command, count = line.split()
    before = used()
    if command == "keep":
        kept.extend([keep() for _ in range(int(count))])
        answer = used() - before
    elif command == "drop":
        answer = kept.clear()
    else:
        answer = repr([work(i) for i in range(int(count))])
    print(json.dumps(answer), flush=True)
"""


def a_python():
    for entry in pythons.pythons():
        if entry.version[:2] == (3, 12) and not entry.root and not entry.free_threaded:
            return entry
    skip_here("python", "3.12")
    return None


@pytest.mark.parametrize("name", PROGRAMS)
def test_kept_and_given_back(name, tmp_path):
    packages, code, least = PROGRAMS[name]
    python = a_python()
    script = tmp_path / "program.py"
    script.write_text(FRAME % code)
    leak = 1 + next(i for i, line in enumerate(script.read_text().splitlines()) if line.endswith("# leak"))
    environment = dict(os.environ, PYTHONPATH=wheels.fetch(python, "%s-3.12" % "-".join(packages), packages))
    with Victim(python.executable, None, str(script), env=environment) as victim:
        def on_the_line():
            result = pyleak("attach", victim.pid, "--duration", "20ms", "--format", "json", "--limit", 0)
            document = result.json()
            assert document["lost"] == {"events": 0, "sites": 0}
            return sum(row["size"] for row in document["stats"]
                       if row["domain"] == "native" and row["filename"] == str(script) and row["lineno"] == leak), document

        computed = victim.ask("work 200")
        for _ in range(2):
            assert pyleak("attach", victim.pid, "--keep").status == 0
            assert victim.ask("work 200") == computed
            grown = victim.ask("keep 100")
            seen, document = on_the_line()
            assert least <= seen / grown <= 1.02, (seen, grown)
            # Of the warming up at most: no free of a block that was seen goes by as one from before.
            assert document["freed_before"]["count"] < 200, document["freed_before"]
            assert document["freed_unseen"]["count"] == 0, document["freed_unseen"]
            assert victim.ask("drop 0") is None
            # A table of the library's own may have grown.
            assert on_the_line()[0] < grown / 50
            assert victim.ask("work 200") == computed
            assert pyleak("detach", victim.pid).status == 0
            assert not leftovers(victim.pid, kept=True)
            assert victim.ask("work 200") == computed
            victim.ask("keep 3")
