// wake_latency: how long it takes from waking a task that waits until it runs; as b_wake_latency.c. Tasks cannot be put
// on a worker, so for all but "free" the two are on threads with a current-thread runtime each, and these on a
// processor each. "free" is the multi-thread runtime.
mod bench;
use bench::*;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

const SLEEPING_WAKES: usize = 2_000;
const SPINNING_WAKES: usize = 20_000;
const FREE_WAKES: usize = 500;
const CALM: Duration = Duration::from_millis(2);
const BUSY: Duration = Duration::from_millis(1);

struct Pair {
    gate: Notify,
    sent: Mutex<Instant>,
    done: AtomicUsize,
}

async fn sleeper(pair: Arc<Pair>, wakes: usize) -> Vec<f64> {
    let mut us = Vec::with_capacity(wakes);
    for i in 1..=wakes {
        pair.gate.notified().await;
        us.push(pair.sent.lock().unwrap().elapsed().as_nanos() as f64 / 1e3);
        pair.done.store(i, SeqCst);
    }
    us.sort_by(|a, b| a.total_cmp(b));
    us
}

async fn waker(pair: Arc<Pair>, wakes: usize, is_spinning: bool) {
    for i in 1..=wakes {
        if is_spinning {
            let (start, pause) = (Instant::now(), Duration::from_micros(2 + (i as u64 * 7) % 9));
            while start.elapsed() < pause {}
        } else {
            tokio::time::sleep(CALM).await;
        }
        let sent = Instant::now();
        *pair.sent.lock().unwrap() = sent;
        pair.gate.notify_one();
        while pair.done.load(SeqCst) < i {
            if sent.elapsed() > BUSY {
                tokio::task::yield_now().await;
            }
        }
    }
}

fn timed(workers: usize) -> Runtime {
    let mut builder = if workers == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder.worker_threads(workers).enable_time().build().unwrap()
}

/// Puts the calling thread on the nth processor that it may use.
fn stay_on_cpu(n: usize) {
    extern "C" {
        fn sched_getaffinity(pid: i32, bytes: usize, mask: *mut u64) -> i32;
        fn sched_setaffinity(pid: i32, bytes: usize, mask: *const u64) -> i32;
    }
    let (mut all, mut mine) = ([0u64; 16], [0u64; 16]);
    let bytes = std::mem::size_of_val(&all);
    if unsafe { sched_getaffinity(0, bytes, all.as_mut_ptr()) } < 0 {
        die("sched_getaffinity failed".to_string());
    }
    if let Some(cpu) = (0..1024).filter(|cpu| all[cpu / 64] >> (cpu % 64) & 1 == 1).nth(n) {
        mine[cpu / 64] = 1 << (cpu % 64);
        unsafe { sched_setaffinity(0, bytes, mine.as_ptr()) };
    }
}

fn on_thread<T: Send + 'static>(n: usize, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    std::thread::spawn(move || {
        stay_on_cpu(n);
        timed(1).block_on(task)
    })
}

fn measure(wakes: usize, is_spinning: bool, is_free: bool) -> Vec<f64> {
    let sent = Mutex::new(Instant::now());
    let pair = Arc::new(Pair { gate: Notify::new(), sent, done: AtomicUsize::new(0) });
    let us = if is_free {
        timed(2).block_on(async {
            let woken = tokio::spawn(sleeper(pair.clone(), wakes));
            tokio::spawn(waker(pair, wakes, is_spinning)).await.unwrap();
            woken.await.unwrap()
        })
    } else {
        let woken = on_thread(1, sleeper(pair.clone(), wakes));
        on_thread(0, waker(pair, wakes, is_spinning)).join().unwrap();
        woken.join().unwrap()
    };
    check("wakes", us.len(), wakes);
    us
}

fn main() {
    let names = ["", "p90", "p99", "p99.9", "max", "spinning", "spinning p90", "spinning p99", "spinning p99.9", "free",
        "free p99"];
    let metrics: Vec<_> = names.iter().map(|name| Metric(name, "us")).collect();
    bench::main("wake_latency", metrics, std::env::args().collect(), |b| {
        if b.workers == 1 {
            return vec![f64::NAN; names.len()];
        }
        let sleeping = measure(b.count(SLEEPING_WAKES), false, false);
        let spinning = measure(b.count(SPINNING_WAKES), true, false);
        let free = measure(b.count(FREE_WAKES), false, true);
        b.times.borrow_mut().extend(&sleeping);
        let all = |us: &[f64], percents: &[f64]| -> Vec<f64> { percents.iter().map(|&p| percentile(us, p)).collect() };
        [
            all(&sleeping, &[50.0, 90.0, 99.0, 99.9, 100.0]),
            all(&spinning, &[50.0, 90.0, 99.0, 99.9]),
            all(&free, &[50.0, 99.0]),
        ]
        .concat()
    });
}
