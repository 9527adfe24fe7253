# SPDX-License-Identifier: MIT
"""Writes two snapshots, and what tracemalloc itself makes of them, as rows of C tables.

There are few files, lines and sizes, so that many rows are equal in their first keys.
"""
import random
import sys
from tracemalloc import Snapshot


def traces(randomly):
    files = ["/app/a.py", "/app/b.py", "/lib/a.py", "<unknown>", "/app/\u00e9.py", "/app/B.py"]
    places = [(name, line) for name in files for line in (0, 1, 9, 10)]
    stacks = [tuple(randomly.sample(places, randomly.randint(1, 3))) for _ in range(60)]
    sizes = [1, 7, 48, 48, 56, 56, 512, 100 * 1024, 2**24 + 1, 10291, 10292]
    return [(randomly.choice(sizes), randomly.choice(stacks)) for _ in range(randomly.choice((5, 60, 300)))]


def snapshot(blocks):
    return Snapshot([(0, size, stack, len(stack)) for size, stack in blocks], 3)


def quote(text):
    return '"' + "".join(c if " " <= c < "\x7f" and c not in '"\\' else "".join("\\%03o" % b for b in c.encode())
                         for c in text) + '"'


def row(stat):
    trace = "|".join("%s:%d" % (frame.filename, frame.lineno) for frame in stat.traceback)
    return "{%s, %d, %d, %d, %d, %s}," % (quote(trace), stat.size, getattr(stat, "size_diff", 0), stat.count,
                                          getattr(stat, "count_diff", 0), quote(str(stat)))


def main():
    randomly = random.Random(41)
    with open(sys.argv[1], "w") as out:
        names = []
        for case in range(12):
            old, new = traces(randomly), traces(randomly)
            # What stays is in both, and some lines come out even.
            new = old[:len(old) // 2] + new
            out.write("static const struct sample_trace traces_%d[] = {\n" % case)
            for number, blocks in enumerate((old, new)):
                for size, stack in blocks:
                    trace = "|".join("%s:%d:f" % frame for frame in stack)
                    out.write("\t{%d, %d, %s},\n" % (number, size, quote(trace)))
            out.write("};\n")
            for group in ("lineno", "filename", "traceback"):
                for kind, stats in (("top", snapshot(new).statistics(group)),
                                    ("diff", snapshot(new).compare_to(snapshot(old), group))):
                    name = "%s_%s_%d" % (kind, group, case)
                    out.write("static const struct sample_row %s[] = {\n" % name)
                    out.writelines("\t%s\n" % row(stat) for stat in stats)
                    out.write("};\n")
                    names.append((case, kind, group, name))
        out.write("static const struct sample_case cases[] = {\n")
        for case, kind, group, name in names:
            group = {"lineno": "LINE", "filename": "FILE", "traceback": "TRACEBACK"}[group]
            out.write("\t{traces_%d, COUNT(traces_%d), PL_GROUP_%s, %s, %s, COUNT(%s)},\n"
                      % (case, case, group, "true" if kind == "diff" else "false", name, name))
        out.write("};\n")


if __name__ == "__main__":
    main()
