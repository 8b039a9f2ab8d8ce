// job_ep: a sine and a cosine for each element, "embarrassingly parallel"; as b_job_ep.c.
mod bench;
use bench::*;
use rayon::prelude::*;
use std::time::Instant;

fn body(i: usize) -> u64 {
    let (x, y) = ((i as f64 * 1e-4).sin(), (i as f64 * 1e-4).cos());
    (x * x + y * y).to_bits()
}

fn measure(b: &Bench, n: usize) -> f64 {
    let times = b.times(3_000_000, n);
    let want = (0..n).map(body).fold(0, u64::wrapping_add);
    let start = Instant::now();
    for _ in 0..times {
        let sum = b.pool.install(|| (0..n).into_par_iter().map(body).reduce(|| 0, u64::wrapping_add));
        check("sum", sum, want);
    }
    each(start, times * n)
}

fn main() {
    let metrics = vec![Metric("", "ns"), Metric("100k", "ns"), Metric("10k", "ns")];
    bench::main("job_ep", metrics, std::env::args().collect(), |b| {
        [1_000_000, 100_000, 10_000].map(|n| measure(b, n)).to_vec()
    });
}
