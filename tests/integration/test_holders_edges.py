# SPDX-License-Identifier: MIT
"""The edges of the graph that pyleak holders makes, against gc.get_referents() on every Python."""
import collections
import os
import subprocess
import sys

import pytest

import pythons
import wheels
from conftest import all_pythons
from helpers import Victim, pyleak, skip_here

# So many edges of a program are left that nothing explains.
LEFT = 60
# Kinds that are missed for a reason, by the type that refers and the one that is referred to (None: any).
EXPLAINED = [
    # The state of a module written in C is the allocator's; by their counts what it holds is told from what it only knows.
    ("module", None),
    # That of sockets keeps their type in a table that nobody else asks for.
    ("PyCapsule", "type"),
]

# What gc.get_referents() says otherwise than pyleak, and pyleak says rightly, is held to what it must be instead:
#
# - The dict of interned strings, which the collector sees from 3.14 on, counts none of them: a trial in edges.py shows it. They
#   are no references, and not counted here.
# - What functools.lru_cache has is held by links, which the collector does not know: the cache visits key and result of each
#   by itself. pyleak must have the cache's dict, the links as its values, and what each leads to.
# - Attributes in an instance belong to it here; since 3.13.5 gc.get_referents() has them with its dict, if there is one.
# - An object that refers to itself holds nothing by that.


def ours(path):
    """Addresses that each address leads to, and what type each is of."""
    edges, types = {}, {}
    with open(path) as file:
        for line in file:
            parts = line.split()
            targets = set()
            while len(parts) > 2:  # type names may have blanks, and be hexadecimal
                try:
                    address = int(parts[-1], 16)
                except ValueError:
                    break
                if address < 1 << 20:
                    break
                targets.add(address)
                parts.pop()
            edges[int(parts[0], 16)] = targets
            types[int(parts[0], 16)] = " ".join(parts[1:])
    return edges, types


class Edges:
    """All edges, and by types of both ends those that are missed, those of them that nothing explains, and those that the
    interpreter does not tell; with a sample of each kind."""

    def __init__(self):
        self.total, self.missed, self.unexplained, self.extra = 0, collections.Counter(), collections.Counter(), collections.Counter()
        self.unknown, self.samples, self.names = 0, {}, {}

    def miss(self, kind, source, target, unknown):
        self.missed[kind] += 1
        self.samples.setdefault(("missed", kind), []).append((source, target))
        self.unknown += unknown
        if not any(kind[0] == first and second in (None, kind[1]) for first, second in EXPLAINED):
            self.unexplained[kind] += 1

    def add_extra(self, kind, source, target):
        self.extra[kind] += 1
        self.samples.setdefault(("extra", kind), []).append((source, target))

    def found(self):
        return 1 - sum(self.missed.values()) / self.total

    def show(self, limit, samples):
        def named(address):
            return "%x %s" % (address, self.names[address]) if address in self.names else "%x" % address
        print("%d edges, missed %d: found %.3f %%; unexplained %d; to objects that are not known %d; extra %d" % (
            self.total, sum(self.missed.values()), 100 * self.found(), sum(self.unexplained.values()), self.unknown,
            sum(self.extra.values())))
        for name, table in (("missed", self.missed), ("extra", self.extra)):
            for kind, count in table.most_common(limit):
                print("%-7s %7d  %s -> %s%s: %s" % ((name, count) + kind + (
                    "" if name == "extra" or kind in self.unexplained else " (explained)", ", ".join(
                        "%s -> %s" % (named(source), named(target)) for source, target in self.samples[name, kind][:samples]))))


def by_links(edges, types):
    """What each functools.lru_cache leads to by the links in its dict."""
    def kinds(address, kind):
        return (target for target in edges.get(address, ()) if types.get(target, "").split(".")[-1] == kind)
    return {cache: {target for table in kinds(cache, "dict") for link in kinds(table, "_lru_list_elem") for target in edges[link] | {link}}
            for cache, kind in types.items() if kind == "functools._lru_cache_wrapper"}


def read(path):
    """What a process says of itself: (from, type, to, type) for each reference, and whose references are none."""
    wanted, borrowed = [], set()
    with open(path) as file:
        for line in file:
            words = line.split()
            if words[0] == "borrowed":
                borrowed.add(int(words[1], 16))
            else:
                wanted.append((int(words[0], 16), words[1], int(words[2], 16), words[3]))
    return wanted, borrowed


