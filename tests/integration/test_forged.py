# SPDX-License-Identifier: MIT
"""A kept probe lies in the process's memory, and is the process's to forge: what reads it later ends in time, and
`detach` removes it."""
import os
import random
import signal
import struct

import pytest

from helpers import PROBE_FIRST, TABLES_FIRST, pyleak, state, wait_clean, wait_until

CONFIG = 4608
HEADER = 144
# include/pyleak/inline_abi.h: up to `quiet`; the words of the free lists are read by nobody outside.
CONFIG_WORDS = 340


class Kept:
    """Where the probe of a victim can be written to, as the victim could."""

    def __init__(self, pid):
        self.memory = open("/proc/%d/mem" % pid, "r+b", buffering=0)
        self.config = self.read(PROBE_FIRST + CONFIG, 8 * CONFIG_WORDS)
        self.header = self.read(PROBE_FIRST, HEADER)

    def read(self, address, size):
        self.memory.seek(address)
        return self.memory.read(size)

    def write(self, address, data):
        self.memory.seek(address)
        self.memory.write(data)

    def restore(self):
        self.write(PROBE_FIRST, self.header)
        self.write(PROBE_FIRST + CONFIG, self.config)


@pytest.fixture
def kept(host):
    victim = host("--light")
    assert pyleak("attach", victim.pid, "--keep").status == 0
    probe = Kept(victim.pid)
    # The recorder goes by the same words: it must not run meanwhile.
    os.kill(victim.pid, signal.SIGSTOP)
    wait_until(lambda: state(victim.pid) == "T", 10, "it is stopped")
    yield victim, probe
    probe.restore()
    os.kill(victim.pid, signal.SIGCONT)
    assert pyleak("detach", victim.pid).status == 0
    victim.check()
    wait_clean(victim.pid, 1)


def ends(victim):
    """Whatever it says: it is over in seconds, and one line says what is wrong, if anything is."""
    result = pyleak("diff", victim.pid, "-i", "100ms", "--format", "json", seconds=5)
    assert result.status in (0, 1) and (result.status == 0) == bool(result.stdout), result
    assert result.status == 0 or "cannot be read" in result.stderr, result
    return result


def test_counts_and_addresses(kept):
    """Each word that lies within the tables, or is a count of what does: there are 35 to 60 of them."""
    victim, probe = kept
    words = struct.unpack("<%dQ" % CONFIG_WORDS, probe.config)
    assert ends(victim).status == 0
    tables = [i for i, word in enumerate(words) if TABLES_FIRST <= word < TABLES_FIRST + (1 << 38)]
    assert len(tables) >= 17, tables
    first = min(tables)
    refused = 0
    for i in range(first, first + 36):
        for value in (2**64 - 1, 2**62):
            probe.write(PROBE_FIRST + CONFIG + 8 * i, struct.pack("<Q", value))
            refused += ends(victim).status
        probe.write(PROBE_FIRST + CONFIG + 8 * i, struct.pack("<Q", words[i]))
    assert refused >= 2 * 25, refused


def test_noise(kept):
    victim, probe = kept
    for seed in range(8):
        noise = random.Random(seed)
        word = [lambda: noise.getrandbits(64), lambda: noise.getrandbits(48), lambda: noise.getrandbits(8),
                lambda: TABLES_FIRST + noise.getrandbits(36)][seed % 4]
        probe.write(PROBE_FIRST + CONFIG, struct.pack("<%dQ" % CONFIG_WORDS, *(word() for _ in range(CONFIG_WORDS))))
        ends(victim)
        probe.restore()
    assert ends(victim).status == 0


def test_counts_of_the_header(kept):
    """Four thousand million words to be looked at while all threads stand still."""
    victim, probe = kept
    for offset in range(0x50, HEADER, 4):
        probe.write(PROBE_FIRST + offset, struct.pack("<I", 2**32 - 1))
        result = pyleak("diff", victim.pid, "-i", "100ms", "--format", "json", seconds=10)
        assert result.status in (0, 1)
        probe.restore()
