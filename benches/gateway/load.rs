//! Closed-loop clients, and the window in which what they do is counted.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};

use crate::peers::Peer;
use crate::{Result, generator_threads};

/// How long the clients may take to be connected.
const CONNECTING: Duration = Duration::from_secs(20);

/// How long a client that failed waits until it tries again.
const PAUSE: Duration = Duration::from_millis(5);

/// What the clients count.
pub(crate) struct Counters {
    /// For each client. Timeouts of single operations would cost more than the operations: a
    /// client that stands still is found by its count.
    operations: Vec<AtomicU64>,
    errors: AtomicU64,
    connected: AtomicUsize,
    first_error: Mutex<Option<String>>,
    over: AtomicBool,
}

impl Counters {
    fn new(clients: usize) -> Self {
        Self {
            operations: (0..clients).map(|_| AtomicU64::new(0)).collect(),
            errors: AtomicU64::new(0),
            connected: AtomicUsize::new(0),
            first_error: Mutex::new(None),
            over: AtomicBool::new(false),
        }
    }

    /// A client has done an operation; returns whether it should do another.
    pub(crate) fn done(&self, client: usize) -> bool {
        if let Some(operations) = self.operations.get(client) {
            operations.fetch_add(1, Ordering::Relaxed);
        }
        !self.over.load(Ordering::Relaxed)
    }

    /// A client is connected and begins.
    pub(crate) fn connected(&self) {
        self.connected.fetch_add(1, Ordering::Relaxed);
    }

    fn fail(&self, error: &dyn std::fmt::Display) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let mut first = self.first_error.lock();
        first.get_or_insert_with(|| error.to_string());
    }
}

/// What was counted within a window.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) per_second: f64,
    /// The proxy's CPU time; `None` where there is no proxy.
    pub(crate) cpu_microseconds: Option<f64>,
    /// Connections that failed, the warm-up included.
    pub(crate) errors: u64,
    /// Clients that did nothing in the window.
    pub(crate) stuck: usize,
    /// Where operations were timed.
    pub(crate) latency: Option<Latency>,
}

/// How long operations took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    pub(crate) median: Duration,
    pub(crate) p99: Duration,
}

impl Latency {
    /// `None` where there was no operation.
    pub(crate) fn of(mut latencies: Vec<Duration>) -> Option<Self> {
        latencies.sort_unstable();
        let at = |percent: usize| latencies.get(latencies.len() * percent / 100).copied();
        Some(Self { median: at(50)?, p99: at(99)? })
    }
}

/// A runtime for clients or the upstream.
pub(crate) fn runtime(threads: usize) -> io::Result<Runtime> {
    match threads {
        0 | 1 => Builder::new_current_thread().enable_all().build(),
        more => Builder::new_multi_thread().worker_threads(more).enable_all().build(),
    }
}

/// Runs `clients` of a kind against a peer and counts what they do in `window`, after a fifth of
/// it to warm up. A client is given its number, and is started again when it fails.
pub(crate) fn measure<F, C>(
    peer: &Peer,
    clients: usize,
    window: Duration,
    client: F,
) -> Result<Sample>
where
    F: Fn(Arc<Counters>, usize) -> C + Clone + Send + 'static,
    C: Future<Output = Result<()>> + Send,
{
    let counters = Arc::new(Counters::new(clients));
    let runtime = runtime(generator_threads())?;
    let sample = runtime.block_on(async {
        for number in 0..clients {
            let (client, counters) = (client.clone(), Arc::clone(&counters));
            tokio::spawn(async move {
                while !counters.over.load(Ordering::Relaxed) {
                    if let Err(error) = client(Arc::clone(&counters), number).await {
                        counters.fail(&error);
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            });
        }
        let started = Instant::now();
        while counters.connected.load(Ordering::Relaxed) < clients {
            if started.elapsed() > CONNECTING {
                return Err("the clients do not all connect");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::sleep(window / 5).await;
        let before = Reading::take(peer, &counters);
        tokio::time::sleep(window).await;
        let after = Reading::take(peer, &counters);
        counters.over.store(true, Ordering::Relaxed);
        Ok(after.since(&before))
    });
    // The clients' connections end with the runtime.
    drop(runtime);
    let first_error = counters.first_error.lock().take();
    if let Some(error) = &first_error {
        eprintln!("  a client failed: {error}");
    }
    Ok(sample?)
}

/// The counters at an instant.
struct Reading {
    at: Instant,
    operations: Vec<u64>,
    errors: u64,
    cpu: Option<Duration>,
}

impl Reading {
    fn take(peer: &Peer, counters: &Counters) -> Self {
        Self {
            cpu: peer.cpu_time(),
            at: Instant::now(),
            operations: counters.operations.iter().map(|it| it.load(Ordering::Relaxed)).collect(),
            errors: counters.errors.load(Ordering::Relaxed),
        }
    }

    fn since(&self, before: &Self) -> Sample {
        let done: Vec<u64> =
            self.operations.iter().zip(&before.operations).map(|(now, then)| now - then).collect();
        let operations = done.iter().sum::<u64>() as f64;
        let cpu = self.cpu.zip(before.cpu).map(|(after, before)| after.saturating_sub(before));
        Sample {
            per_second: operations / (self.at - before.at).as_secs_f64(),
            cpu_microseconds: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / operations.max(1.0)),
            errors: self.errors,
            stuck: done.iter().filter(|done| **done == 0).count(),
            latency: None,
        }
    }
}
