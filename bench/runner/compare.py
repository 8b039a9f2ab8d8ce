"""How results differ from older ones: for those who change the runtime and want to know what it did."""
from . import report

HEADS = ("", "question", "workers", "then", "now", "better by", "beside the peers, then and now")


def are_apart(old, new):
    """Whether no run of one of them reached a run of the other; what is not apart may be noise."""
    return "min" in old and "min" in new and (new["min"] > old["max"] or new["max"] < old["min"])


def rows(new, old):
    for question in new.questions:
        for metric in new.metrics(question):
            for workers in new.workers(question):
                then, now = (results.lines.get((question, metric, workers, "coir")) for results in (old, new))
                if then and now:
                    peers, before = (results.peers(question, metric, workers) for results in (new, old))
                    beside = ", ".join(f"{impl} {report.number(before[impl])}x -> {report.number(peers[impl])}x"
                                       for impl in peers if impl in before)
                    times = report.gain(then, now)
                    mark = "" if not are_apart(then, now) else "+" if times > 1 else "-"
                    yield (mark, f"{question}{': ' * bool(metric)}{metric}", str(workers), report.number(then["value"]),
                           f"{report.number(now['value'])} {now['unit']}", f"{report.number(times)}x", beside)


def text(new, old):
    """A table. Times and rates drift with the machine; the ratios to the peers drift less."""
    found = list(rows(new, old))
    marks = [row[0] for row in found]
    out = [*report.columns([HEADS, *found], (2, 3, 4, 5)),
           f"+ {marks.count('+')} better, - {marks.count('-')} worse, {marks.count('')} within the spread of the runs"]
    kinds = [{bool(line.get("quick")) for line in results.lines.values()} for results in (old, new)]
    if kinds[0] != kinds[1]:
        out.append("one of the two was measured with --quick, at least in part: small differences say nothing")
    return "\n".join(out)
