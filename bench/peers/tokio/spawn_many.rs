// spawn_many: spawn 500 000 tasks that do nothing, then wait for all of them; as b_spawn_many.c.
mod bench;
use bench::*;
use std::time::Instant;

const TASKS: usize = 500_000;

fn main() {
    bench::main("spawn_many", nanoseconds(), std::env::args().collect(), |b| {
        vec![b.run(async {
            let start = Instant::now();
            let tasks: Vec<_> = (0..TASKS).map(|_| tokio::spawn(async {})).collect();
            for task in tasks.into_iter().rev() {
                task.await.unwrap();
            }
            each(start, TASKS)
        })]
    });
}
