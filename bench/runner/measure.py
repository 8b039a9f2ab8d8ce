"""One measurement of one implementation: run its program, or start its server and put load on it. Either way the
outcome is a list of lines (dicts) in the form that bench.h gives."""
import contextlib
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request

from .impls import BENCH, Failure

TIMEOUT_S = 300
START_S = 10
WARM_UP_S = 1  # of wrk, which knows whole seconds only
HTTP_S = {"quick": 1, "full": 4}
ECHO_MS = {"quick": {"warm": 200, "closed": 600, "paced": 400}, "full": {"warm": 500, "closed": 2000, "paced": 1500}}
SPIN_MS = 1000  # for so long a server computes that was told to
BLOCKERS = 8  # requests; as many as the echo servers are told to have fibers that block
PERCENTILES = ("p50", "p99", "p99.9", "p99.99")


def machine():
    cpu = platform.machine()
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    return {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release()}


def output_of(command, env=None):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=os.environ | (env or {}))
    except subprocess.TimeoutExpired as error:
        raise Failure(f"{' '.join(command)}: not done after {TIMEOUT_S} s") from error
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr.strip()}")
    return done.stdout


def run_program(impl, question, workers, runs, quick):
    command = impl.command(question) + ["--workers", str(workers), "--runs", str(runs)] + ["--quick"] * quick
    return [json.loads(line) | {"command": show(impl, command)} for line in output_of(command).splitlines()]


