#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Packs the static program as a wheel: build.py PROGRAM VERSION SHARE SBOM OUTPUT-DIR; prints its path.

SHARE is an installed share/ (manual pages, completions). A wheel is a zip file with a list of its files in it (PEP 427,
PEP 770 for the SBOM). Nothing of it depends on when or where it is made: the same input gives the same bytes.
"""
import base64
import hashlib
import pathlib
import stat
import sys
import zipfile

NAME = "pyleak-attach"
# The program is static: any Linux will do, and any Python.
TAGS = ["py3-none-manylinux_2_17_x86_64", "py3-none-manylinux2014_x86_64", "py3-none-musllinux_1_1_x86_64"]
HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
EPOCH = (1980, 1, 1, 0, 0, 0)

METADATA = """Metadata-Version: 2.4
Name: %s
Version: %s
Summary: Finds the line of Python that leaks memory, in a process that is already running
License-Expression: MIT
License-File: LICENSE
Keywords: memory,leak,profiler,tracemalloc,attach
Classifier: Environment :: Console
Classifier: Operating System :: POSIX :: Linux
Classifier: Programming Language :: Python :: Implementation :: CPython
Classifier: Topic :: Software Development :: Debuggers
Classifier: Framework :: Pytest
Description-Content-Type: text/markdown

%s"""
WHEEL = "Wheel-Version: 1.0\nGenerator: pyleak tools/wheel\nRoot-Is-Purelib: false\n"


def members(program, version, share, sbom):
    """(path in the wheel, bytes, mode) of each file but the list."""
    dist = "%s-%s" % (NAME.replace("-", "_"), version)
    data, info = dist + ".data", dist + ".dist-info"
    yield data + "/scripts/pyleak", program.read_bytes(), 0o755
    for path in sorted(path for path in share.rglob("*") if path.is_file()):
        yield "%s/data/share/%s" % (data, path.relative_to(share)), path.read_bytes(), 0o644
    yield "pytest_pyleak.py", (HERE / "pytest_pyleak.py").read_bytes(), 0o644
    yield info + "/METADATA", (METADATA % (NAME, version, (ROOT / "README.md").read_text())).encode(), 0o644
    yield info + "/WHEEL", (WHEEL + "".join("Tag: %s\n" % tag for tag in TAGS)).encode(), 0o644
    yield info + "/entry_points.txt", b"[pytest11]\npyleak = pytest_pyleak\n", 0o644
    yield info + "/licenses/LICENSE", (ROOT / "LICENSE").read_bytes(), 0o644
    yield info + "/sboms/pyleak.cdx.json", sbom.read_bytes(), 0o644


def record_line(path, content):
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return "%s,sha256=%s,%d\n" % (path, digest, len(content))


def main():
    program, version, share, sbom, output = sys.argv[1:]
    dist = "%s-%s" % (NAME.replace("-", "_"), version)
    platforms = ".".join(tag.rsplit("-", 1)[1] for tag in TAGS)
    path = pathlib.Path(output) / ("%s-py3-none-%s.whl" % (dist, platforms))
    record = ""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as wheel:
        for name, content, mode in members(pathlib.Path(program), version, pathlib.Path(share), pathlib.Path(sbom)):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = (stat.S_IFREG | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(entry, content)
            record += record_line(name, content)
        entry = zipfile.ZipInfo(dist + ".dist-info/RECORD", EPOCH)
        entry.external_attr = (stat.S_IFREG | 0o644) << 16
        wheel.writestr(entry, record + entry.filename + ",,\n")
    print(path)


main()