def look(pid, theirs, found):
    """Compares what a process says of itself with what pyleak says of it."""
    result = pyleak("holders", pid, "-n", 1, "--max-stop", "20s", environment={"PYLEAK_EDGES": found})
    assert result.status == 0, result
    edges, our_types = ours(found)
    wanted, borrowed = read(theirs)
    links = by_links(edges, our_types)
    owners, known, types = collections.defaultdict(set), collections.defaultdict(set), {}
    answer = Edges()
    for source, source_type, target, target_type in wanted:
        if target_type == "dict":
            owners[target].add(source)
        known[source].add(target)
        types[source], types[target] = source_type.split(":")[0], target_type.split(":")[0]
    for source, _, target, _ in wanted:
        if source == target or source in borrowed:
            continue
        kind = types[source], types[target]
        if kind[0] == "dict" and any(target == owner or target in edges.get(owner, ()) for owner in owners[source]):
            continue
        answer.total += 1
        if target in edges.get(source, ()) or target in links.get(source, ()):
            continue
        answer.miss(kind, source, target, source not in edges or target not in edges)
    for source, targets in edges.items():
        for target in targets - known[source] if source in types else ():
            answer.add_extra((types[source], types.get(target, our_types[target])), source, target)
    answer.names = {address: name for edge in wanted for address, name in (edge[:2], edge[2:]) if ":" in name}
    return answer


def compare(python, program, folder):
    """The edges of a program that edges.py has."""
    theirs, found = os.path.join(str(folder), "theirs"), os.path.join(str(folder), "ours")
    with Victim(python, "edges.py", theirs, program) as victim:
        return look(victim.pid, theirs, found)


def check(edges, least_edges):
    assert edges.total > least_edges
    assert edges.found() >= 0.995, (edges.total, edges.found(), edges.missed.most_common(10))
    # Of the unexplained none is a kind: what the child made for itself, and a handful of the interpreter's own.
    assert sum(edges.unexplained.values()) < LEFT, (edges.total, edges.unexplained.most_common(20))


@pytest.mark.parametrize("program", ["zoo", "service"])
@pytest.mark.long
def test_edges(python, program, tmp_path):
    edges = compare(python, program, tmp_path)
    check(edges, 40000)
    # The state of a module: all of the block that it is, and none of it is its objects'.
    assert not [edge for edge in edges.samples.get(("missed", ("module", "type")), ()) if edges.names[edge[0]] == "module:_io"
                and edges.names[edge[1]] != "type:UnsupportedOperation"], edges.missed
    # Behind a memoryview's words are numbers, and what lay there before.
    assert not [kind for kind in edges.extra if kind[0] == "memoryview"], edges.extra


# The last of each that was measured.
PROGRAMS = [("web", ["flask<=3.1.3", "sqlalchemy<=2.1.9"], 200000), ("frames", ["pandas<=3.1.1", "matplotlib<=3.11.2"], 400000)]


# Pythons of one's own have no such libraries: these come from the package index.
def cases():
    """Debian's, the newest, and of web, which is quicker, the oldest; with PYLEAK_EVERY_PYTHON=1 all."""
    found = all_pythons()
    for program, packages, least_edges in PROGRAMS:
        debian = [entry for entry in found if entry.executable.startswith("/usr/bin/")]
        others = [entry for entry in found if entry not in debian]
        if os.environ.get("PYLEAK_ONE_PYTHON") == "1":
            others = []
        elif os.environ.get("PYLEAK_EVERY_PYTHON") != "1":
            others = (others[:1] if program == "web" else []) + others[1:][-1:]
        for entry in debian + others:
            yield pytest.param(program, packages, least_edges, entry.executable, id=program + "-" + pythons.label(entry))


@pytest.mark.parametrize("program,packages,least_edges,python", list(cases()))
@pytest.mark.long
def test_edges_of_libraries(program, packages, least_edges, python, tmp_path, monkeypatch):
    entry = pythons.of(python)
    if not python.startswith("/usr/bin/"):
        monkeypatch.setenv("PYTHONPATH", wheels.fetch(entry, "%s-%s" % (program, pythons.label(entry)), packages))
    modules = ", ".join(package.split("<")[0] for package in packages)
    if subprocess.run([python, "-c", "import " + modules], stderr=subprocess.DEVNULL, check=False).returncode:
        assert python.startswith("/usr/bin/"), "wheels that cannot be imported: " + modules
        skip_here("libraries", modules)
    check(compare(python, program, tmp_path), least_edges)


def main():
    """Shows which kinds of edges are missed, and which pyleak alone has: PYTHON PROGRAM FOLDER [KINDS [SAMPLES]]."""
    python, program, folder = sys.argv[1:4]
    os.makedirs(folder, exist_ok=True)
    compare(python, program, folder).show(*map(int, sys.argv[4:] + ["25", "1"][len(sys.argv) - 4:]))


if __name__ == "__main__":
    main()
