"""Pictures of results, drawn by gnuplot as SVG.

  ratios.svg   how many times better Coir is than each peer, for each question
  targets.svg  how far each target is met or missed
  scaling.svg  the part of the workers that is of use, for questions whose work can be shared
  latency.svg  percentiles of latency, where a question's lines have a "histogram": [[percentile, us], ...]

Every implementation has one colour and one shape in all of them. The colours can be told apart by the colour-blind and
stand out from white and from black; the same results always give the same bytes. Viewers that prefer dark pages get
dark pictures, others light ones.
"""
import re
import shutil
import subprocess
import sys

from .report import is_coir

INK, PAPER, GRID = "#24292f", "#ffffff", "#d0d7de"
DARK = {INK: "#d5dbe1", PAPER: "#0d1117", GRID: "#3a424b"}
LOOKS = {  # colour, and gnuplot's number of a shape
    "coir": ("#d55e00", 7), "go": ("#0072b2", 9), "tokio": ("#009e73", 5), "boost_fiber": ("#cc79a7", 13),
    "rayon": ("#e69f00", 11), "tbb": ("#56b4e9", 15), "serial": ("#8c8c8c", 2), "nginx": ("#aa4499", 10),
    "epoll": ("#7f7f7f", 6), "uring": ("#999933", 12), "libuv": ("#8577d9", 4), "threads": ("#44aa99", 8),
    "fio": ("#cc6677", 14), "baseline": ("#8c8c8c", 1)}
OTHER = ("#8c8c8c", 3)
MET, MISSED = ("#0072b2", 7), ("#d55e00", 9)
NEAREST, FARTHEST = 0.02, 1000  # what lies beyond them is drawn there
NINES = {50: 2, 90: 10, 99: 100, 99.9: 1e3, 99.99: 1e4}  # a percentile's place: 1 / the part above it
WIDTH, LABELS, HEAD, FOOT, ROW = 960, 170, 84, 30, 15
ACROSS, PANEL = 4, 170


def write_all(results, folder):
    """Writes what there is something to show of; returns the names of the files."""
    if not shutil.which("gnuplot"):
        print("gnuplot is not installed: apt-get install gnuplot-nox (pictures)", file=sys.stderr)
        return []
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, draw in (("ratios", ratios), ("targets", targets), ("scaling", scaling), ("latency", latency)):
        script = draw(results)
        if script:
            (folder / f"{name}.svg").write_text(render(script))
            made.append(f"{name}.svg")
    return made


def render(script):
    """What gnuplot makes of it, without its name and version, and with colours for dark pages."""
    done = subprocess.run(["gnuplot", "-"], input=script, capture_output=True, text=True)
    if done.returncode != 0 or not done.stdout.rstrip().endswith("</svg>"):
        raise RuntimeError(f"gnuplot: {done.stderr}")
    rules = "".join(dark_rule(light) for light in DARK)
    style = f"<style>@media (prefers-color-scheme: dark) {{\n{rules}}}</style>\n"
    text = re.sub(r"<title>Gnuplot</title>\s*<desc>[^<]*</desc>\n", lambda _: style, done.stdout)
    return re.sub(r"<title>gnuplot_plot_\w+</title>|<g [^>]*>\s*</g>\n|^\s+|[ \t]+$", "", text, flags=re.M)


def dark_rule(light):
    """A rule for each way in which gnuplot writes a colour."""
    red, green, blue = (int(light[i:i + 2], 16) for i in (1, 3, 5))
    ways = light, f"rgb({red},{green},{blue})", f"rgb({red:3}, {green:3}, {blue:3})"
    rule = ""
    for what in ("fill", "stroke", "color"):
        rule += ",".join(f'[{what}="{way}"]' for way in ways) + f"{{{what}:{DARK[light]}}}\n"
    return rule


# ---- Parts of a script ----


def style(look):
    colour, shape = look
    return f'pt {shape} ps 0.8 lc rgb "{colour}"'


def in_order(impls):
    """Always the same order, and the look of each."""
    known = {impl: LOOKS[impl] for impl in LOOKS if impl in impls}
    return known | {impl: OTHER for impl in sorted(impls) if impl not in LOOKS}


