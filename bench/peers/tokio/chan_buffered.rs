// chan_buffered: one producer, one consumer, a channel with room for 128; as b_chan_buffered.c.
mod bench;
use bench::*;
use std::time::Instant;
use tokio::sync::mpsc::channel;

const CAPACITY: usize = 128;
const ITEMS: usize = 2_000_000;

async fn pass(n: usize) -> f64 {
    let (sender, mut receiver) = channel(CAPACITY);
    let mut sum = 0;
    let start = Instant::now();
    tokio::spawn(async move {
        for i in 1..=n {
            sender.send(i).await.unwrap();
        }
    });
    for _ in 0..n {
        sum += receiver.recv().await.unwrap();
    }
    let value = each(start, n);
    check("sum", sum, n * (n + 1) / 2);
    value
}

fn main() {
    bench::main("chan_buffered", nanoseconds(), std::env::args().collect(), |b| vec![b.run(pass(b.count(ITEMS)))]);
}
