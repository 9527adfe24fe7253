# SPDX-License-Identifier: MIT
"""A prefork server in small: a parent that waits, and WORKERS children that it forks, each of which leaks when told.

    family.py WORKERS

Commands on stdin: `leak N` has each worker leak N ints at a known line, and says "leaked"; `pids` says which workers
there are; `kill I` kills worker I, and `fork` makes another one, and says its PID; `quit`. Runs on every Python from 3.6 on.
"""
import os
import signal
import sys

BASE = 10 ** 12  # two digits: ints of one come from a free list in 3.14
kept = [None] * 100000
made = 0
workers = []


def leak(number):
    global made
    end = made + number
    for i in range(made, end):
        kept[i] = BASE + i  # leaks here
    made = end


def work(orders, answers):
    while True:
        order = os.read(orders, 16)
        if not order:
            os._exit(0)
        leak(int(order))
        os.write(answers, b"!")


class Worker:
    def __init__(self):
        orders, self.orders = os.pipe()
        self.answers, answers = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            for other in workers:
                os.close(other.orders)
            os.close(self.orders)
            work(orders, answers)
        os.close(orders)
        os.close(answers)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.orders)
        os.close(self.answers)


def main():
    for _ in range(int(sys.argv[1])):
        workers.append(Worker())
    print("ready", flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "leak":
            for worker in workers:
                os.write(worker.orders, words[1].encode())
            for worker in workers:
                os.read(worker.answers, 1)
            print("leaked", flush=True)
        elif words[0] == "pids":
            print([worker.pid for worker in workers], flush=True)
        elif words[0] == "kill":
            workers.pop(int(words[1])).kill()
            print("killed", flush=True)
        elif words[0] == "fork":
            workers.append(Worker())
            print(workers[-1].pid, flush=True)
        elif words[0] == "quit":
            break


if __name__ == "__main__":
    main()
