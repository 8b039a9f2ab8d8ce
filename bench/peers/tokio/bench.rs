// The frame of the Tokio programs: the same arguments, statistics and JSON lines as bench/bench.h.
//
// With several workers they run on Tokio's multi-thread runtime with as many threads. With one worker they run on its
// current-thread runtime: that is what Tokio has for one thread, and nearly always the faster of the two.
#![allow(dead_code)] // no program uses all of it
use std::cell::RefCell;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::{Builder, Runtime};

pub struct Bench {
    pub workers: usize,
    pub times: RefCell<Vec<f64>>, // us; those that the main figure is made of, of all runs: for its histogram
    quick: bool,
    runtime: Runtime,
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
pub fn check(what: &str, got: usize, want: usize) {
    if got != want {
        die(format!("{what}: {got}, not {want}"));
    }
}

/// Wall time of each of `n` operations since `start`, in nanoseconds.
pub fn each(start: Instant, n: usize) -> f64 {
    start.elapsed().as_nanos() as f64 / n as f64
}

impl Bench {
    pub fn count(&self, full: usize) -> usize {
        if self.quick {
            full / 5
        } else {
            full
        }
    }

    /// Runs a task on the workers and waits for it.
    pub fn run<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.block_on(self.runtime.spawn(task)).unwrap()
    }
}

/// A gate that opens for all who wait at it, at once, when all of them have come.
pub struct Gate {
    missing: AtomicUsize,
    is_open: AtomicUsize,
}

impl Gate {
    pub fn new(count: usize) -> Arc<Gate> {
        Arc::new(Gate { missing: AtomicUsize::new(count), is_open: AtomicUsize::new(0) })
    }

    pub async fn pass(&self) {
        self.missing.fetch_sub(1, SeqCst);
        while self.is_open.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until all have come, and opens it; returns when that was.
    pub async fn open(&self) -> Instant {
        while self.missing.load(SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
        let start = Instant::now();
        self.is_open.store(1, SeqCst);
        start
    }
}

pub fn runtime(workers: usize) -> Runtime {
    if workers == 1 {
        Builder::new_current_thread().build().unwrap()
    } else {
        Builder::new_multi_thread().worker_threads(workers).build().unwrap()
    }
}

/// Takes the value of `--name` out of the arguments.
pub fn option(args: &mut Vec<String>, name: &str) -> Option<usize> {
    let i = args.iter().position(|arg| arg == name)?;
    let value = args.get(i + 1).and_then(|text| text.parse().ok());
    let value = value.unwrap_or_else(|| die(format!("{name}: a number is needed")));
    args.drain(i..i + 2);
    Some(value)
}

/// Measures `question`; `run` measures once and gives one figure per metric, NaN where there is none.
pub fn main(question: &str, metrics: Vec<Metric>, mut args: Vec<String>, run: impl Fn(&Bench) -> Vec<f64>) {
    let counts = option(&mut args, "--workers").map_or(vec![1, 2], |n| vec![n]);
    let runs = option(&mut args, "--runs").unwrap_or(5);
    let quick = args.iter().any(|arg| arg == "--quick");
    for workers in counts {
        let b = Bench { workers, times: RefCell::new(Vec::new()), quick, runtime: runtime(workers) };
        run(&b); // warm-up
        b.times.borrow_mut().clear();
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
    let histogram = if metric.0.is_empty() { histogram(&mut b.times.borrow_mut()) } else { String::new() };
    let quick = if b.quick { "\"quick\":true," } else { "" };
    println!(
        "{{\"question\":\"{question}\",{name}\"impl\":\"tokio\",\"workers\":{},\"value\":{median},\"unit\":\"{}\",\
         \"better\":\"lower\",\"runs\":{n},\"min\":{},\"median\":{median},\"max\":{},{quick}{histogram}\
         \"machine\":{}}}",
        b.workers,
        metric.1,
        values[0],
        values[n - 1],
        machine()
    );
}

/// Of values that are in order.
pub fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted[rank.max(1) - 1]
}

/// Up to the last percentile that so few values can tell from their maximum.
fn histogram(times: &mut [f64]) -> String {
    times.sort_by(|a, b| a.total_cmp(b));
    let told = |percent: &f64| (100.0 - percent) / 100.0 * times.len() as f64 >= 1.0;
    let percents = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99].into_iter().filter(told);
    let points: Vec<_> = percents.map(|percent| format!("[{percent},{}]", percentile(times, percent))).collect();
    if points.is_empty() {
        String::new()
    } else {
        format!("\"histogram\":[{}],", points.join(","))
    }
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    let cpu = model.map_or(std::env::consts::ARCH, |(_, name)| name);
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{{\"cpu\":\"{cpu}\",\"cores\":{cores},\"kernel\":\"{}\"}}", kernel.trim())
}
