# SPDX-License-Identifier: MIT
"""Threads that allocate and free at once, at known lines, known numbers of blocks.

Says "ready", waits for a line, runs, says "done", waits for the end. argv: how many threads, rounds.
Each thread keeps some blocks, frees its own, and frees those that its neighbour made. What it makes
is large enough for no free list, and its loops make no other blocks that stay.
"""
import sys
import threading

THREADS, ROUNDS = int(sys.argv[1]), int(sys.argv[2])
INDEX = list(range(ROUNDS))
BATCH = 50
X = b"x"  # multiplied, it makes one block and no other
kept = [[None] * ROUNDS for _ in range(THREADS)]
passed = [[None] * ROUNDS for _ in range(THREADS)]
dropped = [[None] * BATCH for _ in range(THREADS)]
barrier = threading.Barrier(THREADS)


def race(number):
    mine, given, churn = kept[number], passed[number], dropped[number]
    taken = passed[(number + 1) % THREADS]
    barrier.wait()
    for i in INDEX:
        mine[i] = X * 1000  # kept
        given[i] = X * 300  # passed on
        churn[i % BATCH] = X * 200  # dropped
    barrier.wait()
    for i in INDEX:
        taken[i] = None
        mine[i] = X * 600  # replaced
    barrier.wait()


def main():
    print("ready", flush=True)
    sys.stdin.readline()
    threads = [threading.Thread(target=race, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("done", flush=True)
    sys.stdin.readline()


main()
