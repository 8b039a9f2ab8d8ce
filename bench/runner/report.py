"""From measured lines to results: merging rounds, judging targets, tables as text and as Markdown."""
import statistics


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
                                  "max": max(line["max"] for line in group)})
    return merged


def number(value):
    """Three significant digits, or all of the integer part."""
    if value == 0:
        return "0"
    digits = max(0, 2 - len(str(int(abs(value)))) + 1)
    return f"{value:.{3 if abs(value) < 0.1 else digits}f}"


class Results:
    """Merged lines, by what they measure."""

    def __init__(self, lines, questions):
        self.lines = {key_of(line): line for line in lines}
        self.questions = {q: about for q, about in questions.items() if any(key[0] == q for key in self.lines)}
        for question, about in self.questions.items():
            self.add_baseline(question, about.get("baseline"))

    def add_baseline(self, question, baseline):
        """A number that stands beside what was measured, as if it were a peer's."""
        own = baseline and self.find(question, "", baseline["workers"], "coir")
        if own:
            line = {"question": question, "impl": "baseline", "unit": own["unit"], "better": own["better"]}
            self.lines[question, "", baseline["workers"], "baseline"] = line | baseline

    def metrics(self, question):
        return sorted({key[1] for key in self.lines if key[0] == question})

    def workers(self, question):
        return sorted({key[2] for key in self.lines if key[0] == question})

    def impls(self, question, metric, workers):
        """In the order of measuring: Coir first."""
        return [key[3] for key in self.lines if key[:3] == (question, metric, workers)]

    def find(self, question, metric, workers, impl):
        """A peer that was measured with one worker count only stands beside the others as well."""
        exact = self.lines.get((question, metric, workers, impl))
        others = [line for key, line in self.lines.items() if key[:2] == (question, metric) and key[3] == impl]
        return exact or (others[0] if impl != "coir" and len(others) == 1 else None)

    def advantage(self, question, metric, workers, impl):
        """How many times better Coir is than a peer; None when one of them is missing."""
        own = self.find(question, metric, workers, "coir")
        peer = self.find(question, metric, workers, impl)
        if not own or not peer:
            return None
        more, less = (peer, own) if own["better"] == "lower" else (own, peer)
        if less["value"] == 0:
            return 1.0 if more["value"] == 0 else float("inf")
        return more["value"] / less["value"]

    def judge(self, question):
        """Yields (is_met or None when it was not measured, sentence) for each target at each worker count."""
        for target in self.questions[question]["targets"]:
            for workers in self.workers(question):
                if target.get("workers", workers) == workers:
                    yield self.judge_one(question, target, workers)

    def judge_one(self, question, target, workers):
        metric, versus = target.get("metric", ""), target.get("versus")
        where = f"{workers} worker{'s' * (workers > 1)}{', ' * bool(metric)}{metric}"
        bound = f"at most {target['at_most']}" if "at_most" in target else f"at least {target['at_least']}"
        own = self.find(question, metric, workers, "coir")
        if versus == "one worker":
            one = self.find(question, metric, 1, "coir")
            value, unit = own["value"] / one["value"] if own and one else None, "x one worker"
        elif versus:
            value, unit = self.advantage(question, metric, workers, versus), f"x {versus}"
        else:
            value, unit = (own["value"], f" {own['unit']}") if own else (None, "")
        if value is None:
            return None, f"{where}: {bound}{unit}: not measured"
        met = value <= target["at_most"] if "at_most" in target else value >= target["at_least"]
        return met, f"{where}: {value:.4g}{unit}, {bound}"

    def verdicts(self):
        return [met for question in self.questions for met, _ in self.judge(question)]

    def rows(self, question):
        """Yields the cells under HEADS as text."""
        for metric in self.metrics(question):
            for workers in self.workers(question):
                for impl in self.impls(question, metric, workers):
                    line = self.lines[question, metric, workers, impl]
                    times = self.advantage(question, metric, workers, impl) if impl != "coir" else None
                    figure = f"{metric}{': ' * bool(metric)}{line['unit']}, {line['better']} is better"
                    spread = f"{number(line['min'])} .. {number(line['max'])}" if "min" in line else "fixed"
                    better_by = "" if times is None else f"{number(times)}x"
                    yield figure, str(workers), impl, number(line["value"]), spread, better_by


HEADS = ("figure", "workers", "impl", "value", "min .. max", "Coir is better by")
INTRODUCTION = """# Results

Made by `bench/run`; do not edit. `value` is the median of the rounds, in which all implementations took turns;
`min .. max` spans all runs. What a question measures is said at the head of its program, `bench/b_<question>.c`, or
`libgo/fiber/bench/gof_bench_<question without gof_>.c`; HTTP servers share the machine with the load. The ratios count:
absolute times, and the targets in ns, drift from machine to machine.
"""
BASELINE = """baseline: a fixed number, what an earlier implementation of this interface reached with as many workers on
another machine; it is not available to be measured here"""
MARKS = {True: "met", False: "missed", None: "unknown"}


def text_table(results, question):
    rows = [HEADS, *results.rows(question)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    out = [f"{question}: {results.questions[question]['title']}"]
    for row in rows:
        cells = [cell.rjust(w) if i in (1, 3, 5) else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))]
        out.append(("  " + "  ".join(cells)).rstrip())
    if "baseline" in results.questions[question]:
        out += [f"  {line}" for line in BASELINE.splitlines()]
    out += [f"  {MARKS[met]:8}{sentence}" for met, sentence in results.judge(question)]
    return "\n".join(out)


def closing_line(results):
    """Preceded by the number of targets that could not be judged."""
    verdicts = results.verdicts()
    unknown = f"{verdicts.count(None)} targets not measured\n" * (None in verdicts)
    return unknown + f"{verdicts.count(True)} targets met, {verdicts.count(False)} missed"


def markdown(results, command):
    first = next(iter(results.lines.values()))
    about = first["machine"]
    out = [INTRODUCTION,
           f"- Machine: {about['cpu']}, {about['cores']} cores, Linux {about['kernel']}",
           f"- Measured: {first.get('at', 'unknown')}, load average before: {first.get('load', 'unknown')}",
           f"- Command: `{command}`"]
    versions = {line["impl"]: line.get("version", "") for line in results.lines.values()}
    out += [f"- {impl}: {version}" for impl, version in versions.items() if version]
    out += [f"- {line}" for line in closing_line(results).splitlines()] + [""]
    if any(line.get("quick") for line in results.lines.values()):
        out += ["**Measured with `--quick`: the figures are rough.**", ""]
    for question, question_about in results.questions.items():
        title = question_about["title"]
        out += [f"## {question}", "", f"{title[0].upper()}{title[1:]}.", "",
                "| " + " | ".join(HEADS) + " |", "|---|--:|---|--:|---|--:|"]
        out += ["| " + " | ".join(row) + " |" for row in results.rows(question)]
        if "baseline" in question_about:
            out += ["", f"{BASELINE[0].upper()}{BASELINE[1:]}."]
        out += [""] + [f"- {MARKS[met]}: {sentence}" for met, sentence in results.judge(question)] + [""]
        lines = [line for key, line in results.lines.items() if key[0] == question and "command" in line]
        commands = {line["command"]: None for line in lines}
        out += ["```", *commands, "```", ""]
    return "\n".join(out)
