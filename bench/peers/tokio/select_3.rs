// select_3: three producers, each on a channel of its own, and one consumer that selects; as b_select_3.c. Tokio has no
// unbuffered channel, so these have room for one value.
mod bench;
use bench::*;
use std::time::Instant;
use tokio::sync::mpsc::{channel, Receiver};

const PRODUCERS: usize = 3;
const ITEMS_PER_PRODUCER: usize = 200_000;

fn producer(n: usize) -> Receiver<usize> {
    let (sender, receiver) = channel(1);
    tokio::spawn(async move {
        for i in 1..=n {
            sender.send(i).await.unwrap();
        }
        sender.closed().await; // a closed channel would be ready for ever
    });
    receiver
}

async fn pass(n: usize) -> f64 {
    let mut sum = 0;
    let start = Instant::now();
    let (mut c0, mut c1, mut c2) = (producer(n), producer(n), producer(n));
    for _ in 0..n * PRODUCERS {
        sum += tokio::select! {
            value = c0.recv() => value.unwrap(),
            value = c1.recv() => value.unwrap(),
            value = c2.recv() => value.unwrap(),
        };
    }
    let value = each(start, n * PRODUCERS);
    check("sum", sum, PRODUCERS * n * (n + 1) / 2);
    value
}

fn main() {
    bench::main("select_3", nanoseconds(), std::env::args().collect(), |b| {
        vec![b.run(pass(b.count(ITEMS_PER_PRODUCER)))]
    });
}
