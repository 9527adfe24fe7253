# SPDX-License-Identifier: MIT
"""Makes functions.inc: the code of a few functions of real interpreters, as test_disassemble.c wants it.

    make_functions.py BUILD FILE NAME:ADDRESS:LENGTH… > …     (addresses and lengths as objdump shows them, hex)

BUILD names the interpreter. Each row is {build, name, address, bytes (hex)}.
"""
import struct
import sys


def main():
    build, path, *pieces = sys.argv[1:]
    with open(path, "rb") as file:
        data = file.read()
    offset, entry_size, count = struct.unpack_from("<Q14xHH", data, 32)
    segments = [struct.unpack_from("<IIQQQQ", data, offset + i * entry_size) for i in range(count)]
    for piece in pieces:
        name, address, length = piece.split(":")
        address, length = int(address, 16), int(length, 16)
        for kind, _, file_offset, start, _, size in segments:
            if kind == 1 and start <= address and address + length <= start + size:
                at = file_offset + address - start
                print('{ "%s", "%s", %#x,\n  "%s" },' % (build, name, address, data[at:at + length].hex()))
                break
        else:
            sys.exit("%s: nothing at %#x" % (path, address))


main()
