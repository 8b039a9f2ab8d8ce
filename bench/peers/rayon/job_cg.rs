// job_cg: for each element the sum of five, added to one number that all share; as b_job_cg.c.
mod bench;
use bench::*;
use rayon::prelude::*;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Instant;

fn body(v: &[f64], i: usize) -> i64 {
    v[i..(i + 5).min(v.len())].iter().sum::<f64>() as i64
}

fn measure(b: &Bench, n: usize) -> f64 {
    let v = vec![1.0; n];
    let times = b.times(5_000_000, n);
    let want: i64 = (0..n).map(|i| body(&v, i)).sum();
    let start = Instant::now();
    for _ in 0..times {
        let total = AtomicI64::new(0);
        b.pool.install(|| {
            (0..n).into_par_iter().for_each(|i| {
                total.fetch_add(body(&v, i), Relaxed);
            })
        });
        check("total", total.into_inner(), want);
    }
    each(start, times * n)
}

fn main() {
    let metrics = vec![Metric("", "ns"), Metric("10k", "ns"), Metric("1k", "ns")];
    bench::main("job_cg", metrics, std::env::args().collect(), |b| {
        [100_000, 10_000, 1_000].map(|n| measure(b, n)).to_vec()
    });
}
