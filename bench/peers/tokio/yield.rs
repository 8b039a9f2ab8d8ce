// yield_2, yield_1000: tokio::task::yield_now among --fibers tasks per worker; as b_yield.c.
mod bench;
use bench::*;

const YIELDS_PER_WORKER: usize = 2_000_000;

fn main() {
    let mut args: Vec<String> = std::env::args().collect();
    let fibers = option(&mut args, "--fibers").unwrap_or(2);
    bench::main(&format!("yield_{fibers}"), nanoseconds(), args, |b| {
        let (count, yields) = (fibers * b.workers, b.count(YIELDS_PER_WORKER) / fibers);
        let elapsed = b.run(async move {
            let gate = Gate::new(count);
            let mut tasks = Vec::new();
            for _ in 0..count {
                let gate = gate.clone();
                tasks.push(tokio::spawn(async move {
                    gate.pass().await;
                    for _ in 0..yields {
                        tokio::task::yield_now().await;
                    }
                }));
            }
            let start = gate.open().await;
            for task in tasks {
                task.await.unwrap();
            }
            each(start, count * yields)
        });
        vec![elapsed * b.workers as f64]
    });
}
