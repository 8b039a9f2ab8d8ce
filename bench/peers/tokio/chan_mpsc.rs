// chan_mpsc: 8 producers, one consumer, one channel, with room for 128, and for one: Tokio has no unbuffered channel; as
// b_chan_mpsc.c.
mod bench;
use bench::*;
use std::time::Instant;
use tokio::sync::mpsc::channel;

const CAPACITY: usize = 128;
const PRODUCERS: usize = 8;
const ITEMS_PER_PRODUCER: usize = 200_000;

async fn pass(n: usize, capacity: usize) -> f64 {
    let (sender, mut receiver) = channel(capacity);
    let mut sum = 0;
    let start = Instant::now();
    for _ in 0..PRODUCERS {
        let sender = sender.clone();
        tokio::spawn(async move {
            for i in 1..=n {
                sender.send(i).await.unwrap();
            }
        });
    }
    for _ in 0..n * PRODUCERS {
        sum += receiver.recv().await.unwrap();
    }
    let value = each(start, n * PRODUCERS);
    check("sum", sum, PRODUCERS * n * (n + 1) / 2);
    value
}

fn main() {
    let metrics = vec![Metric("", "ns"), Metric("unbuffered", "ns")];
    bench::main("chan_mpsc", metrics, std::env::args().collect(), |b| {
        let n = b.count(ITEMS_PER_PRODUCER);
        vec![b.run(pass(n, CAPACITY)), b.run(pass(n, 1))]
    });
}
