"""One call of bench/run: builds what is to be measured, lets everybody take turns, and collects what went wrong."""
import datetime
import os
import shlex
import shutil
import sys
import time

from . import measure, report, schedule
from .impls import Failure, find_impls


class Progress:
    """One line that changes, on a terminal; a line per question elsewhere."""

    def __init__(self, total, expected_s):
        self.total, self.expected_s, self.done, self.question = total, expected_s, 0, ""
        self.begin = time.monotonic()

    def elapsed_s(self):
        return time.monotonic() - self.begin

    def step(self, question, text):
        is_next = question != self.question
        self.done += is_next
        self.question = question
        where = (f"[{self.done}/{self.total}, {schedule.clock(self.elapsed_s())} of about "
                 f"{schedule.clock(self.expected_s)}] {question}")
        if sys.stderr.isatty():
            print(f"\r\033[K{where} {text}", end="", file=sys.stderr, flush=True)
        elif is_next:
            print(where, file=sys.stderr, flush=True)

    def end(self):
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def needs_wrk(about):
    return "connections" in about and about.get("load", "http") == "http"


class Campaign:
    def __init__(self, args, questions):
        self.args, self.failures, self.broken, self.took_s = args, [], set(), 0
        self.mode = "quick" if args.quick else "full"
        self.questions = {q: about for q, about in questions.items() if self.is_asked(q, about)}
        self.impls = [impl for impl in find_impls(self.questions, args.build.resolve())
                      if impl.questions.keys() & self.questions.keys()]
        self.times = schedule.Times(args.build / "bench" / "turns.json", self.mode)

    def is_asked(self, question, about):
        """Rare questions that take long are left out of a quick run unless somebody names them."""
        return about.get("quick", True) or not self.args.quick or question in self.args.questions

    def fail(self, failure):
        self.failures.append(str(failure))
        print(f"\nfailed: {failure}", file=sys.stderr, flush=True)

    def attempt(self, function, *args):
        """Calls it; returns whether it went well."""
        try:
            function(*args)
            return True
        except (Failure, OSError) as failure:
            self.fail(failure)
            return False

    def missing(self):
        """A sentence for each package that is not there."""
        sentences = []
        for impl in self.impls:
            if not impl.is_installed:
                names = ", ".join(q for q in self.questions if q in impl.questions)
                sentences.append(f"{impl.impl} is not installed: apt-get install {impl.package} ({names})")
        wrk_questions = [q for q, about in self.questions.items() if needs_wrk(about)]
        if wrk_questions and not shutil.which("wrk"):
            sentences.append(f"wrk is not installed: apt-get install wrk ({', '.join(wrk_questions)})")
        return sentences

    def prepare(self):
        """Builds what is installed, names what is not, forgets what cannot be measured. Returns (impl, version)s."""
        ready = []
        for sentence in self.missing():
            print(sentence, file=sys.stderr, flush=True)
        if not shutil.which("wrk"):
            self.questions = {q: about for q, about in self.questions.items() if not needs_wrk(about)}
        for impl in self.impls:
            programs = impl.programs_for(self.questions)
            if not impl.is_installed or not programs:
                continue
            print(f"building {impl.impl}", file=sys.stderr, flush=True)
            built = []
            if self.attempt(impl.prepare_build):
                built = [names for program, names in programs.items() if self.attempt(impl.build_program, program)]
            impl.questions = {q: impl.questions[q] for names in built for q in names}
            if built:
                self.attempt(lambda impl=impl: ready.append((impl, impl.version_text())))
        return ready

    def contests(self, ready):
        """Yields (question, about, workers, (impl, version)s): who takes turns, one contest after the other."""
        for question, about in self.questions.items():
            for workers in self.args.workers or schedule.worker_counts(os.cpu_count(), about.get("scales")):
                rivals = [(impl, version) for impl, version in ready
                          if question in impl.questions and (not impl.workers or workers in impl.workers)]
                if rivals:
                    yield question, about, workers, rivals

    def expected_s(self, contests):
        return sum(self.times.expect_all(question, about, workers, [impl.impl for impl, _ in rivals], self.args.rounds)
                   for question, about, workers, rivals in contests)

    def measure(self):
        """Returns the merged lines. They are written after each contest: who ends this keeps what was measured."""
        contests = list(self.contests(self.prepare()))
        expected_s = self.expected_s(contests)
        asked = len({question for question, *_ in contests})
        print(f"{asked} questions; measuring takes about {schedule.text(expected_s)}", file=sys.stderr)
        load = " ".join(f"{load:.2f}" for load in os.getloadavg())
        common = {"at": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), "load": load,
                  "run": shlex.join(["bench/run", *sys.argv[1:]])}
        if os.getloadavg()[0] > os.cpu_count() / 4:
            print(f"load average {load}: something else runs here; figures will be rough", file=sys.stderr)
        progress, lines = Progress(asked, expected_s), []
        try:
            for contest in contests:
                lines += report.merge(line | common for line in self.hold(progress, *contest))
                self.times.save()
                if self.args.json:
                    report.write_lines(self.args.json, lines)
        except KeyboardInterrupt:
            self.fail(f"interrupted at {progress.question}")
        progress.end()
        self.took_s = progress.elapsed_s()
        return lines

    def hold(self, progress, question, about, workers, rivals):
        """All rounds of one contest; in each, every rival takes its turn."""
        lines, turn, spent_s = [], 0, 0
        rounds = self.args.rounds or schedule.rounds_wanted(about, self.mode)
        while turn < rounds:
            begin = time.monotonic()
            for impl, version in rivals:
                progress.step(question, f"workers {workers}, round {turn + 1}: {impl.impl}")
                lines += [line | {"version": version} for line in self.take_turn(question, about, workers, impl)]
            turn += 1
            spent_s += time.monotonic() - begin
            if not self.args.rounds:
                rounds = schedule.rounds_that_fit(about, self.mode, spent_s / turn)
        return lines

    def take_turn(self, question, about, workers, impl):
        """One measurement; nothing from who has failed before. Whatever goes wrong, the others go on."""
        if (question, workers, impl.impl) in self.broken:
            return []
        begin = time.monotonic()
        try:
            lines = self.measure_once(question, about, workers, impl)
        except Exception as error:
            self.fail(error if isinstance(error, Failure) else f"{question}, {impl.impl}: {error!r}")
            self.broken.add((question, workers, impl.impl))
            return []
        self.times.note(question, workers, impl.impl, time.monotonic() - begin)
        return lines

    def measure_once(self, question, about, workers, impl):
        if "connections" in about:
            return measure.run_server(impl, question, workers, about, self.args.quick)
        runs = 1 if self.args.quick else about.get("runs", schedule.RUNS)
        if "figure" in about:
            return measure.run_for_figure(impl, question, workers, about, runs, self.args.quick)
        return measure.run_program(impl, question, workers, runs, self.args.quick)
