#!/usr/bin/env python3
"""Holds the documentation to what a program can check.

  - Every relative link in a Markdown file leads to a file that exists, and to a heading of it where it names one.
  - The table in docs/configuration.md says of each field of struct coir_config what src/config.c says.
  - docs/ARCHITECTURE.md lists every file of src/, and none that does not exist.

usage: check_docs.py [ROOT]       prints file:line: for each breach, and fails when there is one
"""
import pathlib
import re
import signal
import sys

ROOT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent).resolve()
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md"), *ROOT.glob("bench/*.md"),
                *ROOT.glob("lib*/*.md")})
breaches = []


def breach(path, line, message):
    breaches.append(f"{path.relative_to(ROOT)}:{line}: {message}")


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


# ---- Links -----------------------------------------------------------------------------------------------------------


def prose_lines(path):
    """The lines of a page, those of fenced code blanked, inline code taken out."""
    fence = None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        mark = re.match(r" {0,3}(```+|~~~+)", line)
        if mark and (fence is None or mark[1].startswith(fence)):
            fence = None if fence else mark[1]
            continue
        yield number, "" if fence or line.startswith("    ") else line


def anchors_of(path):
    """The names that headings can be reached by, made as GitHub makes them."""
    seen = {}
    for _, line in prose_lines(path):
        heading = re.match(r"#{1,6}\s+(.*?)\s*#*$", line)
        if not heading:
            continue
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading[1])
        name = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        count = seen.get(name, -1) + 1
        seen[name] = count
        yield name if count == 0 else f"{name}-{count}"


def check_links():
    count = 0
    for page in PAGES:
        for number, line in prose_lines(page):
            line = re.sub(r"`[^`]*`", "", line)
            for target in re.findall(r"\]\(\s*<?([^)\s>]*)>?[^)]*\)", line):
                if re.match(r"[a-z][a-z0-9+.-]*:", target, re.I):
                    continue
                count += 1
                name, _, anchor = target.partition("#")
                goal = (page.parent / name).resolve() if name else page
                if not goal.exists():
                    breach(page, number, f"the link to {target} leads nowhere")
                elif anchor and goal.suffix == ".md" and anchor not in anchors_of(goal):
                    breach(page, number, f"{target}: there is no such heading")
    return count


# ---- The table of the configuration ----------------------------------------------------------------------------------


def constants():
    """Names that the table in src/config.c may use: numbers defined in src/types.h, and enums."""
    values = {m[1]: int(m[2]) for m in re.finditer(r"^#define (\w+) (\d+)\b", read("src/types.h"), re.M)}
    for enum in ("guard", "deadlock"):
        body = re.search(rf"enum coir_{enum} \{{(.*?)\n\}};", read("include/coir.h"), re.S)[1]
        body = re.sub(r"/\*.*?\*/", "", body, flags=re.S)
        for i, name in enumerate(re.findall(rf"\b(COIR_{enum.upper()}_\w+)\s*(?:=[^,]*)?,", body)):
            values[name] = i
    return values


def number(text, names):
    """The value of an expression like `64 << 10`, or of the name of a signal."""
    text = text.strip()
    if re.fullmatch(r"SIG[A-Z0-9]+", text):
        return int(signal.Signals[text])
    parts = [names[p] if p in names else int(p, 0) for p in (q.strip() for q in text.split("<<"))]
    value = parts[0]
    for shift in parts[1:]:
        value <<= shift
    return value


def size_text(value):
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if value and value % (1 << shift) == 0:
            return f"{value >> shift} {unit}"
    return str(value)


