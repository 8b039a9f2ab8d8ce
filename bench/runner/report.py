"""From measured lines to results: merging rounds, judging targets, tables as text. page.py makes the Markdown."""
import json
import math
import re
import statistics
from dataclasses import dataclass


def key_of(line):
    return line["question"], line.get("metric", ""), line["workers"], line["impl"]


def merge(lines):
    """One line for all rounds: the median of their values, the least and the greatest of their runs."""
    groups = {}
    for line in lines:
        groups.setdefault(key_of(line), []).append(line)
    merged = []
    for group in groups.values():
        middle = statistics.median(line["value"] for line in group)
        merged.append(group[0] | {"value": middle, "median": middle, "runs": sum(line["runs"] for line in group),
                                  "min": min(line["min"] for line in group),
                                  "max": max(line["max"] for line in group)} | merge_histograms(group))
    return merged


def merge_histograms(group):
    """The median of each percentile."""
    percentiles = {}
    for line in group:
        for percent, value in line.get("histogram", []):
            percentiles.setdefault(percent, []).append(value)
    if not percentiles:
        return {}
    return {"histogram": [[percent, statistics.median(values)] for percent, values in sorted(percentiles.items())]}


def join(files):
    """The lines of several files: of each question those of the last file that has it."""
    of_question = {}
    for lines in files:
        of_question |= {question: [line for line in lines if line["question"] == question]
                        for question in {line["question"]: None for line in lines}}
    return [line for lines in of_question.values() for line in lines]


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def number(value):
    """Three significant digits, or all of the integer part."""
    if value in (0, math.inf):
        return "0" if value == 0 else "∞"
    digits = max(0, 2 - len(str(int(abs(value)))) + 1)
    return f"{value:.{3 if abs(value) < 0.1 else digits}f}"


def quotient(more, less):
    """A cost that is a difference may be zero or below; then it is as far ahead as can be."""
    if less <= 0:
        return 1.0 if more <= 0 else math.inf
    return more / less


@dataclass
class Verdict:
    """What became of one target with one worker count."""
    metric: str
    workers: int
    is_at_most: bool
    bound: float
    unit: str
    value: float = None  # None: not measured

    @property
    def met(self):
        if self.value is None:
            return None
        return self.value <= self.bound if self.is_at_most else self.value >= self.bound

    @property
    def room(self):
        """How many times better than wanted: 1 or more when the target is met. None: not measured."""
        if self.value is None:
            return None
        return quotient(self.bound, self.value) if self.is_at_most else quotient(self.value, self.bound)

    @property
    def wanted(self):
        return f"{'at most' if self.is_at_most else 'at least'} {self.bound:g}{self.unit}"

    @property
    def outcome(self):
        if self.met is None:
            return "not measured"
        if self.met:
            return "met" if self.room == math.inf else f"met by {number(self.room)}x"
        return f"missed by {number(1 / self.room)}x" if self.room else "missed"

    @property
    def sentence(self):
        where = f"{self.workers} worker{'s' * (self.workers > 1)}{', ' * bool(self.metric)}{self.metric}"
        reached = "" if self.value is None else f"{self.value:.4g}{self.unit}, "
        return f"{self.outcome}: {where}: {reached}{self.wanted}"


