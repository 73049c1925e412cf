//! The engine is not there yet, comes and goes, or is another one: starting without it, many who
//! come back at once, the failover of a Sentinel pair, changes that other gateways have to hear of.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

#[path = "support/cable.rs"]
mod cable;
#[path = "support/engine.rs"]
mod engine;
mod support;

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use cable::{Cable, Fault};
use engine::{RedisServer, Sentinel};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use serde_json::{Value, json};
use support::admin::run;
use support::gateway::{DEFAULT_LICENCE, EDITORS, free_address};
use support::wait::eventually_within;
use support::{Call, Editor, Gateway, LicenceFile, Open, Setup, StandIn, eventually};

const LEASE: Duration = Duration::from_secs(5);
const APP: &str = "app";
const API_KEY: &str = "api-key";

/// A gateway whose licence has so many connections, and may be validated as `LIC-1`.
fn setup(server: &StandIn, url: &str, connections: i64, on_failure: &str) -> Setup {
    Setup::before(server.addr)
        .app(APP, API_KEY)
        .default_licence(|id| {
            LicenceFile::connections(id, connections, 0)
                .with("app", APP)
                .with("key", "LIC-1")
                .with("max_devices", 20)
        })
        .set("validate.failures_per_minute", 0)
        .set("store.backend", "redis")
        .set("store.url", url)
        .set("store.lease", format!("{}s", LEASE.as_secs()))
        .set("store.on_failure", on_failure)
}

async fn exchange(editor: &mut Editor) {
    let message = support::editor::event(&json!({"type": "isSaveLock"}));
    editor.send(&message).await.unwrap();
    editor.hear_message("saveLock").await;
}

/// What becomes of a validation: `valid`, or the reason why not.
async fn validate(gateway: &Gateway, device: &str) -> String {
    let body = json!({"licenceKey": "LIC-1", "deviceId": device}).to_string();
    let answer = Call::post("/licences/api/validate", body)
        .header("Content-Type", "application/json")
        .header("X-App-Id", APP)
        .header("X-Api-Key", API_KEY)
        .send(gateway.addr)
        .await
        .json();
    answer["reason"].as_str().unwrap_or("valid").to_owned()
}

