"""The implementations that are measured: Coir itself, and every peer with a manifest, bench/peers/<peer>/peer.json.

A manifest says:
  impl       its name in the results
  needs      the commands and files (a path, a pattern) that must be there; package: the Debian packages that bring them
  version    a command that tells its version
  env        environment of its build
  build      the command that builds one program; programs: the sources of each
  workers    worker counts that it is measured with, if not all
  files      files to fill in for a run: template -> name in @DIR@
  questions  question -> the command that answers it: a program that takes --workers, --runs and --quick and prints JSON
             lines as bench.h says, or a server: then targets.json has "connections", and "load": "echo" or "http"

Placeholders in commands, env and files: @OUT@ (folder of what the peer has built), @DIR@ (a temporary folder), @PORT@,
@SPIN_PORT@ (a connection there has the server compute for a second), @WORKERS@, and in build @PROGRAM@ and @SOURCES@.

Coir itself answers a question with bench/b_<question>, unless targets.json names a "program" that prints a line for
readers; "figure" then says how to find the figure in it, and @COUNT@ is "count", or a fifth of it with --quick.
"""
import glob
import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent
ROOT = BENCH.parent


class Failure(Exception):
    """Something that was run failed; the message says what."""


def fill(text, values):
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text


def execute(command, **options):
    """Runs a command that should succeed silently."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout.strip()}")
    return done.stdout.strip()


@dataclass
class Impl:
    impl: str
    questions: dict
    build_dir: Path
    out: Path
    folder: Path = BENCH
    needs: list = field(default_factory=list)
    package: str = ""
    version: list = field(default_factory=list)
    env: dict = field(default_factory=dict)
    build: list = field(default_factory=list)
    programs: dict = field(default_factory=dict)
    workers: list = field(default_factory=list)
    files: dict = field(default_factory=dict)

    @property
    def is_installed(self):
        return all(glob.glob(need) if "/" in need else shutil.which(need) for need in self.needs)

    def programs_for(self, questions):
        """Returns the programs that answer these questions: name -> its questions."""
        wanted = {}
        for question in questions:
            if question in self.questions:
                wanted.setdefault(Path(self.questions[question][0]).name, []).append(question)
        return wanted

    def prepare_build(self):
        pass

    def build_program(self, program):
        if program not in self.programs:
            return  # it is what was installed
        self.out.mkdir(parents=True, exist_ok=True)
        env = os.environ | {name: fill(value, {"OUT": self.out}) for name, value in self.env.items()}
        command = []
        for word in self.build:
            words = self.programs[program] if word == "@SOURCES@" else [word]
            command += [fill(each, {"OUT": self.out, "PROGRAM": program}) for each in words]
        execute(command, cwd=self.folder, env=env)

    def command(self, question, **values):
        return [fill(word, {"OUT": self.out} | values) for word in self.questions[question]]

    def write_files(self, values):
        for template, name in self.files.items():
            (Path(values["DIR"]) / name).write_text(fill((self.folder / template).read_text(), values))

    def version_text(self):
        return execute(self.version).splitlines()[0] if self.version else ""


@dataclass
class Coir(Impl):
    """Built by CMake; one target per question, those of libgo/, and the HTTP server of examples/."""

    def prepare_build(self):
        if not any((self.out / name).exists() for name in ("build.ninja", "Makefile")):
            execute(["cmake", "-S", ROOT, "-B", self.out, "-DCMAKE_BUILD_TYPE=Release"])

    def build_program(self, program):
        execute(["cmake", "--build", self.out, "--parallel", "--target", program])

    def version_text(self):
        cache = (self.out / "CMakeCache.txt").read_text()
        kinds = [line.split("=")[1] for line in cache.splitlines() if line.startswith("CMAKE_BUILD_TYPE:")]
        return f"{'/'.join(kinds) or 'unknown'} build"


def server_of_coir(about):
    """The command of Coir's own server; where one computes for long, it turns preemption on."""
    common = ["--port", "@PORT@", "--workers", "@WORKERS@"]
    beside = about.get("beside")
    if about.get("load") != "echo":
        return ["@OUT@/examples/httpd", *common, *(["--preempt", "1"] if beside == "hog" else [])]
    more = {"hog": ["--hogs", "@WORKERS@"], "block": ["--blockers", "8"], None: []}[beside]
    return ["@OUT@/bench/echo_coir", *common, *more, *(["--spin-port", "@SPIN_PORT@"] if "spin" in about else [])]


def find_impls(questions, build_dir):
    """Coir first, then the peers in order of their names, installed or not."""
    own = {q: server_of_coir(about) if "connections" in about else about.get("program", [f"@OUT@/bench/b_{q}"])
           for q, about in questions.items()}
    impls = [Coir(impl="coir", questions=own, build_dir=build_dir, out=build_dir)]
    for manifest in sorted((BENCH / "peers").glob("*/peer.json")):
        about = json.loads(manifest.read_text())
        out = build_dir / "bench" / "peers" / manifest.parent.name
        impls.append(Impl(**about, folder=manifest.parent, build_dir=build_dir, out=out))
    return impls
