// job_producer_consumer: jobs that put numbers into a queue without bounds, and jobs that take them out; as
// b_job_producer_consumer.c. The queue is crossbeam's channel, which comes with Rayon.
mod bench;
use bench::*;
use crossbeam_channel::{unbounded, Receiver, Sender};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

fn produce(queue: &Sender<usize>, from: usize, to: usize) {
    for i in from..to {
        queue.send(i).unwrap();
    }
}

fn consume(queue: &Receiver<usize>, consumed: &AtomicUsize, sum: &AtomicUsize, items: usize) {
    while consumed.load(Relaxed) < items {
        match queue.try_recv() {
            Ok(i) => {
                sum.fetch_add(i, Relaxed);
                consumed.fetch_add(1, Relaxed);
            }
            Err(_) => std::thread::yield_now(),
        }
    }
}

fn once(b: &Bench, items: usize) {
    let each_side = (b.workers / 2).max(1);
    let (sender, receiver) = unbounded();
    let (consumed, sum) = (AtomicUsize::new(0), AtomicUsize::new(0));
    b.pool.in_place_scope_fifo(|s| {
        for p in 0..each_side {
            let (sender, share) = (&sender, items / each_side);
            let to = if p + 1 == each_side { items } else { (p + 1) * share };
            s.spawn_fifo(move |_| produce(sender, p * share, to));
        }
        for _ in 0..each_side {
            s.spawn_fifo(|_| consume(&receiver, &consumed, &sum, items));
        }
    });
    check("sum", sum.into_inner(), items * (items - 1) / 2);
}

fn measure(b: &Bench, items: usize) -> f64 {
    let times = b.times(1_000_000, items);
    let start = Instant::now();
    for _ in 0..times {
        once(b, items);
    }
    each(start, times * items)
}

fn main() {
    let metrics = vec![Metric("", "ns"), Metric("100k", "ns"), Metric("10k", "ns")];
    bench::main("job_producer_consumer", metrics, std::env::args().collect(), |b| {
        [500_000, 100_000, 10_000].map(|items| measure(b, items)).to_vec()
    });
}