def begin(height, title):
    return [f'set term svg size {WIDTH},{height} dynamic noenhanced font "sans-serif,12" background "{PAPER}"',
            "set multiplot", "set datafile missing '?'",
            f'set label 1 "{title}" at screen 0.5,{1 - 18 / height:.5f} center textcolor rgb "{INK}" font ",14"',
            f'set border lc rgb "{INK}"', f'set tics textcolor rgb "{INK}" nomirror',
            f'set grid lt 1 lw 0.5 lc rgb "{GRID}"', f'set title textcolor rgb "{INK}" offset 0,-0.5',
            "unset key"]


def place(left, right, top, bottom, height):
    """Where the next plot lies, in pixels."""
    return [f"set lmargin at screen {left / WIDTH:.5f}", f"set rmargin at screen {right / WIDTH:.5f}",
            f"set tmargin at screen {1 - top / height:.5f}", f"set bmargin at screen {1 - bottom / height:.5f}"]


def legend(entries, height):
    """Names beside their shapes, in one line below the title. entries: (name, style of its points)s."""
    widths = [34 + 7 * len(name) for name, _ in entries]
    at, out = (WIDTH - sum(widths)) / 2, []
    for i, ((name, look), width) in enumerate(zip(entries, widths)):
        out.append(f'set label {i + 2} "{name}" at screen {at / WIDTH:.5f},{1 - 44 / height:.5f} left offset 1,0 '
                   f'textcolor rgb "{INK}" point {look}')
        at += width
    return out


def plot(series):
    """series: (points, what to draw them with)s. The labels of the picture belong to its first plot."""
    out = [f"$d{i} << EOD\n" + "".join(f"{x:.5g} {y:.5g}\n" for x, y in points) + "EOD"
           for i, (points, _) in enumerate(series)]
    curves = [f"$d{i} using 1:2 with {drawn}" for i, (_, drawn) in enumerate(series)]
    return out + ["plot " + ", ".join(curves or ["NaN"]), "unset label"]


def decades(low, high):
    """Tics of an axis of ratios: 0.1x, 1x, 10x."""
    return ", ".join(f'"{10.0 ** p:g}x" {10.0 ** p:g}' for p in range(-3, 4) if low <= 10.0 ** p <= high)


def near(ratio):
    return min(max(ratio, NEAREST), FARTHEST)


def dots(title, names, halves, looks):
    """Rows of dots on an axis of ratios. halves: (title, {look's title: [(row, ratio)]})s beside each other."""
    height = HEAD + ROW * len(names) + FOOT
    values = [near(ratio) for _, half in halves for points in half.values() for _, ratio in points]
    low, high = min(values + [0.5]) / 1.3, max(values + [2]) * 1.3
    script = begin(height, title) + legend([(name, style(look)) for name, look in looks.items()], height)
    script += ["set logscale x", f"set xrange [{low:.5g}:{high:.5g}]", f"set xtics ({decades(low, high)})",
               f"set yrange [{-len(names) + 0.4:.1f}:0.6]"]
    width = (WIDTH - LABELS - 20) / len(halves)
    for i, (half_title, half) in enumerate(halves):
        left = LABELS + i * width
        script += place(left, left + width - 20, HEAD, height - FOOT, height)
        rows = ", ".join(f'"{"" if i else name}" {-row}' for row, name in enumerate(names))
        script += [f'set title "{half_title}"', f"set ytics ({rows})",
                   f'set arrow 1 from 1,graph 0 to 1,graph 1 nohead lw 2 lc rgb "{INK}" back']
        script += plot([([(near(ratio), -row) for row, ratio in half[name]], f"points {style(look)}")
                        for name, look in looks.items() if half.get(name)])
    return "\n".join(script) + "\n"


