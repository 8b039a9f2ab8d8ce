// chan_pingpong: a value goes to another task and comes back; as b_chan_pingpong.c. Tokio has no unbuffered channel, so
// these have room for one value. For "across" the two tasks are on threads with a current-thread runtime each.
mod bench;
use bench::*;
use std::time::Instant;
use tokio::sync::mpsc::{channel, Receiver, Sender};

const ROUND_TRIPS: usize = 1_000_000;
const ROUND_TRIPS_ACROSS: usize = 20_000;

async fn answer(n: usize, mut ping: Receiver<usize>, pong: Sender<usize>) {
    for _ in 0..n {
        pong.send(ping.recv().await.unwrap() + 1).await.unwrap();
    }
}

async fn serve(n: usize, ping: Sender<usize>, mut pong: Receiver<usize>) -> f64 {
    let mut sum = 0;
    let start = Instant::now();
    for i in 0..n {
        ping.send(i).await.unwrap();
        sum += pong.recv().await.unwrap();
    }
    let value = each(start, n);
    check("sum", sum, n * (n + 1) / 2);
    value
}

async fn play(n: usize) -> f64 {
    let (ping, pong) = (channel(1), channel(1));
    tokio::spawn(answer(n, ping.1, pong.0));
    tokio::spawn(serve(n, ping.0, pong.1)).await.unwrap()
}

fn play_across(n: usize) -> f64 {
    let (ping, pong) = (channel(1), channel(1));
    let answerer = std::thread::spawn(move || runtime(1).block_on(answer(n, ping.1, pong.0)));
    let server = std::thread::spawn(move || runtime(1).block_on(serve(n, ping.0, pong.1)));
    answerer.join().unwrap();
    server.join().unwrap()
}

fn main() {
    let metrics = vec![Metric("", "ns"), Metric("across", "ns")];
    bench::main("chan_pingpong", metrics, std::env::args().collect(), |b| {
        let n = b.count(ROUND_TRIPS_ACROSS);
        let across = if b.workers > 1 { play_across(n) } else { f64::NAN };
        vec![b.run(play(b.count(ROUND_TRIPS))), across]
    });
}
