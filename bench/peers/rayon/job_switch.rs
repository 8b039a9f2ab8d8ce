// job_switch: submit an empty job and wait for it, one after the other; as b_job_switch.c. Rayon's jobs do not switch.
mod bench;
use bench::*;
use std::time::Instant;

fn main() {
    bench::main("job_switch", vec![Metric("run", "us")], std::env::args().collect(), |b| {
        if b.workers > 1 {
            return vec![f64::NAN];
        }
        let times = b.count(10_000);
        let start = Instant::now();
        for i in 0..times {
            check("job", b.pool.install(|| i), i);
        }
        vec![each(start, times) / 1e3]
    });
}
