// The frame of the Rayon programs: the same arguments, statistics and JSON lines as bench/bench.h.
//
// Each worker count has a pool of as many threads, as Rayon's users make one; the thread that measures is none of them.
#![allow(dead_code)] // no program uses all of it
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::time::Instant;

pub struct Bench {
    pub workers: usize,
    pub quick: bool,
    pub pool: ThreadPool,
}

pub struct Metric(pub &'static str, pub &'static str); // name, unit; lower is better in all of them

pub fn nanoseconds() -> Vec<Metric> {
    vec![Metric("", "ns")]
}

pub fn die(message: String) -> ! {
    eprintln!("{message}");
    std::process::exit(1)
}

/// Ends the program when what it computed is wrong.
pub fn check<T: PartialEq + std::fmt::Display>(what: &str, got: T, want: T) {
    if got != want {
        die(format!("{what}: {got}, not {want}"));
    }
}

/// Wall time of each of `n` operations since `start`, in nanoseconds.
pub fn each(start: Instant, n: usize) -> f64 {
    start.elapsed().as_nanos() as f64 / n as f64
}

/// `values`, sorted, at `part` of their number.
pub fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(|a, b| a.total_cmp(b));
    values[((values.len() as f64 * part) as usize).min(values.len() - 1)]
}

pub fn pool(workers: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(workers).build().unwrap()
}

impl Bench {
    pub fn count(&self, full: usize) -> usize {
        if self.quick {
            full / 5
        } else {
            full
        }
    }

    /// How often to do what has `size` parts, for `full` parts in all, or a fifth of them with --quick.
    pub fn times(&self, full: usize, size: usize) -> usize {
        (self.count(full) / size).max(1)
    }
}

/// Takes the value of `--name` out of the arguments.
pub fn option(args: &mut Vec<String>, name: &str) -> Option<String> {
    let i = args.iter().position(|arg| arg == name)?;
    let value = args.get(i + 1).cloned().unwrap_or_else(|| die(format!("{name}: a value is needed")));
    args.drain(i..i + 2);
    Some(value)
}

fn number(args: &mut Vec<String>, name: &str) -> Option<usize> {
    option(args, name).map(|text| text.parse().unwrap_or_else(|_| die(format!("{name}: a number is needed"))))
}

/// Measures `question`; `run` measures once and gives one figure per metric, NaN where there is none.
pub fn main(question: &str, metrics: Vec<Metric>, mut args: Vec<String>, mut run: impl FnMut(&Bench) -> Vec<f64>) {
    let counts = number(&mut args, "--workers").map_or(vec![1, 2], |n| vec![n]);
    let runs = number(&mut args, "--runs").unwrap_or(5);
    let quick = args.iter().any(|arg| arg == "--quick");
    for workers in counts {
        let b = Bench { workers, quick, pool: pool(workers) };
        run(&b); // warm-up
        let samples: Vec<Vec<f64>> = (0..runs).map(|_| run(&b)).collect();
        for (i, metric) in metrics.iter().enumerate() {
            report(&b, question, metric, samples.iter().map(|values| values[i]).collect());
        }
    }
}

fn report(b: &Bench, question: &str, metric: &Metric, mut values: Vec<f64>) {
    if values[0].is_nan() {
        return;
    }
    values.sort_by(|a, b| a.total_cmp(b));
    let n = values.len();
    let median = (values[(n - 1) / 2] + values[n / 2]) / 2.0;
    let name = if metric.0.is_empty() { String::new() } else { format!("\"metric\":\"{}\",", metric.0) };
    let quick = if b.quick { "\"quick\":true," } else { "" };
    println!(
        "{{\"question\":\"{question}\",{name}\"impl\":\"rayon\",\"workers\":{},\"value\":{median},\"unit\":\"{}\",\
         \"better\":\"lower\",\"runs\":{n},\"min\":{},\"median\":{median},\"max\":{},{quick}\"machine\":{}}}",
        b.workers,
        metric.1,
        values[0],
        values[n - 1],
        machine()
    );
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    let cpu = model.map_or(std::env::consts::ARCH, |(_, name)| name);
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{{\"cpu\":\"{cpu}\",\"cores\":{cores},\"kernel\":\"{}\"}}", kernel.trim())
}
