#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""CPython's own tests with pyleak attached from the first one on, against the same without it.

    cpython_tests.py [--pyleak PATH] [--options "--frames 16"] [--tests "test_list test_gc"] PYTHON...

Every test must end as it does without pyleak, and the probe must leave at the end.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
import time

TESTS = ("test_list test_dict test_tuple test_float test_gc test_weakref test_copy test_json test_deque "
         "test_generators test_descr test_collections test_userlist")

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

# "test_name (test.test_list.ListTest) ... ok", with what the test itself printed in between.
RESULT = re.compile(r"^(test\w+) \(([\w.]+)\)(?:.*?\.\.\. .*?)\b(ok|FAIL|ERROR|skipped|expected failure|"
                    r"unexpected success)\b", re.M | re.S)


def run(python, tests, seconds, hooked):
    """Returns ({test: result}, exit status, the output's end, complaints)."""
    complaints = []
    with tempfile.TemporaryDirectory() as folder, open(os.path.join(folder, "output"), "wb") as output:
        environment = dict(os.environ, PYTHONHASHSEED="0")
        process = subprocess.Popen([python, "-u", "-X", "faulthandler", "-c", MAIN, "-v", "--timeout", str(seconds)] + tests,
                                   stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, cwd=folder,
                                   env=environment)

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
                    process.kill()
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


def compare(python, tests, seconds, hooked):
    plain, plain_status, plain_said, complaints = run(python, tests, seconds, lambda pid, command: [])
    if complaints:
        return ["without pyleak: " + line for line in complaints], len(plain)
    found, status, said, complaints = run(python, tests, seconds, hooked)
    for name in sorted(set(plain) | set(found)):
        if plain.get(name) != found.get(name):
            complaints.append("%s: %s without, %s with pyleak" % (name, plain.get(name), found.get(name)))
    if status != plain_status:
        complaints.append("exit status %s without, %s with pyleak" % (plain_status, status))
    if complaints:
        complaints.append("the end of its output:\n" + said[-3000:])
    return complaints, len(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pyleak", default="build/pyleak")
    parser.add_argument("--options", default="", help="further options for 'pyleak attach --keep'")
    parser.add_argument("--tests", default=TESTS)
    parser.add_argument("--seconds", type=int, default=900, help="for one run of all tests")
    parser.add_argument("pythons", nargs="+", metavar="PYTHON")
    arguments = parser.parse_args()
    failed = False
    for python in arguments.pythons:
        began = time.monotonic()
        complaints, count = compare(python, arguments.tests.split(), arguments.seconds,
                                    with_pyleak(os.path.abspath(arguments.pyleak), arguments.options.split()))
        print("%s: %s, %d tests, %.0f s" % (python, "FAILED" if complaints else "the same", count,
                                            time.monotonic() - began), flush=True)
        for line in complaints:
            print("    " + line)
        failed |= bool(complaints)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
