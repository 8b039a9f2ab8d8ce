#!/usr/bin/env python3
"""Compiles and runs the code in the documentation.

Every block marked c in docs/*.md and in the READMEs of the surfaces is compiled. One that has a main function is also linked to the library and run, and must
print what the next block, marked text, says; a line `...` there stands for any lines, and `...` within a line for any
characters. A program that is to fail ends its text with a line `[exit status N]`.

usage: check_guide.py INCLUDE_DIR[:...] LIBRARY[:...] [FLAG...]       FLAGs go to the compiler; CC chooses it
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md")) + sorted(ROOT.glob("lib*/README.md"))
TIMEOUT_S = 20
STRICT = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wstrict-prototypes", "-Wshadow", "-pthread"]


def blocks_of(page):
    """(line, language, text) of each fenced block."""
    language, start, text = None, 0, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if language is None and line.startswith("```"):
            language, start, text = line[3:].strip(), number, []
        elif language is not None and line.strip() == "```":
            yield start, language, "\n".join(text) + "\n"
            language = None
        elif language is not None:
            text.append(line)
    if language is not None:
        raise SystemExit(f"{page.name}:{start}: a block does not end")


def pattern_of(text):
    parts = []
    for line in text.splitlines():
        parts.append(r"(?:.*\n)*?" if line.strip() == "..." else ".*".join(map(re.escape, line.split("..."))) + r"\n")
    return re.compile("".join(parts) + r"\Z")


def run(command, **more):
    """Exit status and output, both streams together; a program that hangs is ended."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=TIMEOUT_S, **more)
        return done.returncode, done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as e:
        return -1, (e.stdout or b"").decode(errors="replace") + f"[still running after {TIMEOUT_S} s]\n"


def try_block(code, expected, folder, includes, libraries, flags):
    """None, or what is wrong."""
    source, program = folder / "sample.c", folder / "sample"
    source.write_text(code, encoding="utf-8")
    has_main = re.search(r"^int main\(", code, re.M)
    goal = ["-o", program, *libraries] if has_main else ["-c", "-o", folder / "sample.o"]
    status, output = run([os.environ.get("CC", "cc"), *STRICT, *flags, *(f"-I{i}" for i in includes), source, *goal])
    if status != 0:
        return f"does not compile:\n{output}"
    if not has_main:
        return None
    if expected is None:
        return "has a main function, and no block marked text follows that says what it prints"
    env = {k: v for k, v in os.environ.items() if not k.startswith(("COIR_", "GOF_"))}
    status, output = run([program], env=env)
    if status != 0:
        output += f"[exit status {status}]\n"
    if not pattern_of(expected).match(output):
        return f"prints\n{output}---- and not\n{expected}"
    return None


def main(includes, libraries, *flags):
    includes, libraries = [ROOT, *includes.split(":")], libraries.split(":")
    compiled = ran = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for page in PAGES:
            blocks = list(blocks_of(page))
            for i, (line, language, code) in enumerate(blocks):
                if language != "c":
                    continue
                follows = blocks[i + 1] if i + 1 < len(blocks) else (0, "", "")
                expected = follows[2] if follows[1] == "text" else None
                wrong = try_block(code, expected, pathlib.Path(folder), includes, libraries, flags)
                compiled += 1
                ran += "int main(" in code
                if wrong:
                    failed += 1
                    print(f"{page.relative_to(ROOT)}:{line}: the program {wrong}")
    print(f"guide: {compiled} samples compiled, {ran} of them run, {failed} failed")
    return failed != 0 or ran == 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