#[tokio::test]
async fn a_start_without_redis_waits_and_says_so() {
    let server = StandIn::start().await;
    let mut redis = RedisServer::start();
    redis.kill();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_nonblocking(true).unwrap();
    let ops = free_address();
    let starting = setup(&server, &redis.url(), 1, "deny")
        .set("ops.listen", ops.to_string())
        .shell(&format!("export NOTIFY_SOCKET='{}'", socket.display()));
    let starting = tokio::spawn(starting.start());
    let told = eventually("it says what it waits for", async || {
        let answer = Call::get("/readyz").try_send(ops).await.ok()?;
        assert_eq!(answer.status, 503);
        let told: Value = answer.json();
        told["waits_for"].as_str().is_some_and(|why| why.contains("refused")).then_some(told)
    })
    .await;
    assert_eq!(told["status"], "starting");
    let waits_for = told["waits_for"].as_str().unwrap();
    assert!(waits_for.contains(&format!("Redis at 127.0.0.1:{}", redis.port)), "{told}");
    let alive = Call::get("/healthz").send(ops).await;
    assert_eq!((alive.status, alive.text().as_str()), (200, "ok\n"));
    assert_eq!(Call::get("/metrics").send(ops).await.status, 503);
    let mut heard = String::new();
    let mut hear = async |part: &str| {
        eventually("the service manager is told", async || {
            let mut piece = [0; 4_096];
            while let Ok(length) = manager.recv(&mut piece) {
                heard.push_str(&String::from_utf8_lossy(&piece[..length]));
            }
            heard.contains(part).then_some(())
        })
        .await;
        assert!(part.starts_with("READY") || !heard.contains("READY=1"), "{heard}");
    };
    hear("STATUS=Waiting for Redis at 127.0.0.1").await;
    hear("EXTEND_TIMEOUT_USEC=").await;
    assert!(!starting.is_finished());
    redis.restart();
    let gateway = starting.await.unwrap();
    hear("READY=1").await;
    let lines = gateway.log().lines().filter(|line| line.contains("waiting for Redis at")).count();
    assert!((1..=3).contains(&lines), "{lines} lines");
    gateway.admit(&Open::editor("d", "one")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_come_back_do_not_storm_redis() {
    const EDITORS_BACK: usize = 500;
    let server = StandIn::start().await;
    let redis = RedisServer::start();
    let cable = Cable::to(redis.port).await;
    let gateway = setup(&server, &cable.url(), 1_000, "deny").start().await;
    let _running = gateway.admit(&Open::editor("d", "runs")).await;
    for fault in [Fault::Cut, Fault::Dead] {
        cable.set(fault);
        let before = cable.dialled();
        let began = Instant::now();
        let opens = (0..EDITORS_BACK).map(|number| {
            let gateway = &gateway;
            async move {
                let open = Open::editor(&format!("d{number}"), &format!("u{number}"));
                gateway.open(&open).await.1.is_admitted()
            }
        });
        // Some at a time, as a listener's queue is not endless.
        let mut opens = futures_util::stream::iter(opens).buffer_unordered(50);
        while let Some(admitted) = opens.next().await {
            assert!(!admitted, "an open was decided without Redis");
        }
        let passed = began.elapsed();
        let dialled = cable.dialled() - before;
        println!("{fault:?}: {EDITORS_BACK} opens in {passed:?}, {dialled} connections tried");
        // Three are kept up, each with a pause of 1.5 to 3 s after its first quick tries.
        let bound = 30 + 2 * passed.as_secs() as usize;
        assert!(dialled <= bound, "{dialled} connections tried within {passed:?}");
        cable.set(Fault::Whole);
        eventually("opens are decided again", async || {
            let (_, opened) = gateway.open(&Open::editor("d", "back")).await;
            opened.is_admitted().then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_outlast_the_failover_of_a_sentinel_pair() {
    for on_failure in ["deny", "allow"] {
        let server = StandIn::start().await;
        let mut master = RedisServer::start();
        let replica = RedisServer::start_with(&[
            "--replicaof",
            &format!("127.0.0.1 {}", master.port),
            "--repl-diskless-sync-delay",
            "0",
        ]);
        eventually("the replica is in step", async || {
            replica.ask(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
        })
        .await;
        let sentinel = Sentinel::start(master.port);
        eventually("the sentinel knows the replica", async || {
            let known = sentinel.ask(&["SENTINEL", "REPLICAS", "mymaster"]);
            known.contains(&replica.port.to_string()).then_some(())
        })
        .await;
        let url = format!("redis+sentinel://127.0.0.1:{}/mymaster/0", sentinel.port);
        let one = setup(&server, &url, 5, on_failure).start().await;
        let other = setup(&server, &url, 5, on_failure).start().await;
        let mut running = Vec::new();
        for (gateway, user) in [(&one, "a"), (&other, "b"), (&one, "c")] {
            running.push(gateway.admit(&Open::editor("d", user)).await);
        }
        eventually("the replica has it all", async || {
            let acknowledged = master.ask(&["WAIT", "1", "100"]);
            acknowledged.contains(":1").then_some(())
        })
        .await;
        // One seat that the master acknowledges and the replica never hears of.
        replica.pause();
        running.push(other.admit(&Open::editor("d", "lost")).await);
        master.kill();
        replica.resume();
        let failed = Instant::now();
        for editor in &mut running {
            exchange(editor).await;
        }
        let labels = [("tenant", "default"), ("kind", EDITORS)];
        eventually_within(Duration::from_secs(30), "the replica is the master", async || {
            replica.ask(&["ROLE"]).contains("master").then_some(())
        })
        .await;
        let (mut fifth, waited) =
            eventually_within(Duration::from_secs(30), "opens are decided again", async || {
                let (editor, opened) = one.open(&Open::editor("d", "fifth")).await;
                opened.is_admitted().then_some((editor, failed.elapsed()))
            })
            .await;
        println!("{on_failure}: opens are decided again {waited:?} after the master died");
        for gateway in [&one, &other] {
            eventually("each counts them all", async || {
                let used = gateway.metrics().await.get("seatgate_seats_used", &labels);
                (used == Some(5.0)).then_some(())
            })
            .await;
            gateway.refuse(&Open::editor("d", "sixth")).await;
        }
        let seats = replica.ask(&["HGET", &format!("seatgate:l:{{{DEFAULT_LICENCE}}}:count"), "e"]);
        assert_eq!(seats, "$1\r\n5\r\n", "what replication lost was asked for again");
        for editor in running.iter_mut().chain([&mut fifth]) {
            exchange(editor).await;
        }
        for gateway in [&one, &other] {
            let metrics = gateway.metrics().await;
            assert_eq!(metrics.get("seatgate_seats_overshoot_total", &[]), Some(0.0));
            assert_eq!(metrics.get("seatgate_seats_lost_total", &[]), Some(0.0));
        }
    }
}

#[tokio::test]
async fn as_many_devices_as_there_may_be_bind_over_all_gateways() {
    let server = StandIn::start().await;
    let redis = RedisServer::start();
    let start = || setup(&server, &redis.url(), 1, "deny").start();
    let gateways = [start().await, start().await];
    let burst = async |devices: usize, each: usize| {
        let calls = (0..devices * each).map(|number| {
            let gateway = &gateways[number % 2];
            let device = format!("device-{}", number / each);
            async move {
                let answer = validate(gateway, &device).await;
                (device, answer)
            }
        });
        join_all(calls).await
    };
    // 200 devices, each through one gateway: 20 of them.
    let answers = burst(200, 1).await;
    let bound: BTreeSet<_> =
        answers.iter().filter(|(_, told)| told == "valid").map(|(device, _)| device).collect();
    assert_eq!(bound.len(), 20);
    let refused = answers.iter().filter(|(_, told)| told == "max_devices_reached").count();
    assert_eq!(refused, 180);
    // The same devices through both at once: whoever is bound stays so, nobody else gets in.
    let again = burst(200, 2).await;
    for (device, told) in &again {
        let expected = if bound.contains(device) { "valid" } else { "max_devices_reached" };
        assert_eq!(told, expected, "{device}");
    }
    for gateway in &gateways {
        let labels = [("licence", DEFAULT_LICENCE)];
        let counted = gateway.metrics().await.get("seatgate_devices_bound", &labels);
        assert_eq!(counted, Some(20.0));
    }
    // New ones, each through both at the same moment, are bound once.
    redis.ask(&["FLUSHALL"]);
    let gateways = [start().await, start().await];
    let calls = (0..40).map(|number| {
        let gateway = &gateways[number % 2];
        async move { validate(gateway, &format!("twin-{}", number / 2)).await }
    });
    assert!(join_all(calls).await.iter().all(|told| told == "valid"));
    assert_eq!(validate(&gateways[0], "one more").await, "max_devices_reached");
}

/// How long a revocation through one gateway takes until another one knows of it.
async fn until_known(to: &Gateway, revoked: bool, limit: Duration) -> Duration {
    let began = Instant::now();
    let expected = if revoked { "licence_revoked" } else { "valid" };
    eventually_within(limit, expected, async || {
        (validate(to, "device").await == expected).then_some(())
    })
    .await;
    began.elapsed()
}

/// Waits until opens are refused. A validation can hear of a revocation before: from the engine.
async fn until_refused(by: &Gateway, limit: Duration) {
    let open = Open::editor("d", "a");
    eventually_within(limit, "a refusal", async || {
        let (editor, opened) = by.dial("d").open(&open).await;
        if opened.is_admitted() {
            editor.goodbye().await;
            return None;
        }
        opened.assert_refused();
        Some(())
    })
    .await;
}

#[tokio::test]
async fn a_revocation_reaches_the_other_gateways_within_a_second() {
    let server = StandIn::start().await;
    let redis = RedisServer::start();
    let cable = Cable::to(redis.port).await;
    let one = setup(&server, &redis.url(), 5, "deny").start().await;
    let other = setup(&server, &cable.url(), 5, "deny").start().await;
    let second = Duration::from_secs(1);
    let revoke = async || run(&one, &["licence", "revoke", DEFAULT_LICENCE]).await.good();
    let reinstate = async || run(&one, &["licence", "reinstate", DEFAULT_LICENCE]).await.good();
    assert_eq!(validate(&other, "device").await, "valid");
    for _ in 0..3 {
        revoke().await;
        let took = until_known(&other, true, second).await;
        println!("known {took:?} after the command");
        until_refused(&other, second).await;
        reinstate().await;
        until_known(&other, false, second).await;
        other.admit(&Open::editor("d", "a")).await.goodbye().await;
    }
    // The messages are lost, commands are not.
    redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    revoke().await;
    let took = until_known(&other, true, second).await;
    println!("known {took:?} after the command, its message lost");
    reinstate().await;
    until_known(&other, false, second).await;
    // Cut off altogether, it goes on by what it knew, lets nobody in, and learns of it when it is
    // back: a pause between two connects, the connect, a look.
    cable.set(Fault::Dead);
    revoke().await;
    assert_eq!(validate(&other, "device").await, "valid");
    other.refuse(&Open::editor("d", "a")).await;
    cable.set(Fault::Whole);
    let took = until_known(&other, true, Duration::from_secs(10)).await;
    println!("known {took:?} after the cut was mended");
    until_refused(&other, second).await;
}
