# SPDX-License-Identifier: MIT
"""The recorder planted in this very process, and its tables read back. Python 3.6 and later."""
import ctypes
import os
import struct
import sys

OFF, GIL, THREADS, SAMPLE = range(4)
PAGE_CONTROL = struct.Struct("<II11Q")
CONTROL_NAMES = ("next_chunk next_site next_frame next_code next_arena code_generation lost_events lost_sites "
                 "lost_codes untraced freed_unknown").split()

if "SELFLOAD" not in os.environ:
    sys.exit("SELFLOAD must name tests/bench/selfload/selfload.so of a build directory (ninja builds it on demand)")
# Not CDLL: the search for the thread state's TLS slot wants the GIL.
library = ctypes.PyDLL(os.environ["SELFLOAD"])
library.selfload_config.restype = ctypes.c_void_p
library.selfload_error.restype = ctypes.c_char_p
# The table addresses follow the fixed part of struct pl_inline_config.
ADDRESSES = ("control slots directory pool odd totals sites index frames codes code_index code_map arena").split()


def plant(frames=1, sample=0, mode=None):
    result = library.selfload_plant(frames, ctypes.c_ulong(sample))
    if result:
        raise SystemExit("plant: %d %s" % (result, library.selfload_error()))
    library.selfload_mode(mode if mode is not None else SAMPLE if sample else GIL)


def set_mode(mode):
    library.selfload_mode(mode)


def remove():
    return library.selfload_remove()


def config():
    base = library.selfload_config()
    raw = ctypes.string_at(base, 3000)
    start = 2 * 64 * 8 + LAYOUT_BYTES + 9 * 8
    return dict(zip(ADDRESSES, struct.unpack_from("<13Q", raw, start)))


LAYOUT_BYTES = 4 * 32 + 8


def control(addresses=None):
    addresses = addresses or config()
    values = PAGE_CONTROL.unpack(ctypes.string_at(addresses["control"], PAGE_CONTROL.size))
    return dict(zip(CONTROL_NAMES, values[2:]))


class Reader:
    def __init__(self):
        self.at = config()
        self.codes = {}
        self.lines = {}

    def code(self, number):
        if number not in self.codes:
            if number < 2:
                self.codes[number] = ("<unknown>", "<unknown>", b"", 0)
            else:
                row = ctypes.string_at(self.at["codes"] + 64 * number, 64)
                _, data, fb, nb, lb, first, fk, nk, _ = struct.unpack_from("<QQIIIiBBH", row)
                raw = ctypes.string_at(self.at["arena"] + data, fb + nb + lb)
                names = {0: "latin-1", 1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}
                self.codes[number] = (raw[:fb].decode(names[fk]), raw[fb:fb + nb].decode(names[nk]), raw[fb + nb:], first)
        return self.codes[number]

    def frame(self, word):
        if word not in self.lines:
            filename, name, table, first = self.code(word >> 32)
            offset = ctypes.c_int32(word & 0xffffffff).value
            line = library.selfload_line(sys.version_info[1], table, ctypes.c_size_t(len(table)), first, offset)
            self.lines[word] = (filename, line, name)
        return self.lines[word]

    def sites(self):
        """[(frames, totals)] of every site; frames innermost first."""
        count = 3 + control(self.at)["next_site"]
        totals = ctypes.string_at(self.at["totals"], 64 * count)
        rows = ctypes.string_at(self.at["sites"], 16 * count)
        result = []
        for site in range(1, count):
            fs, fc, sfs, sfc, as_, ac, sas, sac = struct.unpack_from("<8Q", totals, 64 * site)
            frames = []
            if site >= 3:
                _, first, number, more, _ = struct.unpack_from("<QIHBB", rows, 16 * site)
                words = struct.unpack("<%dQ" % number, ctypes.string_at(self.at["frames"] + 8 * first, 8 * number))
                frames = [self.frame(word) for word in words]
            else:
                frames = [("<unknown>" if site == 1 else "<lost>", 0, "")]
            result.append((frames, (as_ + sas, ac + sac, fs + sfs, fc + sfc)))
        return result

    def by_line(self):
        """{(file, line): [live size, live count]}"""
        result = {}
        for frames, (asize, acount, fsize, fcount) in self.sites():
            row = result.setdefault(frames[0][:2], [0, 0])
            row[0] += asize - fsize
            row[1] += acount - fcount
        return result
