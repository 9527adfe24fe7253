#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes the manual pages of what stands here: pages.py SOURCE-DIR OUTPUT-DIR PAGE...

A page of a command has the options that it takes, of options.mdoc, where each is written once, at the line
`.\\" options: here`; that of pyleak has those that all commands take. A reference to a section (.Sx) of another page
becomes one that names the page. `.Nm` alone is pyleak everywhere.
"""
import pathlib
import re
import sys

HERE = '.\\" options: here\n'


def sections(text):
    return set(re.findall(r"^\.S[hs] (.*)$", text, re.M)) - {"NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "OPTIONS", "SEE ALSO"}


def options(text, command):
    """Those that the command takes, in their groups; of None, those that say nothing of commands."""
    groups = re.split(r"^\.Ss ", text, flags=re.M)[1:]
    for group in groups:
        title, body = group.split("\n", 1)
        items = re.split(r"^(?=\.It )", body.split("\n.El\n")[0] + "\n", flags=re.M)
        if len(items) == 1:  # prose about all of them
            yield ".Ss %s\n%s" % (title, body)
            continue
        taken = []
        for item in items[1:]:
            takers = re.search(r"^\.Pq (.*)\n", item.split("\n", 1)[1])
            if takers is None or command in takers[1].split(", "):
                taken.append(item.replace(takers[0], "", 1) if takers else item)
        if taken:
            yield ".Ss %s\n.Bl -tag -width Ds\n%s.El\n" % (title, "".join(taken))


def made(text, page, all_options, where):
    command = re.fullmatch(r"pyleak-(\w+)\.1", page)
    text = text.replace(HERE, "".join(options(all_options, command and command[1])))
    own = sections(text)

    def elsewhere(reference):
        name, rest = reference[1], reference[2]
        if name in own:
            return reference[0]
        if name not in where:
            sys.exit("%s: there is no section %s" % (page, name))
        stem, number = where[name].rsplit(".", 1)
        return ".Sx %s\nof\n.Xr %s %s%s\n" % (name, stem, number, rest)

    head, body = text.split("\n.Nd ", 1)
    body = re.sub(r"^\.Sx (.*?)((?: [.,:;)]+)?)\n", elsewhere, body, flags=re.M)
    body = re.sub(r"^\.Nm(?! pyleak)(?= |$)", ".Nm pyleak", body, flags=re.M)
    return head + "\n.Nd " + body


def main():
    source, output = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    texts = {name: (source / name).read_text() for name in sys.argv[3:]}
    where = {}
    for name, text in texts.items():
        for section in sections(text):
            where.setdefault(section, name)
    all_options = (source / "options.mdoc").read_text()
    where.update({title: "pyleak.1" for title in ("General", "Times and sizes")})
    for name, text in texts.items():
        (output / name).write_text(made(text, name, all_options, where))


main()
