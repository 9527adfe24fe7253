#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What is linked into the static program, as CycloneDX 1.5: sbom.py LINKER-MAP VERSION [ROOT]. On standard output.

The linker's map names the archives that it took anything from; Debian's package manager knows whose they are:
this machine's, or of what is below ROOT, where packages for arm64 are unpacked, that one's.
"""
import json
import os
import re
import subprocess
import sys


def archives(linker_map):
    with open(linker_map, errors="replace") as file:
        head = file.read().split("\nMemory Configuration", 1)[0]
    return sorted({os.path.realpath(path) for path in re.findall(r"^(/\S+\.a)\(", head, re.MULTILINE)})


def query(root, *arguments):
    where = ["--admindir=%s/var/lib/dpkg" % root] if root else []
    return subprocess.run(["dpkg-query", *where, *arguments], check=True, text=True, stdout=subprocess.PIPE).stdout


def package_of(root, path):
    # On a merged /usr the package manager may know it by its other name.
    for name in (path, path.replace("/usr/lib/", "/lib/", 1)):
        try:
            return query(root, "-S", name).split(": ")[0].split(",")[0]
        except subprocess.CalledProcessError:
            continue
    raise SystemExit("sbom: no package has %s" % path)


def component(root, package, files):
    source, version, binary_version = query(root, "-W", "-f", "${source:Package}\t${source:Version}\t${Version}", package).split("\t")
    return {"type": "library", "bom-ref": package, "name": source, "version": version,
            "purl": "pkg:deb/debian/%s@%s?arch=%s" % (package.split(":")[0], binary_version, "arm64" if root else "amd64"),
            "properties": [{"name": "pyleak:archive", "value": os.path.basename(path)} for path in files]}


def main():
    linker_map, version, *roots = sys.argv[1:]
    owned = {}
    for path in archives(linker_map):
        root = os.path.realpath(roots[0]) if roots else ""
        # The compiler's own archives are this machine's.
        if root and not path.startswith(root + "/"):
            root = ""
        owned.setdefault((root, package_of(root, path[len(root):])), []).append(path)
    if not owned:
        raise SystemExit("sbom: %s names no archive" % linker_map)
    program = {"type": "application", "bom-ref": "pyleak", "name": "pyleak", "version": version,
               "licenses": [{"license": {"id": "MIT"}}]}
    json.dump({"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "metadata": {"component": program},
               "components": [component(root, package, files) for (root, package), files in sorted(owned.items())],
               "dependencies": [{"ref": "pyleak", "dependsOn": sorted(package for _, package in owned)}]}, sys.stdout, indent=1)
    print()


main()