class Results:
    """Merged lines, by what they measure."""

    def __init__(self, lines, questions):
        self.lines = {key_of(line): line for line in lines}
        self.counts = {}
        for line in lines:
            self.counts.setdefault(line["impl"], set()).add(line["workers"])
        measured = {key[0] for key in self.lines}
        self.questions = {q: about for q, about in questions.items() if q in measured}
        for question, about in self.questions.items():
            self.add_baseline(question, about.get("baseline"))

    def add_baseline(self, question, baseline):
        """A number that stands beside what was measured, as if it were a peer's."""
        own = baseline and self.find(question, "", baseline["workers"], "coir")
        if own:
            line = {"question": question, "impl": "baseline", "unit": own["unit"], "better": own["better"]}
            self.lines[question, "", baseline["workers"], "baseline"] = line | baseline
            self.counts.setdefault("baseline", set()).add(baseline["workers"])

    def metrics(self, question):
        return sorted({key[1] for key in self.lines if key[0] == question})

    def workers(self, question):
        return sorted({key[2] for key in self.lines if key[0] == question})

    def impls(self, question, metric, workers):
        """In the order of measuring: Coir first."""
        return [key[3] for key in self.lines if key[:3] == (question, metric, workers)]

    def peers(self, question, metric, workers):
        """Who is not Coir, nor Coir in another configuration, with how many times better Coir is."""
        others = {key[3]: None for key in self.lines if key[:2] == (question, metric) and not is_coir(key[3])}
        times = {impl: self.advantage(question, metric, workers, impl) for impl in others}
        return {impl: advantage for impl, advantage in times.items() if advantage is not None}

    def find(self, question, metric, workers, impl):
        """A peer that knows one worker count only stands beside the others as well."""
        exact = self.lines.get((question, metric, workers, impl))
        counts = self.counts.get(impl, ())
        if exact or is_coir(impl) or len(counts) != 1:
            return exact
        return self.lines.get((question, metric, *counts, impl))

    def advantage(self, question, metric, workers, impl):
        """How many times better Coir is than a peer; None when one of them is missing."""
        own = self.find(question, metric, workers, "coir")
        peer = self.find(question, metric, workers, impl)
        if not own or not peer:
            return None
        return gain(peer, own)

    def efficiency(self, question, workers, impl):
        """The part of the workers that is of use, compared with one of them alone; None where nobody asks for it."""
        scales = self.questions[question].get("scales")
        one = self.lines.get((question, "", 1, impl))
        many = self.lines.get((question, "", workers, impl))
        if not scales or workers == 1 or not one or not many:
            return None
        return gain(one, many) / (1 if scales == "per core" else workers)

    def judge(self, question):
        """Yields the verdict on each target at each worker count."""
        for target in self.questions[question]["targets"]:
            for workers in self.workers(question):
                if target.get("workers", workers) == workers:
                    yield self.judge_one(question, target, workers)

    def judge_one(self, question, target, workers):
        metric, versus = target.get("metric", ""), target.get("versus")
        own = self.find(question, metric, workers, "coir")
        value, unit = None, f"x {versus}" if versus else f" {own['unit']}" if own else ""
        if versus == "one worker":
            one = self.find(question, metric, 1, "coir")
            value = quotient(own["value"], one["value"]) if own and one else None
        elif versus:
            value = self.advantage(question, metric, workers, versus)
        elif own:
            value = own["value"]
        is_at_most = "at_most" in target
        return Verdict(metric, workers, is_at_most, target["at_most" if is_at_most else "at_least"], unit, value)

    def verdicts(self):
        return [verdict for question in self.questions for verdict in self.judge(question)]

    def missed(self):
        """The questions of which a target is missed."""
        return [q for q in self.questions if any(verdict.met is False for verdict in self.judge(q))]

    def rows(self, question):
        """Yields the cells under HEADS as text."""
        for metric in self.metrics(question):
            for workers in self.workers(question):
                for impl in self.impls(question, metric, workers):
                    line = self.lines[question, metric, workers, impl]
                    times = self.advantage(question, metric, workers, impl) if impl != "coir" else None
                    part = self.efficiency(question, workers, impl) if not metric else None
                    yield (figure_of(line), str(workers), impl, number(line["value"]), spread(line),
                           "" if times is None else f"{number(times)}x", "" if part is None else f"{part:.0%}")


def is_coir(impl):
    """Coir in its default configuration, or in another."""
    return impl.split()[0] == "coir"


def gain(old, new):
    """How many times better the new line is than the old."""
    more, less = (old, new) if new["better"] == "lower" else (new, old)
    return quotient(more["value"], less["value"])


def figure_of(line):
    metric = line.get("metric", "")
    return f"{metric}{': ' * bool(metric)}{line['unit']}, {line['better']} is better"


def spread(line):
    return f"{number(line['min'])} .. {number(line['max'])}" if "min" in line else "fixed"


class Notes:
    """What people have written about targets that are missed: a page in Markdown."""

    def __init__(self, text):
        self.sections, fenced = [["", ""]], False
        for line in text.splitlines():
            fenced ^= line.startswith("```")
            if fenced or line.startswith(("```", "    ")):
                continue  # command lines name questions, and explain nothing
            if line.startswith("#"):
                self.sections.append([line.lstrip("# "), ""])
            self.sections[-1][1] += line + "\n"

    def anchor(self, question):
        """The heading of the first section that says something of a question, as links name it; None: there is none."""
        for heading, text in self.sections:
            prose = re.sub(r"`([^`]*)`", lambda span: "" if re.search(r"\s", span[1]) else span[1], text)
            if re.search(rf"\b{re.escape(question)}\b", prose):
                return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        return None

    def unexplained(self, results):
        return [question for question in results.missed() if self.anchor(question) is None]


HEADS = ("figure", "workers", "impl", "value", "min .. max", "Coir is better by", "efficiency")
BASELINE = """baseline: a fixed number, what an earlier implementation of this interface reached with as many workers on
another machine; it is not available to be measured here"""


def columns(rows, right):
    """Rows of cells as lines of text; the columns with these numbers end, not begin, below each other."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = [cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))]
        yield ("  " + "  ".join(cells)).rstrip()


def text_table(results, question):
    rows = [HEADS, *results.rows(question)]
    if not any(row[-1] for row in rows[1:]):
        rows = [row[:-1] for row in rows]
    out = [f"{question}: {results.questions[question]['title']}", *columns(rows, (1, 3, 5, 6))]
    if "baseline" in results.questions[question]:
        out += [f"  {line}" for line in BASELINE.splitlines()]
    return "\n".join(out + [f"  {verdict.sentence}" for verdict in results.judge(question)])


def closing_line(results):
    """Preceded by the number of targets that could not be judged."""
    met = [verdict.met for verdict in results.verdicts()]
    unknown = f"{met.count(None)} targets not measured\n" * (None in met)
    return unknown + f"{met.count(True)} targets met, {met.count(False)} missed"
