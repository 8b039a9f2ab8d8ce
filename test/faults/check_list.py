#!/usr/bin/env python3
"""Whether the fault tests know every function that the library uses.

usage: check_list.py NM LIBRARY RENAMED SURE

NM lists what LIBRARY leaves undefined; each name stands in RENAMED (its calls can fail: calls.c) or in SURE (they
cannot, and why). A name that is in both, or that SURE gives no reason for, is an error as well."""
import re
import subprocess
import sys

OF_COMPILERS = re.compile(r"__(asan|ubsan|tsan|sanitizer|stack_chk|aarch64)_|_?_(fortify|chk)|__gcov|llvm")


def undefined(nm, library):
    listing = subprocess.run([nm, "--format=posix", library], check=True, capture_output=True, text=True).stdout
    symbols = [line.split()[:2] for line in listing.splitlines() if len(line.split()) > 1]
    own = {name for name, kind in symbols if kind not in "Uw"}
    return {name for name, kind in symbols if kind in "Uw"} - own


def sure_names(path):
    names, why = set(), None
    for line in open(path):
        if line.startswith("#"):
            continue
        if not line.startswith(" "):
            why, _, line = line.partition(":")
        if not why.strip():
            sys.exit(f"{path}: no reason is given for {line.strip()}")
        names |= set(line.split())
    return names


def main(nm, library, renamed, sure):
    failing = {line.split()[0] for line in open(renamed)}
    certain = sure_names(sure)
    used = {name for name in undefined(nm, library) if not OF_COMPILERS.match(name)}
    unknown = sorted(used - failing - certain)
    both = sorted(failing & certain)
    if len(used) < 50 or unknown or both:
        sys.exit(f"{len(used)} functions are used; unknown: {unknown}; both sure and failing: {both}")
    print(f"{len(used)} functions: {len(used & failing)} fail in turn, {len(used & certain)} cannot")


main(*sys.argv[1:])
