// job_mg: each element with its two neighbours, over memory that does not fit into caches; as b_job_mg.c.
mod bench;
use bench::*;
use rayon::prelude::*;
use std::time::Instant;

fn body(v: &[f64], i: usize) -> u64 {
    let left = if i > 0 { v[i - 1] } else { 0.0 };
    let right = if i + 1 < v.len() { v[i + 1] } else { 0.0 };
    (v[i] + left + right).to_bits()
}

fn measure(b: &Bench, v: &[f64]) -> f64 {
    let times = b.times(80_000_000, v.len());
    let want = (0..v.len()).map(|i| body(v, i)).fold(0, u64::wrapping_add);
    let start = Instant::now();
    for _ in 0..times {
        let sum = b.pool.install(|| (0..v.len()).into_par_iter().map(|i| body(v, i)).reduce(|| 0, u64::wrapping_add));
        check("sum", sum, want);
    }
    each(start, times * v.len())
}

fn main() {
    let v: Vec<f64> = (0..256 * 256 * 256).map(|i| (i % 7) as f64).collect();
    let metrics = vec![Metric("", "ns"), Metric("128", "ns"), Metric("64", "ns")];
    bench::main("job_mg", metrics, std::env::args().collect(), |b| {
        [256, 128, 64usize].map(|side| measure(b, &v[..side.pow(3)])).to_vec()
    });
}
