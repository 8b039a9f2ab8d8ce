// mutex_8: 8 tasks lock one tokio::sync::Mutex, count, and unlock it; as b_mutex_8.c.
mod bench;
use bench::*;
use std::sync::Arc;
use tokio::sync::Mutex;

const TASKS: usize = 8;
const PAIRS_PER_TASK: usize = 500_000;

async fn race(n: usize) -> f64 {
    let (counter, gate) = (Arc::new(Mutex::new(0)), Gate::new(TASKS));
    let mut tasks = Vec::new();
    for _ in 0..TASKS {
        let (counter, gate) = (counter.clone(), gate.clone());
        tasks.push(tokio::spawn(async move {
            gate.pass().await;
            for _ in 0..n {
                *counter.lock().await += 1;
            }
        }));
    }
    let start = gate.open().await;
    for task in tasks {
        task.await.unwrap();
    }
    let value = each(start, n * TASKS);
    check("counter", *counter.lock().await, n * TASKS);
    value
}

fn main() {
    bench::main("mutex_8", nanoseconds(), std::env::args().collect(), |b| vec![b.run(race(b.count(PAIRS_PER_TASK)))]);
}
