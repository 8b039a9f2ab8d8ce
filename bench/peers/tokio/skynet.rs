// skynet: a tree of tasks down to 10^6 leaves whose numbers are summed up over channels; as b_skynet.c. The channels have
// room for all children, as Tokio has no unbuffered ones and is slower with room for one.
mod bench;
use bench::*;
use std::future::Future;
use std::pin::Pin;
use std::time::Instant;
use tokio::sync::mpsc::{channel, Sender};

const CHILDREN: usize = 10;
const LEAVES: usize = 1_000_000;

// Boxed, since it contains itself.
fn node(to: Sender<usize>, first: usize, leaves: usize) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let mut sum = first;
        if leaves > 1 {
            let (sender, mut from) = channel(CHILDREN);
            for i in 0..CHILDREN {
                tokio::spawn(node(sender.clone(), first + i * (leaves / CHILDREN), leaves / CHILDREN));
            }
            sum = 0;
            for _ in 0..CHILDREN {
                sum += from.recv().await.unwrap();
            }
        }
        to.send(sum).await.unwrap();
    })
}

fn main() {
    bench::main("skynet", nanoseconds(), std::env::args().collect(), |b| {
        vec![b.run(async {
            let (sender, mut from) = channel(1);
            let start = Instant::now();
            tokio::spawn(node(sender, 0, LEAVES));
            let sum = from.recv().await.unwrap();
            let value = each(start, LEAVES);
            check("sum", sum, LEAVES * (LEAVES - 1) / 2);
            value
        })]
    });
}
