// jobs_1m: one job spawns 10^6 jobs that do next to nothing, and waits for them; as b_jobs_1m.c.
mod bench;
use bench::*;
use std::time::Instant;

const JOBS: usize = 1_000_000;

fn main() {
    bench::main("jobs_1m", nanoseconds(), std::env::args().collect(), |b| {
        let mut slots = vec![1u8; JOBS];
        let start = Instant::now();
        b.pool.scope(|s| {
            for slot in slots.iter_mut() {
                s.spawn(move |_| *slot += 1);
            }
        });
        let value = each(start, JOBS);
        check("slots", slots.iter().map(|&slot| slot as usize).sum(), 2 * JOBS);
        vec![value]
    });
}
