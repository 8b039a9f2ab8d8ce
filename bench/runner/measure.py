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
import time
import urllib.request

from .impls import Failure

TIMEOUT_S = 300
START_S = 10
WARM_UP_S = 1


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


# ---- HTTP ----


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def server(impl, question, workers):
    """A running server: yields its URL and its command."""
    with tempfile.TemporaryDirectory(prefix="coir-bench-") as folder:
        values = {"DIR": folder, "PORT": free_port(), "WORKERS": workers}
        impl.write_files(values)
        command = impl.command(question, **values)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            await_port(process, command, values["PORT"])
            yield f"http://127.0.0.1:{values['PORT']}/", show(impl, command, folder)
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


def wrk(url, connections, seconds):
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return parse_wrk(done.stdout)


def parse_wrk(text):
    """Returns requests per second and the latency's 99th percentile in microseconds."""
    rate = re.search(r"^Requests/sec:\s*([\d.]+)", text, re.M)
    p99 = re.search(r"^\s*99%\s+([\d.]+)(us|ms|s|m)\s*$", text, re.M)
    errors = re.search(r"^\s*(Socket errors:.*[1-9].*|Non-2xx.*)$", text, re.M)
    if errors or not rate or not p99:
        raise Failure(f"wrk: {errors.group(1).strip() if errors else text}")
    return float(rate.group(1)), float(p99.group(1)) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7}[p99.group(2)]


def run_server(impl, question, workers, connections, quick):
    seconds = 2 if quick else 5
    with server(impl, question, workers) as (url, shown):
        body = urllib.request.urlopen(url, timeout=START_S).read()
        if body != b"Hello, World!":
            raise Failure(f"{shown}: answers {body[:80]!r}")
        wrk(url, connections, WARM_UP_S)
        rate, p99 = wrk(url, connections, seconds)
    shown += f"; wrk -t1 -c{connections} -d{seconds}s --latency URL"
    common = {"question": question, "impl": impl.impl, "workers": workers, "runs": 1, "machine": machine(),
              "command": shown} | ({"quick": True} if quick else {})
    return [common | figure(rate, "req/s", "higher"), common | {"metric": "p99"} | figure(p99, "us", "lower")]


def figure(value, unit, better):
    return {"value": value, "unit": unit, "better": better, "min": value, "median": value, "max": value}
