// wake_1m: a million tasks that wait, each for a Notify of its own, are woken one by one and wait again; as
// b_wake_1m.c.
mod bench;
use bench::*;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Notify;
use tokio::task::yield_now;

const TASKS: usize = 1_000_000;
const ROUNDS: usize = 3;
const BATCH: usize = 1_000;

async fn sit(gate: Arc<Notify>, seated: Arc<AtomicUsize>) -> usize {
    for round in 0.. {
        seated.fetch_add(1, SeqCst);
        gate.notified().await;
        if round == ROUNDS {
            return round + 1;
        }
    }
    unreachable!()
}

async fn wait_for(seated: &AtomicUsize, total: usize) {
    while seated.load(SeqCst) < total {
        yield_now().await;
    }
}

async fn wake_all(gates: &[Arc<Notify>]) {
    for (i, gate) in gates.iter().enumerate() {
        gate.notify_one();
        if i % BATCH == 0 {
            yield_now().await;
        }
    }
}

async fn measure(count: usize) -> f64 {
    let gates: Vec<_> = (0..count).map(|_| Arc::new(Notify::new())).collect();
    let seated = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = gates.iter().map(|gate| tokio::spawn(sit(gate.clone(), seated.clone()))).collect();
    wait_for(&seated, count).await;
    let start = Instant::now();
    for round in 1..=ROUNDS {
        wake_all(&gates).await;
        wait_for(&seated, (round + 1) * count).await;
    }
    let value = each(start, ROUNDS * count);
    wake_all(&gates).await;
    for task in tasks {
        check("rounds", task.await.unwrap(), ROUNDS + 1);
    }
    value
}

fn main() {
    bench::main("wake_1m", nanoseconds(), std::env::args().collect(), |b| vec![b.run(measure(b.count(TASKS)))]);
}
