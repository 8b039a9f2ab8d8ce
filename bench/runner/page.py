"""The page of results in Markdown: what was reached beside the targets, pictures, then every question in detail."""
import re

from . import report

INTRODUCTION = """# Results

Made by `bench/run`; do not edit. All implementations took turns; a figure is the median of the rounds. The ratios
count: they were measured side by side, while absolute times, and the targets in ns, drift from machine to machine.
"go 6.4x" says that Coir is 6.4 times better than Go. What a question measures is said below, and at the head of its
program, `bench/b_<question>.c`, of those of go_fiber in `libgo/fiber/bench/`. Servers share the machine with the load;
with as many workers as CPUs the two get in each other's way.
"""
PICTURES = {
    "ratios.svg": "How many times better Coir is than each peer, question by question, on an axis of powers of ten",
    "targets.svg": "How many times better or worse each figure is than its target",
    "scaling.svg": "Efficiency with more workers than one",
    "latency.svg": "Percentiles of latency from the median to the 99.99th",
}


def markdown(results, pictures, notes, notes_link):
    """pictures: name -> the link to it; notes: report.Notes, to be found at notes_link."""
    out = [INTRODUCTION, *facts(results), "", "## Summary", "",
           "| question | workers | Coir | Coir beside the peers | target | outcome |", "|---|--:|--:|---|---|---|"]
    for question in results.questions:
        anchor = notes.anchor(question)
        out += summary_rows(results, question, f", [why]({notes_link}#{anchor})" if anchor else "")
    out += ["", *efficiency_table(results)]
    if pictures:
        out += ["## Pictures", ""]
        out += [f"![{PICTURES[name]}]({link})\n" for name, link in pictures.items()]
    out += ["## Details", "",
            "In each cell: the median, the least and the greatest of all runs, and how many times better Coir is.", ""]
    for question in results.questions:
        out += details(results, question)
    return "\n".join(out)


def facts(results):
    """Where, when and by what all of it was measured."""
    lines = [line for line in results.lines.values() if "machine" in line]
    machines = {f"{line['machine']['cpu']}, {line['machine']['cores']} cores, Linux {line['machine']['kernel']}": None
                for line in lines}
    yield from (f"- Machine: {machine}" for machine in machines)
    versions = {(line["impl"], line["version"]): None for line in lines if line.get("version")}
    yield "- Measured: " + ", ".join(f"{impl} ({version})" for impl, version in versions)
    runs = {tuple(line.get(key, "unknown") for key in ("run", "at", "load")): None for line in lines}
    yield from (f"- By `{run}`, {at}, load average before: {load}" for run, at, load in runs)
    yield from (f"- {sentence}" for sentence in report.closing_line(results).splitlines())
    rough = {line["question"]: None for line in lines if line.get("quick")}
    if rough:
        all_of_them = len(rough) == len(results.questions)
        yield f"- With `--quick`, so rough: {'all of it' if all_of_them else ', '.join(rough)}"


def peers_text(results, question, metric, workers):
    peers = results.peers(question, metric, workers)
    return ", ".join(f"{impl} {report.number(times)}x" for impl, times in peers.items())


def summary_rows(results, question, why):
    verdicts = list(results.judge(question))
    for workers in results.workers(question):
        for metric in results.metrics(question):
            here = [verdict for verdict in verdicts if (verdict.metric, verdict.workers) == (metric, workers)]
            own = results.lines.get((question, metric, workers, "coir"))
            if not here and (metric or not own):
                continue
            name = f"[{question}](#{question}){': ' * bool(metric)}{metric}"
            value = f"{report.number(own['value'])} {own['unit']}" if own else ""
            outcomes = [f"**{verdict.outcome}**{why}" if verdict.met is False else verdict.outcome
                        for verdict in here]
            cells = [name, str(workers), value, peers_text(results, question, metric, workers),
                     "<br>".join(verdict.wanted for verdict in here), "<br>".join(outcomes)]
            yield "| " + " | ".join(cells) + " |"


def efficiency_table(results):
    rows = []
    for question in results.questions:
        for workers in results.workers(question):
            parts = {impl: results.efficiency(question, workers, impl)
                     for impl in results.impls(question, "", workers)}
            cells = [f"{impl} {part:.0%}" for impl, part in parts.items() if part is not None]
            if cells:
                rows.append(f"| {question} | {workers} | {', '.join(cells)} |")
    if not rows:
        return []
    return ["## Efficiency", "", "Speed with so many workers, over as many times the speed of one.", "",
            "| question | workers | efficiency |", "|---|--:|---|", *rows, ""]


def cell(results, question, metric, workers, impl):
    line = results.lines.get((question, metric, workers, impl))
    if not line:
        return ""
    times = None if impl == "coir" else results.advantage(question, metric, workers, impl)
    better_by = "" if times is None else f", **{report.number(times)}x**"
    return f"{report.number(line['value'])} ({report.spread(line)}){better_by}"


def details(results, question):
    about = results.questions[question]
    keys = [key for key in results.lines if key[0] == question]
    impls = list({key[3]: None for key in keys})
    out = [f"### {question}", "", f"{about['title'][0].upper()}{about['title'][1:]}.", "",
           f"| figure | workers | {' | '.join(impls)} |", f"|---|--:|{'---|' * len(impls)}"]
    for metric in results.metrics(question):
        lines = [line for key, line in results.lines.items() if key[:2] == (question, metric)]
        for workers in sorted({line["workers"] for line in lines}):
            cells = [cell(results, question, metric, workers, impl) for impl in impls]
            out.append(f"| {report.figure_of(lines[0])} | {workers} | {' | '.join(cells)} |")
    if "baseline" in about:
        out += ["", f"{report.BASELINE[0].upper()}{report.BASELINE[1:]}."]
    return out + ["", *commands(results, keys)]


def commands(results, keys):
    """The command of each implementation; those that differ in nothing but the number of workers are one."""
    shown = {}
    for key in keys:
        command = results.lines[key].get("command")
        if command:
            general = re.sub(r"(--workers |-j|_NWORKERS=|WORKERS=)\d+", r"\1N", command)
            shown.setdefault(general, []).append(command)
    texts = [general if len(set(same)) > 1 else same[0] for general, same in shown.items()]
    return ["<details><summary>Commands</summary>", "", "```", *texts, "```", "</details>", ""] if texts else []
