// parallel_sort: 10^7 random doubles; as b_parallel_sort.c.
mod bench;
use bench::*;
use rayon::prelude::*;
use std::time::Instant;

const COUNT: usize = 10_000_000;

fn input() -> Vec<f64> {
    let mut state = 1u64;
    let next = || {
        state = state.wrapping_add(0x9e3779b97f4a7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d049bb133111eb);
        ((z ^ (z >> 31)) >> 11) as f64 / 9007199254740992.0
    };
    std::iter::repeat_with(next).take(COUNT).collect()
}

fn sum_of(numbers: &[f64]) -> u64 {
    let term = |x: &f64| x.to_bits().wrapping_mul(x.to_bits() >> 7 | 1);
    numbers.iter().map(term).fold(0, u64::wrapping_add)
}

fn measure(b: &Bench, input: &[f64], sort: impl Fn(&mut [f64]) + Sync) -> f64 {
    let mut numbers = input.to_vec();
    let start = Instant::now();
    b.pool.install(|| sort(&mut numbers));
    let ms = start.elapsed().as_secs_f64() * 1e3;
    check("order", numbers.windows(2).all(|w| w[0] <= w[1]) as u64, 1);
    check("sum", sum_of(&numbers), sum_of(input));
    ms
}

fn main() {
    let metrics = vec![Metric("", "ms"), Metric("total", "ms"), Metric("stable", "ms")];
    let numbers = input();
    bench::main("parallel_sort", metrics, std::env::args().collect(), |b| {
        vec![
            measure(b, &numbers, |x| x.par_sort_unstable_by(|a, b| a.partial_cmp(b).unwrap())),
            measure(b, &numbers, |x| x.par_sort_unstable_by(f64::total_cmp)),
            measure(b, &numbers, |x| x.par_sort_by(|a, b| a.partial_cmp(b).unwrap())),
        ]
    });
}
