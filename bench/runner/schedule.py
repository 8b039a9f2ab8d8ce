"""Which worker counts a question is asked with, in how many rounds, and how long all of it will take.

All rounds of a question with one worker count share a budget of time: as many rounds are made as fit, but not fewer
than keep the comparison honest. What the turns of a run took is kept in the build folder, so that the next run can say
beforehand how long it will take.
"""
import json

WORKERS_MAX = 64  # Coir's own limit
RUNS = 1  # of a program in its turn, unless targets.json says otherwise; as everything drifts, rounds say more
ROUNDS = 5  # likewise
QUICK_ROUNDS = 2
LEAST = {"full": 2, "quick": 1}  # rounds, however long they take
BUDGET_S = {"full": 8, "quick": 5}  # for all rounds of a question with one worker count
UNKNOWN_S = {"full": 4, "quick": 1}  # a turn that nobody has timed yet
FULL_PER_QUICK = 5  # bench_count() of bench.h


def worker_counts(cores, scales):
    """1 and 2; for a question whose work can be shared by many also 4, 8, ... and all CPUs of a larger machine."""
    counts = {1, 2}
    cores = min(cores, WORKERS_MAX)
    if scales and cores > 2:
        counts |= {2 ** power for power in range(2, cores.bit_length()) if 2 ** power < cores} | {cores}
    return sorted(counts)


def rounds_wanted(about, mode):
    wanted = about.get("rounds", ROUNDS)
    return min(wanted, QUICK_ROUNDS) if mode == "quick" else wanted


def rounds_that_fit(about, mode, round_s):
    """How many rounds to make when one takes so long; a single one of what is rare and would take for long."""
    wanted = rounds_wanted(about, mode)
    least = LEAST[mode] if about.get("quick", True) else 1
    fitting = int(BUDGET_S[mode] / round_s) if round_s > 0 else wanted
    return min(wanted, max(fitting, least))


def clock(seconds):
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def text(seconds):
    return f"{clock(seconds)} (minutes:seconds)"


class Times:
    """What turns take, as far as it is known from earlier runs; the last figure counts."""

    def __init__(self, path, mode):
        self.path, self.mode = path, mode
        try:
            self.known = json.loads(path.read_text())
        except (OSError, ValueError):  # a first run, or one that was ended while it wrote
            self.known = {}

    @staticmethod
    def key(question, workers, impl):
        return f"{question} {workers} {impl}"

    def note(self, question, workers, impl, seconds):
        self.known.setdefault(self.mode, {})[self.key(question, workers, impl)] = round(seconds, 2)

    def expect(self, question, workers, impl):
        key = self.key(question, workers, impl)
        quick_s = self.known.get("quick", {}).get(key, UNKNOWN_S["full"] / FULL_PER_QUICK)
        otherwise = UNKNOWN_S["quick"] if self.mode == "quick" else quick_s * FULL_PER_QUICK
        return self.known.get(self.mode, {}).get(key, otherwise)

    def expect_all(self, question, about, workers, impls, rounds=None):
        """All rounds of a question with one worker count."""
        round_s = sum(self.expect(question, workers, impl) for impl in impls)
        return round_s * (rounds or rounds_that_fit(about, self.mode, round_s))

    def save(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.known, indent=0, sort_keys=True) + "\n")
