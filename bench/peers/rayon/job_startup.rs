// job_startup: make a pool, run a job, end the pool; as b_job_startup.c. Dropping a pool does not wait for its threads,
// so they say when they end.
mod bench;
use bench::*;
use rayon::ThreadPoolBuilder;
use std::sync::atomic::{AtomicUsize, Ordering::Acquire, Ordering::Release};
use std::sync::Arc;
use std::time::Instant;

fn once(workers: usize) {
    let left = Arc::new(AtomicUsize::new(workers));
    let counted = left.clone();
    let builder = ThreadPoolBuilder::new().num_threads(workers).exit_handler(move |_| {
        counted.fetch_sub(1, Release);
    });
    let pool = builder.build().unwrap();
    check("job", pool.install(|| 42), 42);
    drop(pool);
    while left.load(Acquire) > 0 {
        std::thread::yield_now();
    }
}

fn main() {
    bench::main("job_startup", vec![Metric("", "ms")], std::env::args().collect(), |b| {
        let times = b.count(200);
        let start = Instant::now();
        for _ in 0..times {
            once(b.workers);
        }
        vec![each(start, times) / 1e6]
    });
}
