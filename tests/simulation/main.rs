//! Many gateways and an engine that fails, run over thousands of seeds.
//!
//! The gateways are the real ones: engine, cluster, upkeep and ledger, under a clock that stands
//! still until everybody waits. The engine runs the real `seats.lua` in Lua 5.1, over a model of the
//! commands that it uses, which is held against a real Redis. What happens, and what goes wrong, is
//! drawn from a seed: the same seed is the same run.
//!
//! ```sh
//! cargo test --test simulation                        # as in CI
//! SEATGATE_SIM_SEEDS=50000 cargo test --test simulation   # more seeds
//! SEATGATE_SIM_FROM=2000 cargo test --test simulation     # others
//! SEATGATE_SIM_SEED=4711 cargo test --test simulation     # one seed, with its last events
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | `keyspace` | a Redis's memory and commands |
//! | `likeness` | holds that against a real Redis |
//! | `script`, `msgpack` | `seats.lua` over it |
//! | `server` | the engine, and what can go wrong with it |
//! | `world` | the network and the life of a gateway |
//! | `node` | a gateway, and sessions at it |
//! | `scene`, `drive` | what happens in the run of a seed |
//! | `check` | what has to hold in the engine after each call |
//! | `watch` | what has to hold between engine and gateways |
//! | `run` | time, events and verdict of a run |
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod check;
mod drive;
#[path = "../support/engine.rs"]
mod engine;
mod keyspace;
#[path = "../support/licence.rs"]
mod licence;
mod likeness;
mod msgpack;
mod node;
mod run;
mod scene;
mod script;
mod server;
mod watch;
mod world;

use std::env;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use futures_util::FutureExt as _;
use parking_lot::Mutex;

use drive::Drive;

/// Seeds of a run in CI.
const SEEDS: u64 = 2_000;

/// What became of a seed.
struct Outcome {
    sum: u64,
    wrong: Option<String>,
    events: Vec<String>,
    operations: u64,
}

fn play(seed: u64, told: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut drive = Drive::new(seed, told);
        let wrong = AssertUnwindSafe(drive.play()).catch_unwind().await;
        let wrong = wrong.unwrap_or_else(|_| Err("it panicked".to_owned())).err();
        drive.end();
        let operations = drive.server.operations.load(Ordering::Relaxed);
        Outcome { sum: drive.run.sum(), wrong, events: drive.run.events(), operations }
    })
}

/// Tells of a seed that failed, with its last events.
fn tell(seed: u64) -> String {
    let Outcome { wrong, events, .. } = play(seed, true);
    format!(
        "{}\nseed {seed}: {}\nagain: SEATGATE_SIM_SEED={seed} cargo test --test simulation",
        events.join("\n"),
        wrong.as_deref().unwrap_or("nothing is wrong this time")
    )
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn whatever_goes_wrong_no_seat_is_lost_and_none_too_many() {
    if let Some(seed) = number("SEATGATE_SIM_SEED") {
        let outcome = play(seed, true);
        println!("{}", outcome.events.join("\n"));
        assert!(outcome.wrong.is_none(), "seed {seed}: {}", outcome.wrong.unwrap_or_default());
        return;
    }
    let seeds = number("SEATGATE_SIM_SEEDS").unwrap_or(SEEDS);
    let from = number("SEATGATE_SIM_FROM").unwrap_or(0);
    let (next, operations) = (AtomicU64::new(from), AtomicU64::new(0));
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    let outcome = play(seed, false);
                    operations.fetch_add(outcome.operations, Ordering::Relaxed);
                    if let Some(wrong) = outcome.wrong {
                        failed.lock().push((seed, wrong));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner();
    failed.sort();
    println!("{seeds} seeds from {from}, {} operations of the engine", operations.into_inner());
    if let Some((seed, _)) = failed.first() {
        let all: Vec<_> = failed.iter().map(|(seed, why)| format!("{seed}: {why}")).collect();
        panic!("{}\n{} of {seeds} seeds fail:\n{}", tell(*seed), all.len(), all.join("\n"));
    }
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in 0..16 {
        assert_eq!(play(seed, false).sum, play(seed, true).sum, "seed {seed}");
    }
}
