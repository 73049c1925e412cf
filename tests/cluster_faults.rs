//! Gateways and the engine under faults at random: killed, paused, cut off from each other and
//! started again, while people come and go.
//!
//! Two things always hold, judged from what clients really have: an `auth` that was answered and a
//! connection that lives. There is never one seat too many; and no seat is lost for longer than
//! the lease. What is done to whom follows from a seed that is printed; `SEATGATE_FAULTS_SEED`
//! runs another.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

#[path = "support/cable.rs"]
mod cable;
#[path = "support/engine.rs"]
mod engine;
#[path = "support/faults.rs"]
mod faults;
mod support;

use std::time::{Duration, Instant};

use cable::Cable;
use engine::RedisServer;
use faults::{Crowd, Injector, Random};
use futures_util::future::join_all;
use support::gateway::{DEFAULT_LICENCE, EDITORS};
use support::{Editor, Gateway, Heard, LicenceFile, Open, Setup, StandIn};

const LEASE: Duration = Duration::from_secs(3);
const SEATS: usize = 12;

/// How long a gateway may take to be right again after a fault: the engine is tried again, within
/// 3 s and a connect that is given up after as long, and looked at twice.
const SETTLING: Duration = Duration::from_secs(9);

async fn start(server: &StandIn, url: &str, seats: usize) -> Gateway {
    let licence = LicenceFile::connections(DEFAULT_LICENCE, seats as i64, 0);
    Setup::before(server.addr)
        .default_licence(|_| licence)
        .set("store.backend", "redis")
        .set("store.url", url)
        .set("store.lease", format!("{}s", LEASE.as_secs()))
        .set("store.on_failure", "deny")
        .start()
        .await
}

/// One run: faults for a while, then calm, and everything has to be right.
async fn run(seed: u64, gateways: usize, faults: usize) {
    println!("seed {seed}, {gateways} gateways");
    let server = StandIn::start().await;
    let redis = RedisServer::start();
    let mut cables = Vec::new();
    for _ in 0..gateways {
        cables.push(Cable::to(redis.port).await);
    }
    let started = join_all(cables.iter().map(|cable| cable.url()).map(|url| {
        let server = &server;
        async move { start(server, &url, SEATS).await }
    }));
    let started = started.await;
    let addresses: Vec<_> = started.iter().map(|gateway| gateway.addr).collect();
    let mut random = Random::new(seed);
    let crowd = Crowd::come(&addresses, 2 * SEATS + 6, &mut random);
    let mut injector = Injector::new(started, cables, redis, LEASE, SETTLING);
    for _ in 0..faults {
        injector.inject(&mut random).await;
    }
    let stays = crowd.go().await;
    let left = Instant::now();
    let gateways = &injector.gateways;

    // Everybody left: each seat is free after the lease, and one by one they can be had again.
    let mut inside: Vec<Editor> = Vec::new();
    while inside.len() < SEATS {
        let late = left.elapsed().saturating_sub(LEASE + SETTLING);
        assert!(late.is_zero(), "seed {seed}: {} of {SEATS} seats came back", inside.len());
        let gateway = &gateways[inside.len() % gateways.len()];
        let (editor, opened) = gateway.open(&Open::editor("d", "after")).await;
        if opened.is_admitted() {
            inside.push(editor);
        } else {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    for gateway in gateways {
        gateway.refuse(&Open::editor("d", "one too many")).await;
        gateway.await_seats(EDITORS, SEATS as f64).await;
    }
    // None of them is asked to leave later on: everybody agrees.
    let early = inside.iter_mut().map(|editor| editor.hear_within(Duration::from_secs(3)));
    for heard in join_all(early).await {
        assert!(!matches!(heard, Some(Heard::Close(_) | Heard::End)), "a session was ended");
    }
    // Each gateway has told by now what it lost.
    stays.assert_never_more_than(SEATS, &injector.outages());
    println!("{} opens were let in, at most {} at once", stays.len(), stays.most());
    assert!(stays.len() > SEATS, "hardly anybody was let in: nothing was tried");
}

fn seeds(fixed: &[u64]) -> Vec<u64> {
    match std::env::var("SEATGATE_FAULTS_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => fixed.to_vec(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_keep_to_the_limit_whatever_happens() {
    for seed in seeds(&[11]) {
        run(seed, 2, 7).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_gateways_keep_to_the_limit_whatever_happens() {
    for seed in seeds(&[12]) {
        run(seed, 3, 7).await;
    }
}
