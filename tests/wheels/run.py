#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What pyleak sees of the memory of widely used libraries: a leak of each on a known line.

    run.py [--pyleak PATH] [--table FILE] [--small] [--show] [--keep FOLDER] [LIBRARY...]

For each of libraries.py: the program is run bare, which says what its results are; with count.c preloaded, which says
how many bytes a step keeps; and with pyleak: attached, let go, attached once more, let go. Checked is

    seen      what pyleak has on the line (and below it in tracebacks), over the truth
    again     the same with the second attach
    RSS       that the account explains 95 % of the growth, or all but 1 MiB
    said      that it says nothing false: no fragmentation, no more freed "from before" than the process ever had
    results   the same as those of the bare run, with pyleak, after it, and with it again

--table writes what was measured into a file. --keep: of a library for which anything is wrong, the document of each attach, and
what /proc/PID/smaps said before and after its work, so that a part of the account that happens once in many runs can be named.
The last line of the output is "N passed, N failed, N skipped".
"""
import argparse
import collections
import json
import os
import pathlib
import platform
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time

import packages
from libraries import LIBRARIES

HERE = pathlib.Path(__file__).resolve().parent
MIB = 1 << 20
Seen = collections.namedtuple("Seen", "bytes own pooled beside hinted top document text cpu peak hooked smaps")


class Host:
    """The program, as a process that answers."""

    def __init__(self, python, library, path, environment=None):
        env = dict(os.environ, PYTHONPATH=path, PYTHONHASHSEED="0", **(environment or {}))
        self.program = str(HERE / "programs" / (library.program + ".py"))
        self.process = subprocess.Popen([python, str(HERE / "host.py"), self.program], env=env, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.pid = self.process.pid

    def answer(self):
        # Libraries greet on stdout, too.
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise AssertionError("the program ended: status %s" % self.process.wait())
            if line.startswith(b"{"):
                return json.loads(line)

    def ask(self, *words):
        self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        self.process.stdin.flush()
        return self.answer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def leak_lines(program):
    with open(program) as file:
        return {(program, number) for number, line in enumerate(file, 1) if line.rstrip().endswith("# leak")}


def smaps_of(pid):
    with open("/proc/%d/smaps" % pid) as file:
        return file.read()


def keep(folder, library, seen):
    for number, one in enumerate(seen):
        start = os.path.join(folder, "%s-%d-%d" % (re.sub("[^A-Za-z0-9._-]", "-", library.name), os.getpid(), number))
        for name, text in (("before", one.smaps[0]), ("after", one.smaps[1]), ("json", json.dumps(one.document, indent=1))):
            with open("%s.%s" % (start, name), "w") as file:
                file.write(text)


def watch(pyleak, host, lines, cache, work):
    """What pyleak says of `work`, which it is attached for."""
    command = [pyleak, "attach", str(host.pid), "-v", "-n", "0", "-g", "traceback", "-f", "40"]
    with tempfile.TemporaryDirectory() as folder:
        recording = os.path.join(folder, "it.pyleak")
        process = subprocess.Popen(command + ["-o", recording, "-i", "1s"], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=dict(os.environ, XDG_CACHE_HOME=cache))
        hooked, notes = None, []
        for text in process.stderr:
            notes.append(text.decode())
            if b"recording, after " in text:
                hooked = float(text.split()[-5])
                break
        if hooked is None:
            raise AssertionError("pyleak: " + "".join(notes))
        smaps = [smaps_of(host.pid)]
        answer = work()
        smaps.append(smaps_of(host.pid))
        time.sleep(.3)
        process.send_signal(signal.SIGTERM)
        notes += [text.decode() for text in process.stderr]
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        process.stderr.close()
        if status:
            raise AssertionError("pyleak ended with %s: %s" % (status, "".join(notes)))
        reports = [subprocess.run([pyleak, "report", recording] + form, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  check=True).stdout.decode()
                   for form in (["--format", "json", "-n", "0", "-g", "traceback"], ["-n", "5"])]
    document = json.loads(reports[0].splitlines()[-1])
    total = own = 0
    for row in document["stats"]:
        frames = {(frame["filename"], frame["lineno"]) for frame in row.get("traceback", [row])}
        if frames & lines:
            total += row["size"]
            own += row["size"] if (row["filename"], row["lineno"]) in lines else 0
    # Of threads of the library's own it is said what they run; what Python did meanwhile is a hint, which may name the next
    # line of the function that keeps, or another: the thread works on while Python is there already.
    beside, hinted, programs = collections.Counter(), 0, {path for path, _ in lines}
    for row in document["stats"]:
        thread = row.get("native", {}).get("thread", {})
        if thread.get("runs", {}).get("function") and not any(frame["filename"] in programs for frame in row.get("traceback", [])):
            beside["%s runs %s" % (thread.get("name", "?"), thread["runs"]["function"])] += row["size"]
            meanwhile = thread.get("meanwhile", {})
            if meanwhile.get("filename") in programs and meanwhile.get("function") == "keep":
                hinted += row["size"]
    pooled = {one["object"]: one["size"] for one in document.get("pools", [])}
    top = max(document["stats"], key=lambda row: row["size"], default=None)
    return answer, Seen(total, own, pooled, beside, hinted, top, document, reports[1], usage.ru_utime + usage.ru_stime,
                        usage.ru_maxrss * 1024, hooked, smaps)


def falsehoods(seen, rss):
    growth = (seen.document.get("account") or {}).get("growth") or {}
    said = []
    if growth.get("fragmentation"):
        said.append("fragmentation")
    before = (seen.document.get("freed_before") or {}).get("size", 0)
    if before > rss:
        said.append("%d MiB freed from before" % (before / MIB))
    return said


def measure(library, python, path, pyleak, counter):
    lines = leak_lines(str(HERE / "programs" / (library.program + ".py")))
    bare = []
    with Host(python, library, path) as host:
        host.answer()
        for _ in range(3):
            bare.append(host.ask("run", library.steps))
    truths = [bare[0]["truth"], bare[2]["truth"]]
    if truths[0] is None:
        with Host(python, library, path, {"LD_PRELOAD": counter, "PYTHONMALLOC": "malloc"}) as host:
            host.answer()
            truths = [host.ask("keep", library.steps)["live"] for _ in range(3)][::2]
    with Host(python, library, path) as host, tempfile.TemporaryDirectory() as cache:
        host.answer()
        answers, seen = [None] * 3, [None] * 2
        answers[0], seen[0] = watch(pyleak, host, lines, cache, lambda: host.ask("run", library.steps))
        answers[1] = host.ask("run", library.steps)
        answers[2], seen[1] = watch(pyleak, host, lines, cache, lambda: host.ask("run", library.steps))
        rss = max(document.document["rss"]["after"] for document in seen)
    same = [answer["digest"] for answer in answers] == [answer["digest"] for answer in bare]
    return truths, seen, same, rss


def judge(library, lines, truths, seen, same, rss):
    """What is wrong."""
    wrong = []
    for name, truth, one in zip(("seen", "seen again"), truths, seen):
        pooled = library.pooled and sum(one.pooled.values()) >= truth / 2
        if library.threads:
            pooled = library.low <= (one.bytes + sum(one.beside.values())) / truth <= library.high
        if not pooled and not library.low <= one.bytes / truth <= library.high:
            wrong.append("%s %.3f" % (name, one.bytes / truth))
        if library.pooled:
            pool = max(one.document["pools"], key=lambda pool: pool["size"], default={"lines": []})
            hint = [(line["filename"], line["lineno"]) for line in pool["lines"][:1]]
            if not set(hint) & lines:
                wrong.append("hint %s" % ", ".join("%s:%d" % (os.path.basename(name), line) for name, line in hint))
        wrong += ["says: " + text for text in falsehoods(one, rss)]
        growth = (one.document.get("account") or {}).get("growth")
        if not growth:
            wrong.append("no account")
        elif abs(growth["unexplained"]) > max(MIB, abs(growth["rss"]) / 20):
            wrong.append("unexplained %+.1f of %+.1f MiB" % (growth["unexplained"] / MIB, growth["rss"] / MIB))
    if not same:
        wrong.append("other results")
    return wrong


def row(library, versions, truths, seen, same, wrong):
    growth = (seen[0].document.get("account") or {}).get("growth") or {"rss": 0, "unexplained": 0}
    said = ["%s: %.2f" % (os.path.basename(name), size / truths[0]) for name, size in seen[0].pooled.items()]
    said += ["%s: %.2f" % (name, size / truths[0]) for name, size in seen[0].beside.items() if size > truths[0] / 20]
    if library.threads:
        said.append("meanwhile `keep`: %.2f, %.2f" % tuple(one.hinted / truth for one, truth in zip(seen, truths)))
    pooled = ", ".join(said)
    return "| %s | %s | %.2f MiB | %.3f | %.3f | %s | %+.1f of %+.1f MiB | %s | %.2f, %.2f s | %.0f MiB | %s |" % (
        library.name, versions, truths[0] / MIB, seen[0].bytes / truths[0], seen[1].bytes / truths[1], pooled,
        growth["unexplained"] / MIB, growth["rss"] / MIB, "same" if same else "**other**", seen[0].hooked, seen[1].hooked,
        max(one.peak for one in seen) / MIB, "; ".join(wrong) or "yes")


HEAD = """\
# What pyleak sees of libraries' memory

