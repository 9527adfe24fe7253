# SPDX-License-Identifier: MIT
"""A process that uses one library, and leaks of it.

    host.py PROGRAM

PROGRAM is a file of programs/: `keep(step)` keeps memory for ever on lines that are marked `# leak`, and gives how many
bytes that was if the library can tell (nbytes), else None; `busy(step)` allocates and frees on the line beside it; both
give results that are the same each time, as the second item.

Answers commands on stdin with one line of JSON each:

    keep N     N steps of keep() alone: {"truth": bytes or null, "digest": of all results so far, "live": see count.c}
    run N      the same, busy() after each
    quit
"""
import ctypes
import hashlib
import importlib.util
import json
import os
import sys
import time


def load(path):
    # Where pyleak looks for source lines.
    spec = importlib.util.spec_from_file_location("program", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def counter():
    """What count.c, if it was preloaded, says is live."""
    function = getattr(ctypes.CDLL(None), "count_live", None)
    if not function:
        return lambda: None
    function.restype = ctypes.c_int64
    return function


def main():
    program = load(os.path.abspath(sys.argv[1]))
    live, step, digest = counter(), 0, hashlib.sha256()
    # What is made once, and what a first call costs.
    for _ in range(program.WARM if hasattr(program, "WARM") else 3):
        program.keep(step)
        program.busy(step)
        step += 1
    print(json.dumps({"ready": True}), flush=True)
    for command in sys.stdin:
        name, *rest = command.split()
        if name == "quit":
            break
        before, truth = live(), 0
        started = time.process_time()
        for _ in range(int(rest[0])):
            kept, result = program.keep(step)
            truth = None if kept is None or truth is None else truth + kept
            digest.update(repr(result).encode())
            if name == "run":
                digest.update(repr(program.busy(step)).encode())
            step += 1
            if step % 20 == 0:
                time.sleep(.001)
        after = live()
        print(json.dumps({"truth": truth, "digest": digest.hexdigest(), "seconds": time.process_time() - started,
                          "live": None if before is None else after - before}), flush=True)
    # Libraries' threads are not waited for.
    os._exit(0)


main()