def panels(title, shown, setting, guide=None):
    """Small plots, some in a row. shown: (title, {impl: points})s."""
    looks = in_order({impl for _, curves in shown for impl in curves})
    height = HEAD + PANEL * -(-len(shown) // ACROSS) + 10
    script = begin(height, title) + legend([(impl, style(look)) for impl, look in looks.items()], height) + setting
    width = (WIDTH - 10) / ACROSS
    for i, (panel_title, curves) in enumerate(shown):
        left, top = 10 + width * (i % ACROSS), HEAD + PANEL * (i // ACROSS)
        script += place(left + 40, left + width - 10, top, top + PANEL - 50, height) + [f'set title "{panel_title}"']
        series = [(curves[impl], f"linespoints lw 1.5 {style(look)}") for impl, look in looks.items() if impl in curves]
        script += plot(([guide] if guide else []) + series[::-1])  # Coir, the first one, on top
    return "\n".join(script) + "\n"


# ---- The pictures ----


def worker_pair(results, question):
    """The least and the most workers that it was asked with; one count when there is no other."""
    counts = results.workers(question)
    return sorted({counts[0], counts[-1]})


def workers_text(counts):
    least, most = min(counts), max(counts)
    return f"{least} to {most} workers" if least < most else f"{most} worker{'s' * (most > 1)}"


def ratios(results):
    names, halves, counts = [], ({}, {}), (set(), set())
    for question in results.questions:
        has_peers = False
        for workers, half, seen in zip(worker_pair(results, question), halves, counts):
            for impl, ratio in results.peers(question, "", workers).items():
                half.setdefault(impl, []).append((len(names), ratio))
                seen.add(workers)
                has_peers = True
        if has_peers:
            names.append(question)
    titled = [(workers_text(seen), half) for seen, half in zip(counts, halves) if half]
    looks = in_order({*halves[0], *halves[1]})
    return names and dots("How many times better Coir is (right of 1x) than its peers", names, titled, looks)


def targets(results):
    names, points = [], {"met": [], "missed": []}
    for question in results.questions:
        verdicts = [verdict for verdict in results.judge(question) if verdict.met is not None]
        for verdict in verdicts:
            points["met" if verdict.met else "missed"].append((len(names), verdict.room))
        if verdicts:
            names.append(question)
    looks = {"met": MET, "missed": MISSED}
    return names and dots("How many times better than its target each figure is", names, [("", points)], looks)


def scaling(results):
    shown, most, highest = [], 2, 1.2
    for question in results.questions:
        curves = {}
        for workers in results.workers(question):
            for impl in results.impls(question, "", workers):
                part = results.efficiency(question, workers, impl)
                if part is not None and (impl == "coir" or not is_coir(impl)):
                    curves.setdefault(impl, [(1, 1)]).append((workers, part))
                    most, highest = max(most, workers), max(highest, part)
        if curves:
            shown.append((question, curves))
    counts = sorted({workers for _, curves in shown for points in curves.values() for workers, _ in points})
    setting = ["set logscale x 2", f"set xrange [0.9:{most * 1.1:.5g}]", f"set yrange [0:{highest * 1.05:.5g}]",
               f"set xtics ({', '.join(f'{count}' for count in counts)})", "set ytics 0.5"]
    perfect = ([(1, 1), (most, 1)], f'lines dt 2 lc rgb "{INK}"')
    title = "Efficiency: speed with so many workers, over as many times that of one"
    return shown and panels(title, shown, setting, perfect)


def latency(results):
    shown, low, high = [], float("inf"), 0
    for question in results.questions:
        for workers in worker_pair(results, question):
            curves = {}
            for impl in results.impls(question, "", workers):
                line = results.lines[question, "", workers, impl]
                points = [(1 / (1 - percent / 100), value) for percent, value in line.get("histogram", ())
                          if 50 <= percent < 100 and value > 0]
                if points and (impl == "coir" or not is_coir(impl)):
                    curves[impl] = points
                    low, high = min(low, *(y for _, y in points)), max(high, *(y for _, y in points))
            if curves:
                shown.append((f"{question}, {workers_text([workers])}", curves))
    if not shown:
        return None
    tics = ", ".join(f'"{percent:g}" {at:g}' for percent, at in NINES.items())
    powers = ", ".join(f'"{10 ** power}" {10 ** power}' for power in range(7))
    setting = ["set logscale xy", "set xrange [1.7:14000]", f"set yrange [{low / 1.5:.5g}:{high * 1.5:.5g}]",
               f"set xtics ({tics})", f"set ytics ({powers})"]
    return panels("Latency in us at each percentile; lower is better", shown, setting)
