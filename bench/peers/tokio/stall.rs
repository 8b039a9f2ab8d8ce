// stall_spin, stall_block: who is held up by a task that keeps its thread for a second; as b_stall.c and bench/paced.h.
// With --block it does so by std::thread::sleep. Tokio has no unbuffered channel, so these have room for one value; its
// timers have a resolution of 1 ms and are late rather than early, which "calm" shows. With one worker, too, this is
// the multi-thread runtime.
mod bench;
use bench::*;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{channel, Receiver, Sender};

const PAIRS: usize = 100;
const ROUNDS: usize = 100;
const PERIOD: Duration = Duration::from_millis(10);
const LEAD: Duration = Duration::from_millis(50); // until the pairs and whoever stalls them are there

struct Timetable {
    start: Instant,
}

impl Timetable {
    fn due(&self, n: usize) -> Instant {
        self.start + PERIOD * (n / PAIRS) as u32 + PERIOD * (n % PAIRS) as u32 / PAIRS as u32
    }
}

async fn answer(mut question: Receiver<usize>, answer: Sender<usize>) {
    for _ in 0..ROUNDS {
        answer.send(question.recv().await.unwrap() + 1).await.unwrap();
    }
}

/// Returns how long each round trip took.
async fn ask(pair: usize, table: Arc<Timetable>, question: Sender<usize>, mut answer: Receiver<usize>) -> Vec<Duration> {
    let mut trips = Vec::new();
    for n in (pair..PAIRS * ROUNDS).step_by(PAIRS) {
        let due = table.due(n);
        if Instant::now() < due {
            tokio::time::sleep_until(due.into()).await;
        }
        question.send(n).await.unwrap();
        check("answer", answer.recv().await.unwrap(), n + 1);
        trips.push(due.elapsed());
    }
    trips
}

fn hold_thread(end: Instant, is_blocking: bool) {
    if is_blocking {
        std::thread::sleep(end.saturating_duration_since(Instant::now()));
    }
    let mut sum = 0;
    while Instant::now() < end {
        for i in 0..1000 {
            sum = std::hint::black_box(sum + i);
        }
    }
}

fn percentile(mut trips: Vec<Duration>, part: f64) -> f64 {
    trips.sort();
    let rank = (part * trips.len() as f64) as usize;
    trips[rank.min(trips.len() - 1)].as_nanos() as f64 / 1e3
}

/// Returns the p99, the longest, and the p99 after the grace, in us.
async fn measure(is_stalled: bool, is_blocking: bool) -> Vec<f64> {
    let table = Arc::new(Timetable { start: Instant::now() + LEAD });
    let (start, end) = (table.start, table.start + Duration::from_secs(1));
    let staller = tokio::spawn(async move {
        tokio::time::sleep_until(start.into()).await;
        if is_stalled {
            hold_thread(end, is_blocking);
        }
    });
    let mut askers = Vec::new();
    for i in 0..PAIRS {
        let (there, back) = (channel(1), channel(1));
        tokio::spawn(answer(there.1, back.0));
        askers.push(tokio::spawn(ask(i, table.clone(), there.0, back.1)));
    }
    let (mut all, mut later) = (Vec::new(), Vec::new());
    let grace = Duration::from_millis(if is_blocking { 2 } else { 12 });
    for (pair, asker) in askers.into_iter().enumerate() {
        for (round, trip) in asker.await.unwrap().into_iter().enumerate() {
            all.push(trip);
            if table.due(round * PAIRS + pair) >= start + grace {
                later.push(trip);
            }
        }
    }
    staller.await.unwrap();
    vec![percentile(all.clone(), 0.99), percentile(all, 1.0), percentile(later, 0.99)]
}

fn main() {
    let mut args: Vec<String> = std::env::args().collect();
    let is_blocking = args.iter().any(|arg| arg == "--block");
    args.retain(|arg| arg != "--block");
    let question = if is_blocking { "stall_block" } else { "stall_spin" };
    let metrics = vec![Metric("", "us"), Metric("max", "us"), Metric("after", "us"), Metric("calm", "us")];
    bench::main(question, metrics, args, |b| {
        let runtime = Builder::new_multi_thread().worker_threads(b.workers).enable_time().build().unwrap();
        let run = |is_stalled| runtime.block_on(runtime.spawn(measure(is_stalled, is_blocking))).unwrap();
        let calm = run(false);
        let mut values = run(true);
        values.push(calm[0]);
        values
    });
}
