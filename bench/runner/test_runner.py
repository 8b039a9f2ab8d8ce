#!/usr/bin/env python3
"""Tests of bench/run and its parts. Nothing is measured: programs that print what they are told to stand for all."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
BENCH = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(BENCH))
from runner import compare, page, plots, report, schedule  # noqa: E402

QUESTIONS = json.loads((BENCH / "targets.json").read_text())
MANIFESTS = {path.parent.name: json.loads(path.read_text()) for path in (BENCH / "peers").glob("*/peer.json")}
PROMISED = """yield_2 yield_1000 chan_pingpong chan_buffered chan_mpsc select_3 spawn_join spawn_many mutex_8 skynet
forkjoin_fib jobs_1m timer_cancel mem_parked mem_queued park_1m idle_wakeups http_64 http_1000 echo_64 echo_1000
poll_partition spinner_p99 file_randread""".split()


def line(question, impl, value, workers=1, better="lower", **more):
    return {"question": question, "impl": impl, "workers": workers, "value": value, "unit": "ns", "better": better,
            "runs": 1, "min": value, "median": value, "max": value,
            "machine": {"cpu": "a CPU", "cores": 2, "kernel": "6"}} | more


def results(lines, targets=(), **about):
    return report.Results(lines, {"q": {"title": "a title", "targets": list(targets)} | about})


class Merging(unittest.TestCase):
    def test_rounds_become_their_median_and_keep_their_extremes(self):
        rounds = [line("q", "coir", 3), line("q", "coir", 1, min=0.5), line("q", "coir", 2, max=9, runs=3)]
        merged, = report.merge(rounds)
        self.assertEqual([merged[key] for key in ("value", "median", "min", "max", "runs")], [2, 2, 0.5, 9, 5])

    def test_only_rounds_of_the_same_are_merged(self):
        different = [line("q", "coir", 1), line("q", "coir", 1, workers=2), line("q", "go", 1), line("p", "coir", 1),
                     line("q", "coir", 1, metric="p99")]
        self.assertEqual(report.merge(different), different)

    def test_histograms_are_merged_by_percentile(self):
        merged, = report.merge([line("q", "coir", 1, histogram=[[50, us], [99, us * 10]]) for us in (1, 7, 2)])
        self.assertEqual(merged["histogram"], [[50, 2], [99, 20]])

    def test_of_several_files_the_last_that_has_a_question_counts(self):
        old = [line("q", "coir", 1), line("q", "go", 1), line("p", "coir", 1)]
        joined = report.join([old, [line("q", "coir", 2)]])
        self.assertEqual([(each["question"], each["impl"], each["value"]) for each in joined],
                         [("q", "coir", 2), ("p", "coir", 1)])


class Judging(unittest.TestCase):
    def verdict(self, target, *lines, **about):
        found = list(results(lines, [target], **about).judge("q"))
        self.assertEqual(len(found), 1)
        return found[0]

    def test_bounds(self):
        for target, value, met, outcome in (({"at_most": 6}, 6, True, "met by 1.00x"),
                                            ({"at_most": 6}, 9, False, "missed by 1.50x"),
                                            ({"at_most": 6}, -1, True, "met"),
                                            ({"at_most": 0}, 0, True, "met by 1.00x"),
                                            ({"at_most": 0}, 2, False, "missed"),
                                            ({"at_least": 6}, 3, False, "missed by 2.00x"),
                                            ({"at_least": 6}, 12, True, "met by 2.00x")):
            verdict = self.verdict(target, line("q", "coir", value))
            self.assertEqual((verdict.met, verdict.outcome), (met, outcome), target)

    def test_a_peer_is_beaten_by_less_time(self):
        verdict = self.verdict({"versus": "go", "at_least": 8}, line("q", "coir", 5), line("q", "go", 30))
        self.assertEqual((verdict.met, verdict.value), (False, 6))
        self.assertEqual(verdict.sentence, "missed by 1.33x: 1 worker: 6x go, at least 8x go")

    def test_a_peer_is_beaten_by_a_higher_rate(self):
        verdict = self.verdict({"versus": "go", "at_least": 1.5}, line("q", "coir", 30, better="higher"),
                               line("q", "go", 15, better="higher"))
        self.assertEqual((verdict.met, verdict.value), (True, 2))

    def test_one_worker_is_compared_with_more(self):
        lines = line("q", "coir", 10), line("q", "coir", 13, workers=2)
        verdict = self.verdict({"workers": 2, "versus": "one worker", "at_most": 1.2}, *lines)
        self.assertEqual((verdict.met, verdict.value), (False, 1.3))

    def test_what_was_not_measured_is_neither_met_nor_missed(self):
        for target in ({"versus": "go", "at_least": 1}, {"metric": "p99", "at_most": 1}):
            verdict = self.verdict(target, line("q", "coir", 1))
            self.assertEqual((verdict.met, verdict.outcome), (None, "not measured"))
        mixed = results([line("q", "coir", 1)], [{"at_most": 1}, {"at_most": 0.5}, {"versus": "go", "at_least": 1}])
        self.assertEqual(report.closing_line(mixed), "1 targets not measured\n1 targets met, 1 missed")

    def test_a_peer_of_one_worker_count_stands_beside_all(self):
        lines = [line("q", "coir", 4, workers=2), line("q", "serial", 2), line("q", "go", 3)]
        self.assertEqual(results(lines).peers("q", "", 2), {"serial": 0.5, "go": 0.75})
        failed_with_two = [*lines, line("p", "go", 1, workers=2)]
        self.assertEqual(results(failed_with_two).peers("q", "", 2), {"serial": 0.5})

    def test_other_configurations_of_coir_are_no_peers(self):
        self.assertEqual(results([line("q", "coir", 4), line("q", "coir preempt", 2)]).peers("q", "", 1), {})

    def test_a_baseline_stands_beside_what_was_measured(self):
        target = {"versus": "baseline", "at_least": 3}
        verdict = self.verdict(target, line("q", "coir", 3), baseline={"workers": 1, "value": 12})
        self.assertEqual(verdict.value, 4)


class Efficiency(unittest.TestCase):
    def test_of_times_rates_and_times_on_one_core(self):
        for better, scales, one, many, expected in (("lower", True, 100, 50, 0.5), ("lower", True, 100, 25, 1),
                                                    ("higher", True, 10, 20, 0.5), ("lower", "per core", 10, 20, 0.5),
                                                    ("lower", "per core", 10, 10, 1)):
            of = results([line("q", "coir", one, better=better), line("q", "coir", many, 4, better)], scales=scales)
            self.assertEqual(of.efficiency("q", 4, "coir"), expected)
            self.assertIsNone(of.efficiency("q", 1, "coir"))
            self.assertIn(f"{expected:.0%}", report.text_table(of, "q"))

    def test_where_nobody_asks_for_it(self):
        of = results([line("q", "coir", 1), line("q", "coir", 1, 2)])
        self.assertIsNone(of.efficiency("q", 2, "coir"))
        self.assertNotIn("efficiency", report.text_table(of, "q"))


class Scheduling(unittest.TestCase):
    def test_worker_counts(self):
        for cores, scales, expected in ((1, True, [1, 2]), (2, True, [1, 2]), (8, None, [1, 2]), (4, True, [1, 2, 4]),
                                        (6, "per core", [1, 2, 4, 6]), (16, True, [1, 2, 4, 8, 16]),
                                        (200, True, [1, 2, 4, 8, 16, 32, 64])):
            self.assertEqual(schedule.worker_counts(cores, scales), expected)

    def test_what_takes_long_has_fewer_rounds(self):
        for about, mode, round_s, expected in (({}, "full", 0.1, 5), ({}, "full", 2.5, 3), ({}, "full", 100, 2),
                                               ({"rounds": 3}, "full", 0.1, 3), ({"rounds": 1}, "full", 100, 1),
                                               ({"quick": False}, "full", 100, 1), ({}, "quick", 0.1, 2),
                                               ({}, "quick", 100, 1), ({}, "quick", 0, 2)):
            self.assertEqual(schedule.rounds_that_fit(about, mode, round_s), expected, (about, mode, round_s))

    def test_times_are_known_the_next_time(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "new" / "turns.json"
            times = schedule.Times(path, "quick")
            self.assertEqual(times.expect("q", 1, "go"), schedule.UNKNOWN_S["quick"])
            times.note("q", 1, "go", 2.0)
            times.save()
            self.assertEqual(schedule.Times(path, "quick").expect_all("q", {}, 1, ["go"]), 4)
            self.assertEqual(schedule.Times(path, "full").expect("q", 1, "go"), 2 * schedule.FULL_PER_QUICK)
            path.write_text("{")
            self.assertEqual(schedule.Times(path, "quick").expect("q", 1, "go"), schedule.UNKNOWN_S["quick"])


class Showing(unittest.TestCase):
    def setUp(self):
        self.results = results(
            [line("q", "coir", 10, histogram=[[50, 3], [99.99, 40]]),
             line("q", "go", 20, histogram=[[50, 9], [100, 99]]),
             line("q", "coir", 10, 2), line("q", "go", 12, 2), line("q", "unheard_of", 40, 2)],
            [{"at_most": 5}, {"versus": "go", "at_least": 1.2}], scales=True)

    def test_notes_have_to_name_what_is_missed(self):
        for text, anchor in (("# Head\n\n## It is q: slow\n", "it-is-q-slow"), ("# Head\n| `q` | why |\n", "head"),
                             ("# Head\n`bench/run q p`\n\n    bench/run q\n\n```\nq\n```\nqq q_2 x_q\n", None)):
            notes = report.Notes(text)
            self.assertEqual(notes.anchor("q"), anchor, text)
            self.assertEqual(notes.unexplained(self.results), [] if anchor else ["q"])

    def test_page(self):
        text = page.markdown(self.results, {"ratios.svg": "x/ratios.svg"}, report.Notes("# Why q\n"), "NOTES.md")
        self.assertIn("| [q](#q) | 1 | 10.0 ns | go 2.00x, unheard_of 4.00x | at most 5 ns<br>at least 1.2x go | "
                      "**missed by 2.00x**, [why](NOTES.md#why-q)<br>met by 1.67x |", text)
        self.assertIn("(x/ratios.svg)", text)
        self.assertIn("| q | 2 | coir 50%, go 83% |", text)
        self.assertIn("\n### q\n", text)

    def test_comparison_tells_changes_from_noise(self):
        old = results([line("q", "coir", 20), line("q", "go", 20), line("q", "coir", 11, 2, max=13, min=9)])
        better, same, total = compare.text(self.results, old).splitlines()[1:]
        self.assertRegex(better, r"\+ +q +1 +20.0 +10.0 ns +2.00x +go 1.00x -> 2.00x")
        self.assertNotRegex(same, r"^ *[+-]")
        self.assertEqual(total, "+ 1 better, - 0 worse, 1 within the spread of the runs")

    @unittest.skipUnless(shutil.which("gnuplot"), "gnuplot is not installed")
    def test_pictures(self):
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            names = plots.write_all(self.results, Path(one))
            self.assertEqual(names, ["ratios.svg", "targets.svg", "scaling.svg", "latency.svg"])
            plots.write_all(self.results, Path(two))
            for name in names:
                text = (Path(one) / name).read_text()
                self.assertEqual(text, (Path(two) / name).read_text())
                self.assertIn("prefers-color-scheme: dark", text)
                self.assertNotIn("GNUPLOT", text)
                colours = {plots.MET[0], plots.MISSED[0]} if name == "targets.svg" else {plots.LOOKS["go"][0]}
                for colour in colours:
                    rgb = ", ".join(f"{int(colour[i:i + 2], 16):3}" for i in (1, 3, 5))
                    self.assertIn(f"rgb({rgb})", text)

    @unittest.skipUnless(shutil.which("gnuplot"), "gnuplot is not installed")
    def test_no_picture_of_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(plots.write_all(results([line("q", "coir", 1)]), Path(folder)), [])


class Questions(unittest.TestCase):
    def test_what_was_promised_is_asked(self):
        self.assertEqual([question for question in PROMISED if question not in QUESTIONS], [])

    def test_each_has_a_program(self):
        words = (BENCH / "CMakeLists.txt").read_text().replace("(", " ( ").replace(")", " ) ").split()
        own = {q for q, about in QUESTIONS.items() if "program" not in about and "connections" not in about}
        self.assertEqual(sorted(own - set(words)), [])

    def test_peers_answer_questions_that_are_asked(self):
        for name, manifest in MANIFESTS.items():
            self.assertEqual(sorted(manifest["questions"].keys() - QUESTIONS.keys()), [], name)
            self.assertTrue(manifest["package"], name)

    def test_targets_are_measured_against_somebody_who_answers(self):
        answers = {manifest["impl"]: manifest["questions"] for manifest in MANIFESTS.values()}
        for question, about in QUESTIONS.items():
            for target in about["targets"]:
                self.assertEqual(len(target.keys() & {"at_most", "at_least"}), 1, question)
                versus = target.get("versus", "one worker")
                known = versus == "one worker" or versus in about or question in answers.get(versus, ())
                self.assertTrue(known, f"{question}: {versus} does not answer it")


class WholeRun(unittest.TestCase):
    """bench/run itself, in a folder of its own, with scripts for programs and for CMake."""

    def setUp(self):
        self.root = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.bench, self.build, self.log = self.root / "bench", self.root / "build", self.root / "log"
        shutil.copytree(BENCH / "runner", self.bench / "runner")
        shutil.copy(BENCH / "run", self.bench)
        (self.bench / "NOTES.md").write_text("# Why\n")
        about = {"title": "a title", "targets": [{"at_most": 1}, {"versus": "good", "at_least": 2}]}
        served = {"title": "a title", "targets": [], "connections": 1}
        questions = {"q": about, "rare": about | {"quick": False}, "served": served}
        (self.bench / "targets.json").write_text(json.dumps(questions))
        self.script("bin/cmake", "")
        for name in ("build.ninja", "CMakeCache.txt"):
            (self.root / "build").mkdir(exist_ok=True)
            (self.build / name).write_text("CMAKE_BUILD_TYPE:STRING=Release\n")
        for question in ("q", "rare"):
            self.program(f"build/bench/b_{question}", question, "coir", 2)

    def script(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    def program(self, name, question, impl, value):
        text = json.dumps(line(question, impl, value)).replace('"workers": 1', '"workers": \'"$2"\'')
        return self.script(name, f"echo {impl} $2 >> {self.log}\necho '{text}'")

    def peer(self, impl, command, needs="sh"):
        folder = self.bench / "peers" / impl
        folder.mkdir(parents=True)
        about = {"impl": impl, "needs": [needs], "package": f"{impl}-package", "questions": {"q": [command]}}
        (folder / "peer.json").write_text(json.dumps(about))

    def run_it(self, *args, path=os.environ["PATH"]):
        env = os.environ | {"PATH": f"{self.root / 'bin'}:{path}"}
        command = [sys.executable, self.bench / "run", "--build", self.build, *args]
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=200)

    def test_all_take_turns_and_results_are_lines_of_json(self):
        self.peer("good", self.program("good", "q", "good", 6))
        out = self.root / "out.json"
        done = self.run_it("--rounds", "2", "--json", out, "q")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.log.read_text().split("\n")[:-1], ["coir 1", "good 1"] * 2 + ["coir 2", "good 2"] * 2)
        lines = [json.loads(text) for text in out.read_text().splitlines()]
        self.assertEqual([(each["impl"], each["workers"], each["runs"]) for each in lines],
                         [("coir", 1, 2), ("good", 1, 2), ("coir", 2, 2), ("good", 2, 2)])
        for each in lines:
            self.assertLessEqual({"question", "impl", "workers", "value", "unit", "better", "runs", "min", "median",
                                  "max", "machine"}, each.keys())
        self.assertRegex(done.stdout, r"good +6.00 +6.00 .. 6.00 +3.00x")
        self.assertIn("NOTES.md does not say why: q\n", done.stdout)
        self.assertEqual(done.stdout.splitlines()[-1], "2 targets met, 2 missed")
        self.assertRegex(done.stderr, r"\[1/1, 0:0\d of about 0:\d+\] q\n")

        again = self.run_it("--from", out, "--compare", out, "--results", self.root / "page.md")
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertIn("+ 0 better, - 0 worse, 2 within the spread of the runs", again.stdout)
        self.assertEqual(again.stdout.splitlines()[-1], "2 targets met, 2 missed")
        self.assertIn("**missed by 2.00x**", (self.root / "page.md").read_text())
        self.assertEqual((self.root / "ratios.svg").exists(), shutil.which("gnuplot") is not None)

    def test_workers_are_a_choice(self):
        self.assertEqual(self.run_it("--rounds", "1", "--workers", "4,1", "q").returncode, 0)
        self.assertEqual(self.log.read_text(), "coir 1\ncoir 4\n")
        self.assertEqual(self.run_it("--workers", "0", "q").returncode, 2)

    def test_rare_questions_are_not_asked_quickly_unless_they_are_named(self):
        self.assertNotIn("] rare\n", self.run_it("--quick", path="").stderr)
        self.assertIn("] rare\n", self.run_it("--quick", "rare").stderr)
        self.assertIn("] rare\n", self.run_it("--rounds", "1", path="").stderr)

    def test_a_failure_is_reported_and_is_the_exit_status(self):
        self.peer("bad", self.script("bad", "echo it is broken >&2; exit 3"))
        done = self.run_it("--rounds", "2", "q")
        self.assertEqual(done.returncode, 1)
        self.assertIn("exit status 3", done.stdout)
        self.assertIn("it is broken", done.stderr)
        self.assertEqual(done.stderr.count("it is broken"), 2)  # once for each worker count
        self.assertRegex(done.stdout, r"coir +2.00")

    def test_what_cannot_be_run_or_read_is_a_failure_of_its_own_only(self):
        self.peer("gone", str(self.root / "gone"))
        self.peer("babbling", self.script("babbling", "echo it is fine"))
        done = self.run_it("--rounds", "1", "--json", self.root / "out.json", "q")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout, r"failed:\n  q, babbling: JSON.*\n  q, gone: FileNotFound")
        self.assertEqual(len((self.root / "out.json").read_text().splitlines()), 2)

    def test_a_missing_peer_is_named_with_its_package(self):
        self.peer("absent", "absent", needs="there-is-no-such-command")
        done = self.run_it("--rounds", "1", "q")
        self.assertEqual(done.returncode, 0, done.stderr)
        sentence = "absent is not installed: apt-get install absent-package (q)"
        self.assertIn(sentence, done.stderr)
        self.assertIn(sentence, done.stdout)
        self.assertIn("2 targets not measured\n0 targets met, 2 missed\n", done.stdout)
        self.assertRegex(self.run_it("--list").stdout, r"absent +missing: apt-get install absent-package\n")

    def test_without_its_load_no_server_is_measured(self):
        done = self.run_it("--rounds", "1", "served", path="")
        self.assertIn("wrk is not installed: apt-get install wrk (served)", done.stderr)
        self.assertEqual((done.returncode, done.stdout.splitlines()[-1]), (0, "0 targets met, 0 missed"))

    def test_an_unknown_question_is_refused(self):
        done = self.run_it("p")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no such question: p (there are q, rare, served)", done.stderr)


if __name__ == "__main__":
    unittest.main()
