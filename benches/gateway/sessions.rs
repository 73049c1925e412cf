//! Sessions in great number: the memory of idle ones, and whether one is lost among many.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::frames::client_text;
use crate::load::runtime;
use crate::machine::file_limit;
use crate::options::Options;
use crate::peers::Peer;
use crate::socket::Socket;
use crate::workloads::small_message;
use crate::{Result, generator_threads};

/// Sessions that are opened and closed before anything is measured.
const WARM_UP: u64 = 64;

/// Sessions that are being opened at a time.
const PARALLEL: usize = 200;

/// How many errors of lost sessions are told.
const TOLD: u64 = 5;

/// Memory of idle sessions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) sessions: usize,
    pub(crate) bytes_per_session: f64,
    pub(crate) full_bytes: u64,
    pub(crate) afterwards_bytes: u64,
    pub(crate) lost: u64,
}

/// What became of many sessions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Soak {
    pub(crate) opened: u64,
    pub(crate) lost: u64,
    pub(crate) per_second: f64,
    pub(crate) cpu_microseconds: f64,
}

/// One session from connect to close.
pub(crate) async fn open_and_close(address: SocketAddr, number: u64) -> Result<()> {
    Socket::open(address, number).await?.close().await;
    Ok(())
}

/// Measures the memory of sessions that were admitted, had one message echoed and are idle.
pub(crate) fn idle_memory(peer: &Peer, options: &Options) -> Result<Memory> {
    // A proxy needs two files for a session; some are needed for other things.
    let sessions = options.sessions().min(file_limit().saturating_sub(500) / 2);
    if sessions < options.sessions() {
        eprintln!("  the limit of open files allows {sessions} sessions only");
    }
    runtime(generator_threads())?.block_on(async {
        for number in 0..WARM_UP {
            let _ = open_and_close(peer.address, number).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before = peer.resident_bytes();
        let (idle, lost) = open_all(peer.address, sessions).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let full = peer.resident_bytes();
        let held = idle.len().max(1);
        let mut closing = JoinSet::new();
        for socket in idle {
            closing.spawn(socket.close());
        }
        while closing.join_next().await.is_some() {}
        tokio::time::sleep(options.memory_settles()).await;
        Ok(Memory {
            sessions: held,
            bytes_per_session: full.saturating_sub(before) as f64 / held as f64,
            full_bytes: full,
            afterwards_bytes: peer.resident_bytes(),
            lost,
        })
    })
}

/// Opens sessions and lets each echo one message; also how many were lost.
async fn open_all(address: SocketAddr, sessions: usize) -> (Vec<Socket>, u64) {
    let permits = Arc::new(Semaphore::new(PARALLEL));
    let mut opening = JoinSet::new();
    for number in 0..sessions as u64 {
        let permits = Arc::clone(&permits);
        opening.spawn(async move {
            let _permit = permits.acquire().await?;
            let mut socket = Socket::open(address, number).await?;
            let (text, mut message) = (small_message(), Vec::new());
            client_text(&mut message, &text);
            socket.write(&message).await?;
            socket.expect_length(text.len()).await?;
            Result::Ok(socket)
        });
    }
    let (mut idle, mut lost) = (Vec::with_capacity(sessions), 0);
    while let Some(opened) = opening.join_next().await {
        match opened {
            Ok(Ok(socket)) => idle.push(socket),
            Ok(Err(error)) => {
                lost += 1;
                tell(lost, &error);
            }
            Err(_) => lost += 1,
        }
    }
    (idle, lost)
}

/// Opens and closes sessions with as much as the machine can do, and counts those that did not
/// get as far as the reply to their `auth`.
pub(crate) fn soak(peer: &Peer, options: &Options) -> Result<Soak> {
    let (opens, limit) = (options.opens(), options.soak_limit());
    let (next, lost) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let before = peer.cpu_time().unwrap_or_default();
    let started = Instant::now();
    runtime(generator_threads())?.block_on(async {
        let mut clients = JoinSet::new();
        for _ in 0..PARALLEL {
            let (next, lost, address) = (Arc::clone(&next), Arc::clone(&lost), peer.address);
            clients.spawn(async move {
                while started.elapsed() < limit {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= opens {
                        return;
                    }
                    if let Err(error) = open_and_close(address, number).await {
                        tell(lost.fetch_add(1, Ordering::Relaxed) + 1, &error);
                    }
                }
            });
        }
        while clients.join_next().await.is_some() {}
    });
    let elapsed = started.elapsed().as_secs_f64();
    let opened = next.load(Ordering::Relaxed).min(opens);
    let cpu = peer.cpu_time().unwrap_or_default().saturating_sub(before);
    Ok(Soak {
        opened,
        lost: lost.load(Ordering::Relaxed),
        per_second: opened as f64 / elapsed,
        cpu_microseconds: cpu.as_secs_f64() * 1e6 / (opened as f64).max(1.0),
    })
}

fn tell(lost: u64, error: &dyn std::fmt::Display) {
    if lost <= TOLD {
        eprintln!("  a session was lost: {error}");
    }
}
