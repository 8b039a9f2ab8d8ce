// job_latency: how soon jobs begin, alone after a pause, and in batches from one job; as b_job_latency.c.
mod bench;
use bench::*;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(2);

#[repr(align(64))]
#[derive(Default)]
struct Shard {
    sum: AtomicU64,
    count: AtomicU64,
}

fn cold(b: &Bench) -> Vec<f64> {
    let mut us: Vec<f64> = (0..b.count(200))
        .map(|_| {
            let (sender, receiver) = channel();
            std::thread::sleep(PAUSE);
            let start = Instant::now();
            b.pool.spawn(move || sender.send(start.elapsed()).unwrap());
            receiver.recv().unwrap().as_nanos() as f64 / 1e3
        })
        .collect();
    vec![quantile(&mut us, 0.5), quantile(&mut us, 0.99)]
}

fn once(b: &Bench, shards: &[Shard], jobs: usize) {
    b.pool.scope(|s| {
        let start = Instant::now();
        for _ in 0..jobs {
            s.spawn(move |_| {
                let latency = start.elapsed().as_nanos() as u64;
                let shard = &shards[latency as usize % shards.len()];
                shard.sum.fetch_add(latency, Relaxed);
                shard.count.fetch_add(1, Relaxed);
            });
        }
    });
}

/// Wall time for each job, in ns, and how long after the start of their batch they began on average, in us.
fn batches(b: &Bench, jobs: usize) -> (f64, f64) {
    let times = b.times(1_000_000, jobs).min(1000);
    let shards: Vec<Shard> = (0..b.workers).map(|_| Shard::default()).collect();
    let start = Instant::now();
    for _ in 0..times {
        once(b, &shards, jobs);
    }
    let value = each(start, times * jobs);
    let total = |field: fn(&Shard) -> &AtomicU64| shards.iter().map(|shard| field(shard).load(Relaxed)).sum::<u64>();
    check("jobs", total(|shard| &shard.count), (times * jobs) as u64);
    (value, total(|shard| &shard.sum) as f64 / (times * jobs) as f64 / 1e3)
}

fn main() {
    let mut metrics = vec![Metric("", "us"), Metric("p99", "us")];
    metrics.extend(["batch 100", "batch 1k", "batch 10k", "batch 100k", "batch 1m"].map(|name| Metric(name, "ns")));
    metrics.push(Metric("mean 100k", "us"));
    bench::main("job_latency", metrics, std::env::args().collect(), |b| {
        let mut values = cold(b);
        let measured = [100, 1_000, 10_000, 100_000, 1_000_000].map(|jobs| batches(b, jobs));
        values.extend(measured.iter().map(|(each, _)| each));
        values.push(measured[3].1);
        values
    });
}