`tools/check wheels` made this table: for each library a program keeps memory on a known line, beside a busy line that
allocates and frees (`tests/wheels/`). *Truth* is what was kept while pyleak was attached: what the library says itself
(`nbytes`), or what a counting allocator that was preloaded saw asked for. *Seen* is what pyleak has on that line, or
below it in the traceback, over the truth; *again* the same with a second attach; *pools* what it says of allocators that
are linked in, over the truth (the lines that it gives as a hint must begin with the one that leaks); rows of threads of
the library's own, by the thread's name and the function that it runs; and what of those says `meanwhile` of the function
that keeps, with the first attach and the second: a hint, and not asked for; *unexplained* what is left of the growth of the resident size. *Results* are the
program's, with pyleak, after it and with it again, against those of a bare run. *Hooks* is the CPU time until the hooks
were in place, with the first attach, when nothing is remembered of the files, and with the second; *peak* the most memory
that pyleak itself took.

%s, %s.

%s| library | version | truth | seen | again | pools, threads | unexplained | results | hooks | peak | right |
|---|---|---:|---:|---:|---|---:|---|---:|---:|---|
"""


def notes(path):
    """What somebody has written between the head and the table."""
    try:
        with open(path) as file:
            found = re.search(r"^Linux [^\n]*[.]\n\n(.*?)^\| library ", file.read(), re.M | re.S)
    except FileNotFoundError:
        return ""
    return found.group(1) if found else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pyleak", default=os.environ.get("PYLEAK", str(HERE.parents[1] / "build" / "pyleak")))
    parser.add_argument("--table")
    parser.add_argument("--small", action="store_true", help="not those of more than 500 MB")
    parser.add_argument("--show", action="store_true", help="print the reports")
    parser.add_argument("--keep", metavar="FOLDER")
    parser.add_argument("library", nargs="*")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    rows, counts = {}, collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        counter = os.path.join(folder, "count.so")
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", counter, str(HERE / "count.c"), "-ldl"], check=True)
        for library in LIBRARIES:
            if (arguments.library and library.name not in arguments.library) or (arguments.small and library.large):
                continue
            python = packages.python_of(library.python)
            path, why = packages.folder(library, python) if python else (None, "no Python " + library.python)
            if not path:
                print("SKIPPED %s: %s" % (library.name, why), flush=True)
                counts["skipped"] += 1
                continue
            try:
                truths, seen, same, rss = measure(library, python, path, arguments.pyleak, counter)
            except AssertionError as error:
                print("FAILED %s: %s" % (library.name, error), flush=True)
                counts["failed"] += 1
                continue
            lines = leak_lines(str(HERE / "programs" / (library.program + ".py")))
            wrong = judge(library, lines, truths, seen, same, rss)
            counts["failed" if wrong else "passed"] += 1
            rows[library.name] = row(library, packages.versions(path, library.packages), truths, seen, same, wrong)
            print(rows[library.name], flush=True)
            if wrong and arguments.keep:
                keep(arguments.keep, library, seen)
            if arguments.show:
                print(seen[0].text, flush=True)
    if arguments.table and rows:
        kept = notes(arguments.table)
        with open(arguments.table, "w") as file:
            file.write(HEAD % ("Linux %s, %s" % (platform.release(), " ".join(platform.libc_ver())),
                               subprocess.check_output([arguments.pyleak, "--version"]).decode().splitlines()[0], kept))
            file.writelines(text + "\n" for text in rows.values())
    print("%d passed, %d failed, %d skipped" % (counts["passed"], counts["failed"], counts["skipped"]))
    sys.exit(counts["failed"] > 0)


if __name__ == "__main__":
    main()
