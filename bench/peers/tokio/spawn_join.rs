// spawn_join: spawn one task, wait until it has ended; as b_spawn_join.c.
mod bench;
use bench::*;
use std::time::Instant;

const PAIRS: usize = 1_000_000;

fn main() {
    bench::main("spawn_join", nanoseconds(), std::env::args().collect(), |b| {
        let n = b.count(PAIRS);
        vec![b.run(async move {
            let start = Instant::now();
            for _ in 0..n {
                tokio::spawn(async {}).await.unwrap();
            }
            each(start, n)
        })]
    });
}
