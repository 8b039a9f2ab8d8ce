// timer_storm: 10^6 tasks that sleep until a time within one second, each its own; as b_timer_storm.c. Tokio has no
// timers apart from tasks that wait; they have a resolution of 1 ms. "cancel" polls a sleep once, which registers it,
// and drops it, all of them in random order.
mod bench;
use bench::*;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Builder;
use tokio::time::{sleep_until, Sleep};

const TIMERS: usize = 1_000_000;
const LEAD: Duration = Duration::from_nanos(2000); // per timer, until the first comes
const RATE_NS: u64 = 1000; // one timer in so much time, on average
const STEP: usize = 736338717; // without a factor in common with any of the counts

/// Of all threads.
fn cpu_ns() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let stats = threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap());
    stats.map(|text| text.split_whitespace().next().unwrap().parse::<f64>().unwrap()).sum()
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Returns the CPU time in ns per timer, and how late each was, in us and in order.
async fn storm(count: usize) -> (f64, Vec<f64>) {
    let (mut state, come) = (88172645463325252, Arc::new(AtomicUsize::new(0)));
    let before = cpu_ns();
    let begins = Instant::now() + LEAD * count as u32;
    let mut tasks = Vec::with_capacity(count);
    for _ in 0..count {
        let due = begins + Duration::from_nanos(random(&mut state) % (count as u64 * RATE_NS));
        let come = come.clone();
        tasks.push(tokio::spawn(async move {
            sleep_until(due.into()).await;
            come.fetch_add(1, SeqCst);
            due.elapsed().as_nanos() as f64 / 1e3
        }));
        if tasks.len() % 1000 == 0 {
            tokio::task::yield_now().await; // or else none would be armed where there is one thread
        }
    }
    let mut us = Vec::with_capacity(count);
    for task in tasks {
        us.push(task.await.unwrap());
    }
    let used = cpu_ns() - before;
    check("timers that have come", come.load(SeqCst), count);
    us.sort_by(|a, b| a.total_cmp(b));
    (used / count as f64, us)
}

async fn start_and_stop(count: usize) -> f64 {
    let mut state = 88172645463325252;
    let hour = Instant::now() + Duration::from_secs(3600);
    let start = Instant::now();
    let mut sleeps: Vec<Option<Pin<Box<Sleep>>>> = Vec::with_capacity(count);
    for _ in 0..count {
        let due = hour + Duration::from_nanos(random(&mut state) % 3_600_000_000_000);
        let mut sleep = Box::pin(sleep_until(due.into()));
        std::future::poll_fn(|context| {
            if sleep.as_mut().poll(context).is_ready() {
                die("a timer has come an hour too early".to_string());
            }
            std::task::Poll::Ready(())
        })
        .await;
        sleeps.push(Some(sleep));
    }
    for i in 0..count {
        drop(sleeps[i * STEP % count].take().unwrap());
    }
    each(start, count)
}

fn main() {
    let names = ["late", "late p99", "late max"].map(|name| Metric(name, "us"));
    let metrics = [Metric("", "ns")].into_iter().chain(names).chain([Metric("cancel", "ns")]).collect();
    bench::main("timer_storm", metrics, std::env::args().collect(), |b| {
        let mut builder = if b.workers == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
        let runtime = builder.worker_threads(b.workers).enable_time().build().unwrap();
        let count = b.count(TIMERS);
        let (used, us) = runtime.block_on(async move { tokio::spawn(storm(count)).await.unwrap() });
        let cancel = runtime.block_on(async move { tokio::spawn(start_and_stop(count)).await.unwrap() });
        vec![used, us[count / 2], us[count * 99 / 100], us[count - 1], cancel]
    });
}
