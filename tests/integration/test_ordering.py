# SPDX-License-Identifier: MIT
"""The recorder's places where one processor's stores are seen by another in an order that matters, by a model.

An emulator on x86-64 shows no such reordering, and a stress test on real hardware only what happened that day. So all
executions are gone through of a few instructions as the sources have them, on the memory that Armv8 promises: a store is
seen by all others at once, and a thread's accesses take effect in any order but for what the same word, a dependency, a
barrier, an acquire or a release forbids. (Forwarding of a thread's own store to itself is not in it: no place here reads
what it has just written.) Each place must hold, and must fail once one of its barriers is left out: else the model, or
the barrier, would be worth nothing. doc/arm64.md has the table of places.
"""
import pytest

FULL, STORES, LOADS = "dmb ish", "dmb ishst", "dmb ishld"


def load(word, name, acquire=False):
    return {"kind": "load", "word": word, "name": name, "acquire": acquire, "after": ()}


def store(word, value, release=False, only_if=None):
    """`only_if`: a name and what must have been loaded by it, a control dependency."""
    return {"kind": "store", "word": word, "value": value, "release": release, "only_if": only_if,
            "after": (only_if[0],) if only_if else ()}


def barrier(which):
    return {"kind": which}


def comes_first(thread, i, j):
    """Whether access i of a thread takes effect before its access j, which is behind it."""
    one, other = thread[i], thread[j]
    for between in thread[i + 1:j]:
        if (between["kind"] == FULL or between["kind"] == LOADS and one["kind"] == "load" or
                between["kind"] == STORES and one["kind"] == other["kind"] == "store"):
            return True
    return (one["word"] == other["word"] or one.get("acquire") or other.get("release") or one.get("name") in other["after"])


def outcomes(memory, *threads):
    """What can have been loaded, by name, when all is done: every one of them."""
    accesses = [(t, i) for t, thread in enumerate(threads) for i, op in enumerate(thread) if op["kind"] in ("load", "store")]
    before = {(t, j): {(t, i) for s, i in accesses if s == t and i < j and comes_first(threads[t], i, j)} for t, j in accesses}
    start = (frozenset(), tuple(sorted(memory.items())), ())
    seen, left, found = {start}, [start], set()
    while left:
        done, words, loaded = left.pop()
        if len(done) == len(accesses):
            found.add(loaded)
        for access in accesses:
            if access in done or not before[access] <= done:
                continue
            op, now, names = threads[access[0]][access[1]], dict(words), dict(loaded)
            if op["kind"] == "load":
                names[op["name"]] = now[op["word"]]
            elif not op["only_if"] or names[op["only_if"][0]] == op["only_if"][1]:
                now[op["word"]] = op["value"]
            state = (done | {access}, tuple(sorted(now.items())), tuple(sorted(names.items())))
            if state not in seen:
                seen.add(state)
                left.append(state)
    return [dict(loaded) for loaded in found]


def without(thread, left_out):
    """`left_out`: a barrier, or "acquire" or "release" of all."""
    return [dict(op, **{left_out: False}) if left_out in op else op for op in thread if op["kind"] != left_out]


def reading(left_out=None):
    """probe/inline/thread.h, reading_begin() to detached_end(), with thread.c, pl_anyone_is_reading(): who looks at frames
    without the GIL, and the interpreter that ends and frees them."""
    # An exchange: ldaxr, stlxr. What is behind it may be read before the store is seen.
    looks = [load("reading", "old", acquire=True), store("reading", 1, release=True), barrier(FULL),
             load("finalizing", "finalizing"), load("frames", "frames"), store("reading", 0, release=True)]
    frees = [store("finalizing", 1), barrier(FULL), load("reading", "anyone"), store("frames", "gone", only_if=("anyone", 0))]
    if left_out:
        who, what = left_out
        looks, frees = (without(looks, what), frees) if who == "looks" else (looks, without(frees, what))
    # The frames that it looks at, having seen that nobody ends, are there.
    return [end for end in outcomes({"reading": 0, "finalizing": 0, "frames": "there"}, looks, frees)
            if end["finalizing"] == 0 and end["frames"] == "gone"]


def stack(left_out=None):
    """probe/inline/stack.c, pl_stack_copy(), over an older copy, with engine/inline_stacks.c, read_stack()."""
    writes = [store("sequence", 0), barrier(STORES), store("a", "new"), store("b", "new"), store("sequence", 2, release=True)]
    reads = [load("sequence", "before"), barrier(LOADS), load("a", "a"), load("b", "b"), barrier(LOADS), load("sequence", "behind")]
    if left_out == "the first of the reader":
        del reads[1]
    elif left_out == "the second of the reader":
        del reads[-2]
    elif left_out:
        writes = without(writes, left_out)
    right = {1: ("old", "old"), 2: ("new", "new")}
    return [end for end in outcomes({"sequence": 1, "a": "old", "b": "old"}, writes, reads)
            if end["before"] == end["behind"] and end["before"] and (end["a"], end["b"]) != right[end["before"]]]


def row(left_out=None):
    """probe/inline/trace.c and code.c: a row's hash goes last; engine/inline_rows.c and inline_frames.c read the row again
    behind a hash that they saw (in the first copy words are loaded in any order)."""
    writes = [store("field", "filled"), store("hash", 1, release=True)]
    reads = [load("hash", "hash"), load("field", "at once"), barrier(LOADS), load("field", "again")]
    if left_out == "release":
        writes = without(writes, left_out)
    elif left_out == LOADS:
        reads = without(reads, left_out)
    wrong = "at once" if left_out == "reading again" else "again"
    return [end for end in outcomes({"hash": 0, "field": "empty"}, writes, reads) if end["hash"] and end[wrong] == "empty"]


PLACES = {reading: [("looks", FULL), ("frees", FULL), ("looks", "release")],
          stack: [STORES, "release", "the first of the reader", "the second of the reader"],
          row: ["release", LOADS, "reading again"]}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_holds(place):
    assert not place()


@pytest.mark.parametrize("place, left_out", [(place, one) for place, all_of_it in PLACES.items() for one in all_of_it],
                         ids=lambda part: part.__name__ if callable(part) else str(part))
def test_needs(place, left_out):
    assert place(left_out)


def test_known():
    """What every Armv8 does, by the model: message passing and store buffering without barriers, and with them."""
    passed = [load("flag", "flag"), load("data", "data")]
    assert {"flag": 1, "data": 0} in outcomes({"flag": 0, "data": 0}, [store("data", 1), store("flag", 1)], passed)
    ordered = [load("flag", "flag", acquire=True), load("data", "data")]
    assert {"flag": 1, "data": 0} not in outcomes({"flag": 0, "data": 0}, [store("data", 1), store("flag", 1, release=True)], ordered)
    buffered = [[store(mine, 1), load(other, other)] for mine, other in (("x", "y"), ("y", "x"))]
    assert {"x": 0, "y": 0} in outcomes({"x": 0, "y": 0}, *buffered)
    fenced = [[thread[0], barrier(FULL), thread[1]] for thread in buffered]
    assert {"x": 0, "y": 0} not in outcomes({"x": 0, "y": 0}, *fenced)