def fields_of_code():
    """field -> (variable, default, range) as the table in src/config.c has it. A default of None is worked out at run
    time: it lies outside the range."""
    code, names = read("src/config.c"), constants()
    words = {kind: re.findall(r'"(\w+)"', re.search(rf"{kind.lower()}s\[\] = \{{(.*?)\}};", code)[1])
             for kind in ("GUARD", "DEADLOCK")}
    table = re.search(r"\} fields\[\] = \{\n(.*?)\n\};", code, re.S)[1]
    fields = {}
    for row in table.splitlines():
        m = re.match(r'\s*\{"(\w+)", offsetof\(struct coir_config, (\w+)\), (\w+), ([^,]+), ([^,]+), ([^,]+)\},$', row)
        if not m:
            raise SystemExit(f"check_docs.py: a row of src/config.c is not understood: {row}")
        variable, field, kind = m[1], m[2], m[3]
        standard, least, most = (number(m[i], names) for i in (4, 5, 6))
        is_signal = re.fullmatch(r"SIG[A-Z0-9]+", m[4]) is not None
        show = {"SIZE": size_text, "SWITCH": ("off", "on").__getitem__, "GUARD": words["GUARD"].__getitem__,
                "DEADLOCK": words["DEADLOCK"].__getitem__}.get(kind, str)
        if kind in ("SWITCH", "GUARD", "DEADLOCK"):
            bounds = ", ".join(show(i) for i in range(least, most + 1))
        else:
            bounds = f"{show(least)} to {show(most)}"
        default = m[4] if is_signal else show(standard) if least <= standard <= most else None
        fields[field] = (variable, default, bounds)
    return fields


def fields_of_header():
    """The fields of struct coir_config, in order."""
    body = re.search(r"struct coir_config \{\n(.*?)\n\};", read("include/coir.h"), re.S)[1]
    for line in re.sub(r"/\*.*?\*/", "", body, flags=re.S).splitlines():
        m = re.search(r"\(\*(\w+)\)\(|(\w+);", line)
        if m:
            yield m[1] or m[2]


def check_configuration():
    page = ROOT / "docs/configuration.md"
    code, rows = fields_of_code(), {}
    for at, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        cells = [c.strip() for c in line.strip().strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 5:
            rows[cells[0].strip("`")] = (at, *(c.strip("`") for c in cells[1:]))
    header = list(fields_of_header())
    if list(rows) != header:
        breach(page, 1, f"the table has the fields {', '.join(rows)}; the struct has {', '.join(header)}")
    for field, (variable, standard, bounds) in code.items():
        if field not in header:
            breach(page, 1, f"{field} is in src/config.c and not in struct coir_config")
        if field not in rows:
            continue
        at, said_variable, said_standard, said_bounds, meaning = rows[field]
        for what, said, true in (("variable", said_variable, variable), ("range", said_bounds, bounds)):
            if said != true:
                breach(page, at, f"{field}: {what} is said to be '{said}' and is '{true}'")
        if said_standard != standard if standard is not None else said_standard[:1].isdigit():
            breach(page, at, f"{field}: default is said to be '{said_standard}' and is '{standard or 'worked out'}'")
        if not meaning:
            breach(page, at, f"{field}: no meaning is given")
    for field, (at, said_variable, *_) in rows.items():
        if field not in code and said_variable != "none":
            breach(page, at, f"{field}: src/config.c knows no variable for it")
    return len(rows)


# ---- The files of src/ -----------------------------------------------------------------------------------------------


def check_files():
    page = ROOT / "docs/ARCHITECTURE.md"
    text = page.read_text(encoding="utf-8")
    exist = {str(p.relative_to(ROOT / "src")) for p in (ROOT / "src").rglob("*") if p.suffix in (".c", ".h", ".S")}
    listed = {}
    for at, line in enumerate(text.splitlines(), 1):
        if line.startswith("| "):
            for name in re.findall(r"`([\w/]+\.[chS])`", line.split("|")[1]):
                listed.setdefault(name, at)
    for name in sorted(exist - set(listed)):
        breach(page, 1, f"src/{name} is not listed")
    for name in sorted(set(listed) - exist):
        breach(page, listed[name], f"src/{name} does not exist")
    return len(exist)


links, rows, files = check_links(), check_configuration(), check_files()
if breaches:
    print("\n".join(breaches))
    sys.exit(1)
print(f"docs: {len(PAGES)} pages, {links} links, {rows} fields of the configuration and {files} files of src/ agree")
