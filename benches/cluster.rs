//! Seats over a real Redis on loopback: how long an admission takes at a steady rate, beside a bare
//! `PING` over a socket that blocks, which is what the machine takes for a round trip, and what renewing the leases of many connections costs, of one gateway and of a hundred.
//!
//! `cargo bench --bench cluster`; needs `redis-server`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::indexing_slicing)]

#[path = "../tests/support/licence.rs"]
mod licence;
#[path = "../tests/support/engine.rs"]
mod server;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use licence::perpetual;
use seatgate::clock;
use seatgate::clock::Clock;
use seatgate::cluster::{Cluster, Sharing};
use seatgate::config::{Env, OnFailure, StoreBackend, load_with};
use seatgate::engine::Engine;
use seatgate::ledger::{Occupant, SeatRequest};
use seatgate::licence::Quota;
use seatgate::seat::SeatClass;
use server::RedisServer;

const RATE: u64 = 1_000;
const ROUNDS: u64 = 10;
const ADMISSIONS: u64 = 1_000;
const CONNECTIONS: usize = 100_000;
const RENEWING: Duration = Duration::from_secs(20);
const GATEWAYS: usize = 100;

fn main() {
    // `cargo test --benches` only builds it.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    // As in the threads that serve the public.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let server = RedisServer::start_with(&["--appendfsync", "everysec"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("seatgate.toml");
    let url = server.url();
    let text = format!("licences.files = []\n[store]\nbackend = 'redis'\nurl = '{url}'\n");
    std::fs::write(&file, text).unwrap();
    let settings = load_with(&file, &Env::default()).unwrap().settings;
    let StoreBackend::Redis(redis) = settings.store.backend else { unreachable!() };
    let licence = Arc::new(perpetual("l", Quota { connections: 1_000_000, ..Quota::default() }));
    let terms = Arc::clone(&licence);
    let sharing = Sharing { lease: Duration::from_secs(20), on_failure: OnFailure::Deny };
    let join = async || {
        let engine = Engine::start(redis.engine.clone()).unwrap();
        engine.first_connection(|_| {}).await.unwrap();
        let terms = Arc::clone(&terms);
        let terms = Arc::new(move |_: &str| Some(Arc::clone(&terms)));
        let joined = Cluster::join(engine, sharing, terms, Clock::system()).await.unwrap();
        // A licence that was asked for is looked at.
        joined.1.licence("l");
        joined
    };
    let (_cluster, ledger) = join().await;
    let seats = ledger.licence("l");
    let request = |user: String| SeatRequest {
        class: SeatClass::Editor,
        occupant: Occupant {
            tenant: "default".into(),
            document: "a document".into(),
            user: user.into(),
            anonymous: false,
            address: [127, 0, 0, 1].into(),
        },
        session_id: None,
        replaces: None,
        force: false,
    };

    let memory = || {
        let told = server.ask(&["INFO", "memory"]);
        let line = told.lines().find_map(|line| line.strip_prefix("used_memory:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    let empty = memory();
    let mut held = Vec::with_capacity(CONNECTIONS);
    let (mut took, mut bare) = (Vec::new(), Vec::new());
    let pause = Duration::from_nanos(1_000_000_000 / RATE);
    let mut socket = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    socket.set_nodelay(true).unwrap();
    // The first one has a connection made.
    held.push(seats.open(request("first".into()), Some(&licence), clock::now()).await.unwrap());
    tokio::time::sleep(Duration::from_millis(200)).await;
    for _ in 0..ROUNDS {
        let mut turns = tokio::time::interval(pause);
        for _ in 0..ADMISSIONS {
            turns.tick().await;
            let user = format!("u{}", held.len());
            let started = Instant::now();
            let opened = seats.open(request(user), Some(&licence), clock::now()).await;
            took.push(started.elapsed());
            held.push(opened.unwrap());
        }
        for _ in 0..ADMISSIONS {
            std::thread::sleep(pause);
            let started = Instant::now();
            socket.write_all(b"PING\r\n").unwrap();
            socket.read_exact(&mut [0; 7]).unwrap();
            bare.push(started.elapsed());
        }
    }
    for (what, times) in [("admission", &mut took), ("bare PING", &mut bare)] {
        times.sort_unstable();
        let at = |part: f64| times[(times.len() as f64 * part) as usize].as_micros();
        println!(
            "{what} at {RATE}/s: p50 {} µs, p99 {} µs, p99.9 {} µs",
            at(0.5),
            at(0.99),
            at(0.999)
        );
    }

    let (started, redis_before) = (Instant::now(), cpu(server.id()));
    let before = held.len();
    for number in before..CONNECTIONS {
        let opened = seats.open(request(format!("u{number}")), Some(&licence), clock::now()).await;
        held.push(opened.unwrap());
    }
    let each = started.elapsed() / (CONNECTIONS - before) as u32;
    let of_redis = (cpu(server.id()) - redis_before) / (CONNECTIONS - before) as u32;
    println!(
        "one after the other, up to {CONNECTIONS} connections: {} µs each, {} µs of them in Redis; \
         {} bytes of its memory each",
        each.as_micros(),
        of_redis.as_micros(),
        (memory() - empty) / CONNECTIONS as u64
    );

    let renewing = async |gateways: usize| {
        let (gateway, redis) = (cpu(std::process::id()), cpu(server.id()));
        tokio::time::sleep(RENEWING).await;
        let share = |before: Duration, now: Duration| {
            100.0 * (now - before).as_secs_f64() / RENEWING.as_secs_f64()
        };
        println!(
            "renewing the leases of {CONNECTIONS} connections, {gateways} gateway(s): {:.2} % of a \
             core here, {:.2} % in Redis",
            share(gateway, cpu(std::process::id())),
            share(redis, cpu(server.id()))
        );
    };
    renewing(1).await;
    let mut others = Vec::with_capacity(GATEWAYS - 1);
    while others.len() < GATEWAYS - 1 {
        others.push(join().await);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    renewing(GATEWAYS).await;
}

/// The CPU time that a process has used (proc(5), fields 14 and 15).
fn cpu(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
