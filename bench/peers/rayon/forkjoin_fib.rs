// forkjoin_fib: fib(27) by its definition, each call a join of two; as b_forkjoin_fib.c.
mod bench;
use bench::*;
use std::time::Instant;

const N: u64 = 27;
const FIB_N: u64 = 196_418;
const CALLS: usize = 635_621;

fn fib(n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    let (a, b) = rayon::join(|| fib(n - 1), || fib(n - 2));
    a + b
}

fn main() {
    bench::main("forkjoin_fib", nanoseconds(), std::env::args().collect(), |b| {
        let times = b.count(50);
        let start = Instant::now();
        for _ in 0..times {
            check("fib", b.pool.install(|| fib(N)), FIB_N);
        }
        vec![each(start, times * CALLS)]
    });
}
