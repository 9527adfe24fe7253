#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""CPython's own tests with pyleak attached from the first one on, against the same without it.

    cpython_tests.py [--pyleak PATH] [--options "--frames 16"] [--broad | --tests "test_list test_gc"]
                     [--record FILE] [PYTHON...]

Every test must end as it does without pyleak, and the probe must leave at the end. What differs is run once
more both ways: a test that differs only once is named, but is no failure (CPython's own are not all steady).
A process runs a few files one after the other; --broad takes some ten minutes for each Python. Without a PYTHON
it is every one that is found (tests/integration/pythons.py); one that has no tests of its own is skipped.
"""
import argparse
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

TESTS = ("test_list test_dict test_tuple test_float test_gc test_weakref test_copy test_json test_deque "
         "test_generators test_descr test_collections test_userlist")

# What keeps, passes on and releases objects in all ways that there are. A Python takes those that it has.
BROAD = """
test_list test_dict test_tuple test_set test_float test_long test_complex test_array test_bytes test_memoryview
test_deque test_collections test_ordered_dict test_defaultdict test_dictviews test_userdict test_userlist test_heapq
test_bisect test_slice test_range test_enumerate test_iter test_functools test_sort test_builtin test_struct

test_gc test_weakref test_weakset test_copy test_copyreg test_finalization test_descr test_class test_types test_super
test_scope test_metaclass test_enum test_typing test_dataclasses test_exceptions test_traceback test_frame test_inspect
test_sys test_sys_settrace test_sys_setprofile test_code test_compile test_ast test_dis test_call test_raise

test_generators test_coroutines test_asyncgen test_genexps test_listcomps test_contextlib test_contextlib_async
test_context test_yield_from test_with
test_asyncio.test_tasks test_asyncio.test_futures test_asyncio.test_queues test_asyncio.test_locks
test_asyncio.test_events test_asyncio.test_streams test_asyncio.test_subprocess

test_threading test_thread test_threading_local test_threadsignals test_queue test_sched
test_signal test_subprocess test_popen test_fork1 test_wait4 test_posix

test_pickle test_pickletools test_shelve test_marshal
test_import test_importlib test_zipimport test_pkgutil test_runpy test_module test_frozen
test_ctypes test_sqlite test_sqlite3

test_json test_csv test_re test_xml_etree test_xml_etree_c test_minidom test_pyexpat test_logging test_datetime
test_fractions test_statistics test_textwrap test_string test_fstring test_zlib test_hashlib test_mmap test_fileio
test_tracemalloc test_abc test_property test_patma test_configparser
"""
TOGETHER = 12  # files that one process runs

# What may differ, and why.
EXPLAINED = {
    "test_getallocatedblocks test.test_sys.SysModuleTest":
        "expects that a collection gives back blocks of free lists, at least the one of the number before it",
    "test_get_traced_memory test.test_tracemalloc.TestTracemallocEnabled":
        "expects (before 3.8) that a bound method comes from a free list, and that tracemalloc does not see it",
}

# What is not run, with pyleak or without: from 3.12 on, an exponential recursion in a process of its own, that one
# interrupt after a second must end. On a busy machine it does not always, and all of the run waits.
ENDLESS = "test_print_exception_gh_102056"

# Waits for a line before the first test and after the last one.
MAIN = """
import sys, runpy
print("ready", flush=True)
sys.stdin.readline()
sys.argv = ["test"] + sys.argv[1:]
status = 0
try:
    runpy.run_module("test", run_name="__main__", alter_sys=True)
except SystemExit as end:
    status = end.code
sys.__stdout__.write("\\nended %r\\n" % (status,))
sys.__stdout__.flush()
sys.stdin.readline()
"""

HAS = """
import importlib.util, sys
def has(name):
    try:
        return importlib.util.find_spec("test." + name)
    except ImportError:
        return None
print(sys.version_info >= (3, 12), *filter(has, sys.argv[1:]))
"""

# "test_name (test.test_list.ListTest) ... ok", with what the test itself printed in between.
RESULT = re.compile(r"^(test\w+) \(([\w.]+)\)(?:.*?\.\.\. .*?)\b(ok|FAIL|ERROR|skipped|expected failure|"
                    r"unexpected success)\b", re.M | re.S)


def run(python, tests, seconds, hooked):
    """Returns ({test: result}, exit status, the output's end, complaints)."""
    complaints = []
    with tempfile.TemporaryDirectory() as folder, open(os.path.join(folder, "output"), "wb") as output:
        environment = dict(os.environ, PYTHONHASHSEED="0")
        command = [python, "-u", "-X", "faulthandler", "-c", MAIN, "-v", "--timeout", str(seconds)] + tests
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
                                   cwd=folder, env=environment, start_new_session=True)

        def text():
            with open(output.name, "rb") as again:  # its own position in the file: the process has the other's
                return again.read().decode(errors="replace")

        def wait_for(mark):
            deadline = time.monotonic() + seconds
            while mark not in text():
                if process.poll() is not None:
                    complaints.append("ended by %s before it said %r" % (process.returncode, mark))
                    return False
                if time.monotonic() > deadline:
                    complaints.append("still running after %d s" % seconds)
                    os.killpg(process.pid, signal.SIGKILL)  # its children too: they may work for hours
                    process.wait()
                    return False
                time.sleep(0.1)
            return True

        if wait_for("ready\n"):
            complaints += hooked(process.pid, "attach")
            process.stdin.write(b"\n")
            process.stdin.flush()
            if wait_for("\nended "):
                complaints += hooked(process.pid, "detach")
                process.stdin.write(b"\n")
                process.stdin.flush()
        process.stdin.close()
        status = process.wait()
        said = text()
    return {match[0] + " " + match[1]: match[2] for match in RESULT.findall(said)}, status, said, complaints


def with_pyleak(pyleak, options):
    def hooked(pid, command):
        arguments = ["--keep"] + options if command == "attach" else []
        result = subprocess.run([pyleak, command, str(pid)] + arguments, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, universal_newlines=True)
        if result.returncode:
            return ["%s: status %d: %s" % (command, result.returncode, result.stderr.strip())]
        return []
    return hooked


def differences(python, tests, seconds, hooked):
    """Returns (what differs, tests that were run, the end of the output with pyleak)."""
    plain, plain_status, plain_said, complaints = run(python, tests, seconds, lambda pid, command: [])
    if complaints:
        return ["without pyleak: " + line for line in complaints], len(plain), plain_said[-3000:]
    found, status, said, complaints = run(python, tests, seconds, hooked)
    for name in sorted(set(plain) | set(found)):
        if plain.get(name) != found.get(name) and name not in EXPLAINED:
            complaints.append("%s: %s without, %s with pyleak" % (name, plain.get(name), found.get(name)))
    explained = any(plain.get(name) != found.get(name) for name in EXPLAINED)
    if status != plain_status and not explained:
        complaints.append("exit status %s without, %s with pyleak" % (plain_status, status))
    return complaints, len(found), said[-3000:]


def compare(python, tests, seconds, hooked):
    """Returns (what differs twice, what differed once, tests that were run)."""
    first, count, _ = differences(python, tests, seconds, hooked)
    if not first:
        return [], [], count
    again, count, said = differences(python, tests, seconds, hooked)
    both = [line for line in again if line in first]
    if both:
        both.append("the end of its output:\n" + said)
    return both, [line for line in first if line not in again], count


def tests_of(python, names):
    """Those that this Python has, and options to run them with; none if it carries no tests."""
    result = subprocess.run([python, "-c", HAS] + names.split(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                            universal_newlines=True, check=True)
    newer, *tests = result.stdout.split()
    return tests, ["--ignore", ENDLESS] if newer == "True" else []


def check(python, arguments, say):
    """Returns whether all is the same, or None if there is nothing to run."""
    began, total, wrong, once = time.monotonic(), 0, [], []
    tests, options = tests_of(python, arguments.tests)
    if not tests:
        say("%s: carries no tests of its own" % python)
        return None
    for first in range(0, len(tests), TOGETHER):
        both, other, count = compare(python, options + tests[first:first + TOGETHER], arguments.seconds,
                                     with_pyleak(os.path.abspath(arguments.pyleak), arguments.options.split()))
        total, wrong, once = total + count, wrong + both, once + other
    say("%s: %s, %d files, %d tests, %.0f s" % (python, "FAILED" if wrong else "the same", len(tests), total,
                                                time.monotonic() - began))
    for line in wrong + ["once: " + line for line in once]:
        say("    " + line)
    return not wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pyleak", default=os.path.join(os.environ.get("PYLEAK_BUILD", "build"), "pyleak"))
    parser.add_argument("--options", default="", help="further options for 'pyleak attach --keep'")
    parser.add_argument("--tests", default=TESTS)
    parser.add_argument("--broad", action="store_const", dest="tests", const=BROAD, help="a hundred files")
    parser.add_argument("--seconds", type=int, default=600, help="for one run of %d files" % TOGETHER)
    parser.add_argument("--record", metavar="FILE", help="what is printed goes there as well, at its end")
    parser.add_argument("pythons", nargs="*", metavar="PYTHON")
    arguments = parser.parse_args()
    if not arguments.pythons:
        import pythons
        arguments.pythons = [found.executable for found in pythons.pythons()]

    def say(line):
        print(line, flush=True)
        if arguments.record:
            with open(arguments.record, "a") as file:
                file.write(line + "\n")

    version = subprocess.run([arguments.pyleak, "--version"], stdout=subprocess.PIPE, check=True, universal_newlines=True)
    say("%s: CPython's own tests under %s" % (time.strftime("%F %T"), version.stdout.split("\n")[0]))
    results = [check(python, arguments, say) for python in arguments.pythons]
    say("%d passed, %d failed, %d skipped" % (results.count(True), results.count(False), results.count(None)))
    return 1 if False in results else 0


if __name__ == "__main__":
    sys.exit(main())
