#!/usr/bin/env python3
"""file_randread by fio: what bench/b_file_randread.c measures, with io_uring and 16 reads in flight, by as many threads
as there are workers. fio does not look at what it has read. Prints the same JSON lines as the C programs."""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile

BLOCK, FILE_BYTES = 4096, 256 << 20
IN_FLIGHT = 16
READS = {"": 64000, "cached": 640000}  # by figure; the main one is with O_DIRECT
NO_DIRECT = "file system does not support direct=1"


def measure(path, workers, metric, reads):
    """Returns the time per read in ns; None where the file system does not know O_DIRECT."""
    command = ["fio", "--name=file_randread", f"--filename={path}", f"--filesize={FILE_BYTES}", f"--bs={BLOCK}",
               "--rw=randread", "--norandommap", "--randrepeat=0", f"--io_size={reads // workers * BLOCK}",
               "--ioengine=io_uring", f"--iodepth={IN_FLIGHT // workers}", f"--numjobs={workers}", "--thread",
               "--group_reporting", f"--direct={0 if metric else 1}", "--invalidate=0", "--output-format=json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if metric == "" and NO_DIRECT in done.stdout + done.stderr:
        return None
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr}")
    report = json.loads(done.stdout[done.stdout.index("{"):])
    return 1e9 / report["jobs"][0]["read"]["iops"]


def machine():
    cpu = platform.machine()
    with open("/proc/cpuinfo") as lines:
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    return {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release()}


def report(args, workers, path):
    for metric, full in READS.items():
        reads = full // 5 if args.quick else full
        values = [measure(path, workers, metric, reads) for _ in range(args.runs + 1)][1:]  # the first warms up
        if None in values:
            continue
        line = {"question": "file_randread"} | ({"metric": metric} if metric else {})
        line |= {"impl": "fio", "workers": workers, "value": statistics.median(values), "unit": "ns",
                 "better": "lower", "runs": args.runs, "min": min(values), "median": statistics.median(values),
                 "max": max(values)} | ({"quick": True} if args.quick else {}) | {"machine": machine()}
        print(json.dumps(line), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    folder = os.environ.get("TMPDIR") or "/var/tmp"
    with tempfile.NamedTemporaryFile(prefix="coir-bench-", dir=folder) as file:
        for number in range(FILE_BYTES // BLOCK):
            file.write(number.to_bytes(8, "little") * (BLOCK // 8))
        file.flush()
        os.fsync(file.fileno())
        for workers in [args.workers] if args.workers else [1, 2]:
            report(args, workers, file.name)


if __name__ == "__main__":
    main()
