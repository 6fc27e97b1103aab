#!/usr/bin/env python3
"""Lists out of sources and man pages, one name a line, for tests/mount/docs.sh to compare.

    doc_lists.py options settings.c      options of a mount: NAME, or NAME= if it has a value
    doc_lists.py opposites settings.c    the flags that take one of these back
    doc_lists.py variables FILE.c...     variables of the environment that settings come from
    doc_lists.py asked FILE.c...         variables that getenv() is asked for by name
    doc_lists.py claims semantics.md     NAME of each test that a row names; "?CLAIM" for one without
    doc_lists.py man-options FILE.8      the tags of section OPTIONS, as "options" writes them
    doc_lists.py man-flags FILE.8        -x and --xxx in tags
    doc_lists.py man-variables FILE.8    arguments of .Ev
    doc_lists.py mentioned FILE...       the lists behind "-o", in fstab lines and in units
    doc_lists.py messages FILE.md        what is quoted in tables as a line of the log, or as a message
"""
import re
import sys


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def rows(path):
    """The table in settings.c, a string for each row."""
    return re.findall(r"\[SET_\w+\] = \{((?:[^{}]|\{[^}]*\})*)\}", read(path))


def options(path):
    for row in rows(path):
        name = re.search(r'\.option = "(\w+)"', row)
        if name:
            yield name[1] + ("" if ".flag = true" in row else "=")


def opposites(path):
    return (m[1] for row in rows(path) for m in [re.search(r'\.clears = "(\w+)"', row)] if m)


def variables(path):
    for row in rows(path):
        yield from re.findall(r'"([A-Z][A-Z0-9_]+)"', row)
    yield from re.findall(r'"((?:AWS|WALE)_[A-Z0-9_]+[A-Z0-9])"', read(path))


def asked(path):
    return re.findall(r'getenv\("([A-Z][A-Z0-9_]+)"', read(path))


def claims(path):
    for line in read(path).splitlines():
        if not line.startswith("|") or re.match(r"\| (claim|---) \|", line):
            continue
        cells = line.strip().strip("|").split(" | ")
        tests = re.findall(r"`([^`]+)`", cells[-1])
        if len(cells) != 2 or not tests or re.sub(r"`[^`]+`|[, ]", "", cells[1]):
            yield "?" + line
        yield from tests


def tags(path):
    return re.findall(r"^\.It (.*)$", read(path), re.M)


def man_options(path):
    text = read(path)
    text = text[text.index("\n.Sh OPTIONS\n") + 1:]
    for tag in re.findall(r"^\.It (Cm .*)$", text[:text.index("\n.Sh ", 1)], re.M):
        for part in tag.split(" , "):
            words = part.removeprefix("Cm ").split()
            yield words[0] + ("=" if words[1:4] == ["Ns", "=", "Ns"] else "")


def man_flags(path):
    for tag in tags(path):
        yield from ("-" + f for f in re.findall(r"(?:^|, )Fl (-?\w[\w-]*)", tag))


def man_variables(path):
    for line in re.findall(r"\bEv (.*)$", read(path), re.M):
        yield from re.findall(r"[A-Z][A-Z0-9_]+", line)


def mentioned(path):
    text = read(path).replace("\\\n", " ")
    text = re.sub(r"Fl o Cm ", "-o ", text)
    for found in re.findall(r"(?<![\w-])-o (?!options\b)([a-z_]+(?:[=,][^\s`;)\"'$]*)?)(?!\w| them)", text):
        yield found.rstrip(".:,")
    for found in re.findall(r"walefs +([a-z_]+=[^\s]+) 0 0|^#? *(?:OPTIONS|Options)=([^\s]+)$", text, re.M):
        yield found[0] or found[1]


def messages(path):
    for line in read(path).splitlines():
        cell = line.split(" | ")[0]
        if line.startswith("| ") and "PostgreSQL:" not in cell:
            yield from re.findall(r"`([^`]+)`", cell)


def main():
    kind = globals()[sys.argv[1].replace("-", "_")]
    names = {name for path in sys.argv[2:] for name in kind(path)}
    print("\n".join(sorted(names)))


main()
