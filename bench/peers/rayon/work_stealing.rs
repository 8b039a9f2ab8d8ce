// work_stealing: jobs of which each tenth is a hundred times longer than the others; as b_work_stealing.c.
mod bench;
use bench::*;
use std::hint::black_box;
use std::time::Instant;

fn fib(n: u64) -> u64 {
    let (mut a, mut b) = (0u64, 1u64);
    for _ in 0..n {
        (a, b) = (b, a.wrapping_add(b));
    }
    a
}

fn job(i: usize) -> u64 {
    fib(black_box(if i % 10 == 0 { 1000 } else { 10 }))
}

fn measure(b: &Bench, jobs: usize) -> f64 {
    let mut results = vec![0u64; jobs];
    let times = b.times(500_000, jobs);
    let start = Instant::now();
    for _ in 0..times {
        b.pool.scope(|s| {
            for (i, result) in results.iter_mut().enumerate() {
                s.spawn(move |_| *result = job(i));
            }
        });
    }
    let value = each(start, times * jobs);
    let sum = |numbers: &mut dyn Iterator<Item = u64>| numbers.fold(0, u64::wrapping_add);
    check("sum", sum(&mut results.into_iter()), sum(&mut (0..jobs).map(job)));
    value
}

fn main() {
    let metrics = vec![Metric("", "ns"), Metric("10k", "ns"), Metric("1k", "ns")];
    bench::main("work_stealing", metrics, std::env::args().collect(), |b| {
        [100_000, 10_000, 1_000].map(|jobs| measure(b, jobs)).to_vec()
    });
}