def run_for_figure(impl, question, workers, about, runs, quick):
    """The same for a program of go_fiber's, which knows nothing of this runner."""
    wanted, env = about["figure"], {"GOF_NWORKERS": str(workers)}
    command = impl.command(question, COUNT=about["count"] // (5 if quick else 1))
    values = []
    for _ in range(runs):
        found = re.search(wanted["pattern"], output := output_of(command, env))
        if not found:
            raise Failure(f"{' '.join(command)}: no figure in: {output.strip()}")
        values.append(float(found.group(1)))
    middle = statistics.median(values)
    shown = " ".join(f"{name}={value}" for name, value in env.items()) + " " + show(impl, command)
    return [{"question": question, "impl": impl.impl, "workers": workers, "value": middle, "unit": wanted["unit"],
             "better": wanted["better"], "runs": runs, "min": min(values), "median": middle, "max": max(values),
             "machine": machine(), "command": shown} | ({"quick": True} if quick else {})]


def show(impl, command, folder="@DIR@"):
    """The command for a reader: without the folders of this run."""
    return " ".join(command).replace(f"{impl.build_dir}/", "").replace(folder, "DIR")


# ---- Servers ----


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def server(impl, question, workers):
    """A running server: yields what was filled into its command, and the command for a reader."""
    with tempfile.TemporaryDirectory(prefix="coir-bench-") as folder:
        port, spin_port = free_ports(2)
        values = {"DIR": folder, "PORT": port, "SPIN_PORT": spin_port, "WORKERS": workers}
        impl.write_files(values)
        command = impl.command(question, **values)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            await_port(process, command, port)
            shown = impl.command(question, **values | {"PORT": "PORT", "SPIN_PORT": "SPIN_PORT"})
            yield values, show(impl, shown, folder)
        finally:
            process.terminate()
            try:
                process.communicate(timeout=START_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def await_port(process, command, port):
    for _ in range(START_S * 50):
        if process.poll() is not None:
            raise Failure(f"{' '.join(command)}: exit status {process.returncode}\n{process.stderr.read().strip()}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise Failure(f"{' '.join(command)}: does not listen on port {port} after {START_S} s")


def run_server(impl, question, workers, about, quick):
    """The lines of a server under load. `about` says which: "load", "connections", and "beside", "paced", "spin"."""
    load = load_echo if about.get("load") == "echo" else load_http
    with server(impl, question, workers) as (values, shown):
        figures, command = load(impl, about, values, "quick" if quick else "full")
    common = {"question": question, "impl": impl.impl, "workers": workers, "runs": 1, "machine": machine(),
              "command": f"{shown}; {command}"} | ({"quick": True} if quick else {})
    return [common | each for each in figures]


def figure(value, unit, better, metric=None):
    named = {"metric": metric} if metric else {}
    return named | {"value": value, "unit": unit, "better": better, "min": value, "median": value, "max": value}


def times(phase, name=""):
    return [figure(phase[percentile], "us", "lower", f"{name}{percentile}") for percentile in PERCENTILES]


def load_of(command, timeout_s):
    """Runs a load and returns what it measured: its last line is JSON."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise Failure(f"{' '.join(command)}: not done after {timeout_s} s") from error
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


# ---- Echo ----


def load_echo(impl, about, values, mode):
    """Returns the figures and the load's command for a reader."""
    ms = ECHO_MS[mode]
    options = ["--connections", about["connections"], "--warm-ms", ms["warm"]]
    if "spin" in about:
        options += ["--rate", about["rate"], "--paced-ms", SPIN_MS]
    else:
        options += ["--ms", ms["closed"]]
        if "rate" in about:
            options += ["--rate", about["rate"], "--paced-ms", ms["paced"]]

    def command(port, spin_port):
        ports = ["--port", port] + ["--spin-port", spin_port] * ("spin" in about)
        return list(map(str, [impl.build_dir / "bench" / "echo_load", *ports, *options]))

    phases = load_of(command(values["PORT"], values["SPIN_PORT"]), 60)
    shown = show(impl, command("PORT", "SPIN_PORT"))
    return (spin_figures if "spin" in about else echo_figures)(phases, about), shown


def echo_figures(phases, about):
    """A server that has a reason may answer nothing; then there is a rate, 0, and no times."""
    closed = phases["closed"]
    lost = sum(phase["unanswered"] for phase in phases.values() if isinstance(phase, dict))
    if "beside" not in about and (lost or phases["connections"] < about["connections"]):
        raise Failure(f"{phases['connections']} connections; {lost} messages were not answered")
    rate = figure(closed["rate"], "msg/s", "higher")
    if not closed["messages"]:
        return [rate]
    return [rate | {"histogram": closed["histogram"]}, *times(closed),
            *(times(phases["paced"], "paced ") if "paced" in phases else [])]


def spin_figures(phases, about):
    """How the 99th percentile changes by one that spins in the server, beyond what any process would do to it."""
    p99 = {name: phases[name]["p99"] for name in ("calm", "other", "spin")}
    return [figure(p99["spin"], "us", "lower") | {"histogram": phases["spin"]["histogram"]},
            figure(p99["calm"], "us", "lower", "calm"), figure(p99["other"], "us", "lower", "other"),
            figure(p99["spin"] / p99["other"], "x", "lower", "change")]


# ---- HTTP ----


def wrk(url, connections, seconds):
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s",
               str(BENCH / "wrk_percentiles.lua"), url]
    measured = load_of(command, seconds + 60)
    if measured["errors"] or not measured["rate"]:
        raise Failure(f"{' '.join(command)}: {measured['errors']} errors, {measured['rate']} answers per second")
    return measured


class Nuisance(threading.Thread):
    """Has the server do something that takes a second, again and again."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url, self.is_over, self.error = url, threading.Event(), None
        self.start()

    def run(self):
        try:
            while not self.is_over.is_set():
                urllib.request.urlopen(self.url, timeout=60).read()
        except OSError as error:
            self.error = error


@contextlib.contextmanager
def kept_busy(url, beside, workers):
    """Requests beside the load: as many that compute as there are workers, or some that block their threads."""
    path, count = {"hog": ("spin", workers), "block": ("block", BLOCKERS), None: ("", 0)}[beside]
    threads = [Nuisance(f"{url}{path}?ms={SPIN_MS}") for _ in range(count)]
    try:
        yield
    finally:
        for thread in threads:
            thread.is_over.set()
        for thread in threads:
            thread.join()
    errors = [thread.error for thread in threads if thread.error]
    if errors:
        raise Failure(f"{errors[0]} from {url}{path}")


def load_http(impl, about, values, mode):
    """Returns the figures and the load's command for a reader."""
    url, connections = f"http://127.0.0.1:{values['PORT']}/", about["connections"]
    seconds = HTTP_S["full" if connections > 1000 else mode]  # wrk takes a part of a second to connect so many
    body = urllib.request.urlopen(url, timeout=START_S).read()
    if body != b"Hello, World!":
        raise Failure(f"{impl.impl}: answers {body[:80]!r}")
    beside = about.get("beside")
    with kept_busy(url, beside, values["WORKERS"]):
        wrk(url, connections, WARM_UP_S)
        measured = wrk(url, connections, seconds)
    rate = figure(measured["rate"], "req/s", "higher") | {"histogram": measured["histogram"]}
    shown = f"wrk -t1 -c{connections} -d{seconds}s -s bench/wrk_percentiles.lua http://127.0.0.1:PORT/"
    return [rate, *times(measured)], shown
