// echo_*, spinner_p99: a task per connection on the multi-thread runtime, with one worker, too. --hogs tasks compute
// all the time, --blockers sleep on their worker's thread for a second again and again, and each connection to
// --spin-port makes a task compute for a second. Tokio has no means against such tasks but to write others: a program
// that knows of them runs them elsewhere, by spawn_blocking. Here nobody knows, as in the other servers.
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

const BUFFER_BYTES: usize = 4096;

async fn serve(mut conn: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let bytes = conn.read(&mut buffer).await?;
        if bytes == 0 {
            return Ok(());
        }
        conn.write_all(&buffer[..bytes]).await?;
    }
}

fn spin() {
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {}
}

async fn hog() {
    let mut sum = 0u64;
    loop {
        sum = std::hint::black_box(sum + 1);
    }
}

async fn block() {
    loop {
        std::thread::sleep(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
}

async fn listen(port: u16) -> TcpListener {
    TcpListener::bind(("127.0.0.1", port)).await.unwrap()
}

async fn spin_for_connections(port: u16) {
    let listener = listen(port).await;
    loop {
        let (conn, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            spin();
            drop(conn);
        });
    }
}

async fn run(port: u16, spin_port: u16, hogs: u16, blockers: u16) {
    let listener = listen(port).await;
    if spin_port > 0 {
        tokio::spawn(spin_for_connections(spin_port));
    }
    for _ in 0..hogs {
        tokio::spawn(hog());
    }
    for _ in 0..blockers {
        tokio::spawn(block());
    }
    loop {
        let (conn, _) = listener.accept().await.unwrap();
        conn.set_nodelay(true).unwrap();
        tokio::spawn(serve(conn)); // how it ends is the client's business
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: u16| match args.iter().position(|arg| arg == name) {
        Some(at) => args[at + 1].parse().unwrap(),
        None => default,
    };
    let workers = number("--workers", 1).into();
    let runtime = Builder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap();
    let (port, spin_port) = (number("--port", 8080), number("--spin-port", 0));
    runtime.block_on(run(port, spin_port, number("--hogs", 0), number("--blockers", 0)));
}
