# SPDX-License-Identifier: MIT
"""Writes a file as a C array: embed.py INPUT OUTPUT NAME."""
import sys


def main():
    source, target, name = sys.argv[1:]
    with open(source, "rb") as stream:
        image = stream.read()
    with open(target, "w") as stream:
        stream.write(f"/* Made by embed.py. */\n#include <stddef.h>\nextern const unsigned char {name}[];\n"
                     f"extern const size_t {name}_size;\nconst size_t {name}_size = {len(image)};\n"
                     f"const unsigned char {name}[{len(image)}] __attribute__((aligned(64))) = {{\n")
        for start in range(0, len(image), 16):
            stream.write("\t" + " ".join(f"{byte}," for byte in image[start:start + 16]) + "\n")
        stream.write("};\n")


main()
