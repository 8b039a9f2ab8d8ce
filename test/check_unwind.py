#!/usr/bin/env python3
"""Has gdb, or perf, unwind stacks of fibers: every frame is there, and the stack ends at its first one.

usage: check_unwind.py gdb|perf T_UNWIND     77: it is missing, or may not do that here; the reason is printed
"""
import re
import shutil
import subprocess
import sys
import tempfile

DEPTH, BELOW_MAX, SAMPLES_MIN = 40, 5, 3
FIRST = {"calls_deep", "begins", "begins_and_moves", "begins_and_blocks", "begins_job", "begins_thread"}
PLACES = ("fiber", "moved", "away", "handler", "generator", "raw", "job")
SKIPPED = 77


def skip(why):
    print(f"skipped: {why}")
    sys.exit(SKIPPED)


def run(*command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", timeout=60)


def fault_of(frames, top):
    """What is wrong with a stack, whose innermost frame is `top`: functions' names, innermost first. None: nothing."""
    if top not in frames:
        return f"{top} is missing"
    if frames.count("deep") != DEPTH:
        return f"{frames.count('deep')} calls of deep() instead of {DEPTH}"
    firsts = [i for i, name in enumerate(frames) if name in FIRST]
    if len(firsts) != 1 or frames[firsts[0] - 1] != "deep":
        return "the first function of the program is not there once"
    below = len(frames) - 1 - firsts[0]
    if not 1 <= below <= BELOW_MAX:
        return f"{below} frames below the first function of the program"
    return None


def check(frames, top, where):
    fault = fault_of(frames, top)
    if fault:
        sys.exit(f"{where}: {fault}:\n  " + "\n  ".join(frames))


def self_test():
    good = ["stop_here"] + ["deep"] * DEPTH + ["begins", "fiber_main"]
    assert fault_of(good, "stop_here") is None
    for bad in (good[1:], good[:-1], good[:20] + good[21:], good + ["?"] * BELOW_MAX, good[:-2] + good[-1:]):
        assert fault_of(bad, "stop_here"), bad


def by_gdb(program):
    commands = ("set debuginfod enabled off", "set backtrace limit 200", "handle SIGUSR2 nostop noprint pass",
                "break stop_here", "run", "bt")
    options = [word for command in commands for word in ("-ex", command)]
    for place in PLACES:
        text = run("gdb", "-nx", "-q", "-batch", *options, "--args", program, "at", place).stdout
        if re.search("ptrace|not permitted", text):
            skip(f"gdb may not trace here: {text[-300:]}")
        frames = re.findall(r"^#\d+ +(?:0x[0-9a-f]+ in )?(\S+)", text, re.MULTILINE)
        if "Backtrace stopped" in text or "(More stack frames follow...)" in text:
            sys.exit(f"{place}: {text}")
        check(frames, "stop_here", place)
    print(f"gdb: {len(PLACES)} stacks")


def by_perf(program):
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/data"
        done = run("perf", "record", "-q", "-o", data, "-F", "100", "-e", "cpu-clock:u", "--call-graph", "dwarf,16384",
                   "--", program, "spin")
        if done.returncode:
            skip(f"perf may not record here: {done.stdout[-300:]}")
        text = run("perf", "script", "-i", data, "--no-inline", "-F", "ip,sym").stdout
    stacks = [re.findall(r"^\s*[0-9a-f]+ (\S+)", block, re.MULTILINE) for block in text.split("\n\n")]
    stacks = [stack for stack in stacks if "spin" in stack]
    if stacks and not any("deep" in stack for stack in stacks):
        skip("this perf unwinds no stacks by their tables")
    if len(stacks) < SAMPLES_MIN:
        sys.exit(f"perf saw {len(stacks)} samples:\n{text[:2000]}")
    for stack in stacks:
        check(stack, "spin", "a sample of perf")
    print(f"perf: {len(stacks)} stacks")


def main():
    tool, program = sys.argv[1:]
    self_test()
    if not shutil.which(tool):
        skip(f"there is no {tool}")
    {"gdb": by_gdb, "perf": by_perf}[tool](program)


main()
