#!/usr/bin/env python3
"""Builds the explorer's programs and runs their cases; then plants faults, each of which a case has to find.

usage: run.py [--build FOLDER] [--jobs N] [--deeper N] [--random RUNS [--seed S]] [--mutations] [PROGRAM…]

A program is x_NAME.c beside this file; explore.h says how it works. With --mutations only the faults of mutations.py are
planted, one after the other, and the last line is the score. Exits with 77, and says why, where it cannot run."""
import argparse
import concurrent.futures
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import time

from mutations import MUTATIONS

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CC = os.environ.get("EXPLORE_CC", "gcc")
# Tiny limits (COIR_HARD), the thread's record by a function (COIR_PORTABLE_TLS), which the explorer replaces.
FLAGS = ["-std=gnu11", "-O1", "-g", "-w", "-fno-pie", "-DCOIR_HARD=1", "-DCOIR_PORTABLE_TLS=1", "-DCOIR_EXPLORE=1",
         "-DCOIR_CONTEXT_UCONTEXT=1"]
INSTRUMENTED = ["-fsanitize=thread", "--param", "tsan-instrument-func-entry-exit=0"]
PROGRAMS = {  # and what of the core is under test there
    "runq": ["runq.c"],
    "wait": ["wait.c", "timer.c", "bias.c"],
    "bias": ["bias.c"],
    "chan": ["chan.c", "wait.c", "bias.c"],
    "select": ["select.c", "chan.c", "wait.c", "bias.c"],
    "timer": ["timer.c", "bias.c"],
    "idle": ["idle.c", "runq.c"],
    "carry": ["carry.c", "preempt.c", "runq.c"],
    "counter": ["counter.c", "wait.c", "bias.c"],
}
CASE_S = 1800  # for the cases of one program
MUTANT_S = 120


def compile_file(source, out, src, instrumented=True):
    flags = FLAGS + (INSTRUMENTED if instrumented else [])
    subprocess.run([CC, *flags, f"-I{ROOT}/include", f"-I{src}", f"-I{HERE}", "-c", str(source), "-o", str(out)],
                   check=True)
    return str(out)


def weaken(binary):
    """What it defines may be defined elsewhere, too, and that counts. What it refers to stays as it is."""
    names = subprocess.run(["nm", "-g", "--defined-only", "--format=just-symbols", binary], check=True,
                           capture_output=True, text=True).stdout
    if not names.strip():
        return binary
    listed = pathlib.Path(f"{binary}.defined")
    listed.write_text(names)
    subprocess.run(["objcopy", f"--weaken-symbols={listed}", binary], check=True)
    return binary


def build_core(build, jobs):
    """The whole core, so that whatever the parts under test refer to is there; weak, so that what stands in wins."""
    src = ROOT / "src"
    sources = [p for p in sorted(src.glob("*.c")) + sorted((src / "os").glob("*.c")) if p.name != "coir.c"]
    sources += sorted((src / "arch").glob("*ucontext*.c"))
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        objects = list(pool.map(lambda p: weaken(compile_file(p, build / f"core_{p.stem}.o", src)), sources))
    archive = build / "core.a"
    archive.unlink(missing_ok=True)
    subprocess.run(["ar", "rcs", str(archive), *objects], check=True)
    return [compile_file(HERE / f"{name}.c", build / f"{name}.o", src, False) for name in ("explore", "memory", "hooks")]


def build_case(name, out, src):
    out.mkdir(exist_ok=True)
    return [compile_file(HERE / f"{part}.c", out / f"{part}.o", src) for part in (f"x_{name}", "stand")]


def link(name, build, out, objects, explorer):
    program = out / f"x_{name}"
    subprocess.run([CC, "-no-pie", "-g", *objects, *explorer, str(build / "core.a"), "-pthread", "-lm", "-o",
                    str(program)], check=True)
    return program


def run_program(name, build, explorer, arguments):
    program = link(name, build, build / name, build_case(name, build / name, ROOT / "src"), explorer)
    begin = time.monotonic()
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=CASE_S)
        status, text = done.returncode, done.stdout + done.stderr[-20000:]
    except subprocess.TimeoutExpired as e:
        status, text = 1, (e.stdout or b"").decode() + f"no end within {CASE_S} s\n"
    return status == 0, f"{name}: {'all well' if status == 0 else 'FAILED'}, {time.monotonic() - begin:.1f} s\n{text}"


def program_of(mutation):
    return mutation[4].split(":")[0]


def build_mutant(mutation, build, out, explorer, cases):
    """A copy of the core with the fault in it: what is compiled anew comes before the core."""
    _, file, before, after, _ = mutation
    program = program_of(mutation)
    src = out / "src"
    shutil.copytree(ROOT / "src", src)
    text = (src / file).read_text()
    if text.count(before) != 1:
        raise ValueError(f"{text.count(before)} places in {file} fit")
    (src / file).write_text(text.replace(before, after))
    in_header = file.endswith(".h")
    parts = PROGRAMS[program] if in_header else [file]
    objects = build_case(program, out, src) if in_header else list(cases[program])
    objects += [weaken(compile_file(src / part, out / f"part_{part[:-2]}.o", src)) for part in parts]
    return link(program, build, out, objects, explorer)


def plant(mutation, build, explorer, cases):
    """Whether the fault is found, and by which words."""
    with tempfile.TemporaryDirectory(dir=build) as folder:
        try:
            binary = build_mutant(mutation, build, pathlib.Path(folder), explorer, cases)
            done = subprocess.run([binary, *mutation[4].split(":")[1:]], capture_output=True, text=True, timeout=MUTANT_S)
        except (ValueError, subprocess.CalledProcessError) as e:
            return False, str(e)
        except subprocess.TimeoutExpired:
            return False, f"not found within {MUTANT_S} s"
    failed = [line for line in done.stderr.splitlines() if "FAILED" in line]
    return done.returncode == 1 and bool(failed), failed[0] if failed else f"status {done.returncode}"


def plant_all(wanted, build, explorer, jobs):
    mutations = [m for m in MUTATIONS if not wanted or program_of(m) in wanted]
    cases = {name: build_case(name, build / name, ROOT / "src") for name in {program_of(m) for m in mutations}}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(lambda m: plant(m, build, explorer, cases), mutations))
    caught = 0
    for mutation, (found, words) in zip(mutations, results):
        caught += found
        print(f"{'found ' if found else 'MISSED'} {mutation[4]:16} {mutation[0]}: {words}")
    print(f"mutations caught: {caught} of {len(mutations)}")
    return caught == len(mutations)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "out" / "explore")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--deeper", type=int)
    parser.add_argument("--random", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--mutations", action="store_true")
    parser.add_argument("programs", nargs="*", metavar="PROGRAM")
    options = parser.parse_args()
    for tool in (CC, "objcopy", "ar"):
        if not shutil.which(tool):
            print(f"skipped: no {tool}")
            return 77
    if platform.machine() != "x86_64":
        print("skipped: the explorer runs on x86-64")
        return 77
    options.build.mkdir(parents=True, exist_ok=True)
    explorer = build_core(options.build, options.jobs)
    if options.mutations:
        return 0 if plant_all(options.programs, options.build, explorer, options.jobs) else 1
    arguments = ["--random", str(options.random)] if options.random else []
    arguments += ["--deeper", str(options.deeper)] if options.deeper else []
    arguments += ["--seed", str(options.seed)] if options.seed else []
    names = options.programs or list(PROGRAMS)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda name: run_program(name, options.build, explorer, arguments), names))
    for _, text in results:
        print(text, end="")
    return 0 if all(well for well, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main())
