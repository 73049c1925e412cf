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
use crate::workloads::{SMALL, cursor};
use crate::{Result, generator_threads};

/// Sessions that are opened and closed before anything is measured.
const WARM_UP: u64 = 64;

/// Sessions that are being opened at a time.
const PARALLEL: usize = 200;

/// Sessions that messages are sent on while the others are idle.
const TALKING: usize = 64;

/// How many errors of lost sessions are told.
const TOLD: u64 = 5;

/// What so many idle sessions cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    pub(crate) sessions: usize,
    pub(crate) bytes_per_session: f64,
    pub(crate) full_bytes: u64,
    /// The proxy's CPU time for opening one of those that this stage added.
    pub(crate) open_microseconds: f64,
    /// The same for a message that is echoed on one of a few of them.
    pub(crate) message_microseconds: f64,
}

/// Idle sessions in growing number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions {
    pub(crate) stages: Vec<Stage>,
    /// Some seconds after all were closed.
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

/// How many sessions are there at each stage.
fn ladder(options: &Options) -> Vec<usize> {
    // A proxy needs two files for a session, and some for other things; each side has a port for
    // each session, of some 28,000.
    let allowed = (file_limit().saturating_sub(500) / 2).min(25_000);
    let most = options.sessions().min(allowed);
    if most < options.sessions() {
        eprintln!("  the limit of open files allows {most} sessions only");
    }
    let mut counts: Vec<usize> =
        [100, 300, 1_000, 3_000, 9_000].into_iter().filter(|count| *count < most).collect();
    counts.push(most);
    if options.is_up_to_the_limit() && allowed > most {
        counts.push(allowed);
    }
    counts
}

/// Opens more and more sessions that are admitted, have one message echoed and are idle, and
/// measures at each stage.
pub(crate) fn grow(peer: &Peer, options: &Options) -> Result<Sessions> {
    runtime(generator_threads())?.block_on(async {
        for number in 0..WARM_UP {
            let _ = open_and_close(peer.address, number).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before = peer.resident_bytes();
        let mut measured = Sessions::default();
        let mut idle = Vec::new();
        for count in ladder(options) {
            let cpu = peer.cpu_time().unwrap_or_default();
            let (from, added) = (idle.len(), count - idle.len());
            let (opened, lost) = open_all(peer.address, from, added).await;
            idle.extend(opened);
            measured.lost += lost;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let cpu = peer.cpu_time().unwrap_or_default().saturating_sub(cpu);
            let full_bytes = peer.resident_bytes();
            let talking = idle.len().saturating_sub(TALKING);
            let talkers = idle.split_off(talking);
            let (talkers, message_microseconds, lost) = talk(peer, talkers, options).await;
            idle.extend(talkers);
            measured.lost += lost;
            let held = idle.len().max(1) as f64;
            measured.stages.push(Stage {
                sessions: count,
                bytes_per_session: full_bytes.saturating_sub(before) as f64 / held,
                full_bytes,
                open_microseconds: cpu.as_secs_f64() * 1e6 / added as f64,
                message_microseconds,
            });
        }
        let mut closing = JoinSet::new();
        for socket in idle {
            closing.spawn(socket.close());
        }
        while closing.join_next().await.is_some() {}
        tokio::time::sleep(options.memory_settles()).await;
        measured.afterwards_bytes = peer.resident_bytes();
        Ok(measured)
    })
}

/// Echoes messages on some sessions for a while: the sessions, the proxy's CPU time in
/// microseconds for a message, and how many sessions were lost.
async fn talk(peer: &Peer, sockets: Vec<Socket>, options: &Options) -> (Vec<Socket>, f64, u64) {
    let until = Instant::now() + options.window() / 2;
    let cpu = peer.cpu_time().unwrap_or_default();
    let mut talking = JoinSet::new();
    for mut socket in sockets {
        talking.spawn(async move {
            let mut message = Vec::new();
            client_text(&mut message, &cursor(SMALL));
            let mut done = 0_u64;
            while Instant::now() < until {
                socket.write(&message).await?;
                socket.expect_length(SMALL).await?;
                done += 1;
            }
            Result::Ok((socket, done))
        });
    }
    let (mut sockets, mut messages, mut lost) = (Vec::new(), 0, 0);
    while let Some(talked) = talking.join_next().await {
        match talked {
            Ok(Ok((socket, done))) => {
                sockets.push(socket);
                messages += done;
            }
            Ok(Err(error)) => {
                lost += 1;
                tell(lost, &error);
            }
            Err(_) => lost += 1,
        }
    }
    let cpu = peer.cpu_time().unwrap_or_default().saturating_sub(cpu);
    (sockets, cpu.as_secs_f64() * 1e6 / messages.max(1) as f64, lost)
}

/// Opens sessions and lets each echo one message; also how many were lost.
async fn open_all(address: SocketAddr, from: usize, added: usize) -> (Vec<Socket>, u64) {
    let permits = Arc::new(Semaphore::new(PARALLEL));
    let mut opening = JoinSet::new();
    for number in from..from + added {
        let permits = Arc::clone(&permits);
        opening.spawn(async move {
            let _permit = permits.acquire().await?;
            let mut socket = Socket::open(address, number as u64).await?;
            let mut message = Vec::new();
            client_text(&mut message, &cursor(SMALL));
            socket.write(&message).await?;
            socket.expect_length(SMALL).await?;
            Result::Ok(socket)
        });
    }
    let (mut idle, mut lost) = (Vec::with_capacity(added), 0);
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
