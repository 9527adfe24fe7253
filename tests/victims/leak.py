# SPDX-License-Identifier: MIT
"""A process that leaks ints at a known line, and works at others without leaking.

Commands on stdin: `leak N` leaks N ints and says "leaked"; `exec` becomes `sleep`; `quit`. Runs on every Python from 3.6 on.
"""
import os
import sys
import threading
import time

BASE = 10 ** 12  # two digits: ints of one come from a free list in 3.14
kept = [None] * 200000
made = 0


def leak(number):
    global made
    end = made + number
    for i in range(made, end):
        kept[i] = BASE + i  # leaks here
    made = end


def encode(number):
    """Busy, but keeps nothing."""
    return ",".join([str(BASE + i) for i in range(number)])


def work():
    cache = {}
    while True:
        for i in range(5):
            cache[i] = encode(20)
        cache.clear()
        time.sleep(0.02)


def main():
    threading.Thread(target=work, daemon=True).start()
    print("ready", flush=True)
    for line in iter(sys.stdin.readline, ""):
        words = line.split()
        if words[0] == "leak":
            leak(int(words[1]))
            print("leaked", flush=True)
        elif words[0] == "exec":
            os.execv("/bin/sleep", ["sleep", "1000"])
        elif words[0] == "quit":
            break
    os._exit(0)


if __name__ == "__main__":
    main()
