//! Several gateways at one licence, on a real Redis: exact, and right again after whatever ends,
//! stops or is cut off.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "support/engine.rs"]
mod engine;
mod support;

use std::time::{Duration, Instant};

use engine::RedisServer;
use futures_util::future::join_all;
use support::gateway::{DEFAULT_LICENCE, EDITOR_USERS, EDITORS, VIEWER_USERS, VIEWERS};
use support::{Editor, Gateway, LicenceFile, Open, Poller, Setup, StandIn, eventually};

const LEASE: Duration = Duration::from_secs(3);

fn setup(server: &StandIn, redis: &RedisServer, licence: LicenceFile, on_failure: &str) -> Setup {
    Setup::before(server.addr)
        .default_licence(move |_| licence)
        .set("store.backend", "redis")
        .set("store.url", redis.url())
        .set("store.lease", format!("{}s", LEASE.as_secs()))
        .set("store.on_failure", on_failure)
}

async fn gateways<const N: usize>(
    server: &StandIn,
    redis: &RedisServer,
    licence: &LicenceFile,
    on_failure: &str,
) -> [Gateway; N] {
    let start = || setup(server, redis, licence.clone(), on_failure).start();
    let started = join_all((0..N).map(|_| start())).await;
    started.try_into().unwrap_or_else(|_| panic!("as many as were started"))
}

/// Opens so many at once, over all gateways in turn; those that were let in.
async fn burst(gateways: &[Gateway], count: usize) -> Vec<Editor> {
    let opens = (0..count).map(|number| async move {
        let open = Open::editor(&format!("d{number}"), &format!("u{number}"));
        let (editor, opened) = gateways[number % gateways.len()].open(&open).await;
        opened.is_admitted().then_some(editor)
    });
    join_all(opens).await.into_iter().flatten().collect()
}

#[tokio::test]
async fn three_hundred_opens_at_a_licence_of_fifty_are_fifty() {
    let server = StandIn::start().await;
    for (licence, kind) in [
        (LicenceFile::connections(DEFAULT_LICENCE, 50, 0), EDITORS),
        (LicenceFile::users(DEFAULT_LICENCE, 50, 0), EDITOR_USERS),
    ] {
        let redis = RedisServer::start();
        let gateways: [Gateway; 2] = gateways(&server, &redis, &licence, "deny").await;
        let inside = burst(&gateways, 300).await;
        assert_eq!(inside.len(), 50);
        // The number is the licence's, on each of them.
        for gateway in &gateways {
            gateway.await_seats(kind, 50.0).await;
        }
        drop(inside);
        if kind == EDITORS {
            for gateway in &gateways {
                gateway.await_seats(kind, 0.0).await;
            }
            assert_eq!(burst(&gateways, 60).await.len(), 50);
        }
    }
}

#[tokio::test]
async fn the_seats_of_a_gateway_that_died_come_back_with_its_lease_and_not_before() {
    let server = StandIn::start().await;
    let redis = RedisServer::start();
    let licence = LicenceFile::connections(DEFAULT_LICENCE, 4, 0);
    let [mut dying, living] = gateways(&server, &redis, &licence, "deny").await;
    let mut inside = Vec::new();
    for user in ["a", "b", "c"] {
        inside.push(dying.admit(&Open::editor("d", user)).await);
    }
    let stays = living.admit(&Open::editor("d", "stays")).await;
    dying.crash();
    let died = Instant::now();
    living.refuse(&Open::editor("d", "early")).await;
    let mut back = Vec::new();
    while back.len() < 3 {
        assert!(died.elapsed() < LEASE + Duration::from_secs(2), "they do not come back");
        let (editor, opened) = living.open(&Open::editor("d", "next")).await;
        if opened.is_admitted() {
            // The lease was renewed within the second before.
            assert!(died.elapsed() > LEASE - Duration::from_millis(1_500), "too early");
            back.push(editor);
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    living.refuse(&Open::editor("d", "one too many")).await;
    drop(stays);
}

#[tokio::test]
async fn a_gateway_that_was_stopped_gives_up_what_was_given_away() {
    let server = StandIn::start().await;
    let redis = RedisServer::start();
    let licence = LicenceFile::connections(DEFAULT_LICENCE, 2, 0);
    let [stopped, living] = gateways(&server, &redis, &licence, "deny").await;
    let mut first = stopped.admit(&Open::editor("d", "a")).await;
    let mut second = stopped.admit(&Open::editor("d", "b")).await;
    stopped.signal("STOP");
    let taken = eventually("a seat is free", async || {
        let (editor, opened) = living.open(&Open::editor("d", "c")).await;
        opened.is_admitted().then_some(editor)
    })
    .await;
    stopped.signal("CONT");
    // One of the two sessions ends; both gateways agree about two seats.
    let ended = async |editor: &mut Editor| editor.hear_out().await;
    tokio::select! {
        _ = ended(&mut first) => {}
        _ = ended(&mut second) => {}
    }
    for gateway in [&stopped, &living] {
        gateway.await_seats(EDITORS, 2.0).await;
    }
    living.refuse(&Open::editor("d", "e")).await;
    drop(taken);
}

/// The session still speaks with the document server.
async fn exchange(editor: &mut Editor) {
    let message = support::editor::event(&serde_json::json!({"type": "isSaveLock"}));
    editor.send(&message).await.unwrap();
    editor.hear_message("saveLock").await;
}

#[tokio::test]
async fn without_redis_what_runs_goes_on_and_opens_go_as_configured() {
    for on_failure in ["deny", "allow"] {
        let server = StandIn::start().await;
        let mut redis = RedisServer::start();
        let licence = LicenceFile::connections(DEFAULT_LICENCE, 3, 0);
        let [one, other] = gateways(&server, &redis, &licence, on_failure).await;
        let mut running = one.admit(&Open::editor("d", "runs")).await;
        other.await_seats(EDITORS, 1.0).await;
        redis.kill();
        exchange(&mut running).await;
        let (_held, opened) = other.open(&Open::editor("d", "new")).await;
        assert_eq!(opened.is_admitted(), on_failure == "allow");
        if on_failure == "deny" {
            let refused = other.admissions("editor", "rejected", "store_unavailable").await;
            assert_eq!(refused, 1.0);
        }
        redis.restart();
        eventually("opens are decided again", async || {
            let (_, opened) = other.open(&Open::editor("d", "again")).await;
            opened.is_admitted().then_some(())
        })
        .await;
        // It is still there, and its seat too.
        exchange(&mut running).await;
        let held = if on_failure == "allow" { 2.0 } else { 1.0 };
        one.await_seats(EDITORS, held).await;
    }
}

/// Opens so many at once, of which as many as there are seats get in.
async fn exactly<const N: usize>(
    licence: LicenceFile,
    kind: &str,
    gateways_over: (&StandIn, &RedisServer),
    seats: usize,
    open: impl Fn(usize) -> Open,
    polling: bool,
) {
    let (server, redis) = gateways_over;
    let gateways: [Gateway; N] = gateways(server, redis, &licence, "deny").await;
    let opens = (0..4 * seats).map(|number| {
        let (gateway, open) = (&gateways[number % N], open(number));
        async move {
            if polling {
                let (poller, opened) = Poller::open(gateway.addr, &open).await;
                return opened.is_admitted().then_some((Some(poller), None));
            }
            let (editor, opened) = gateway.open(&open).await;
            opened.is_admitted().then_some((None, Some(editor)))
        }
    });
    let inside: Vec<_> = join_all(opens).await.into_iter().flatten().collect();
    assert_eq!(inside.len(), seats, "{kind}, polling: {polling}");
    for gateway in &gateways {
        gateway.await_seats(kind, seats as f64).await;
    }
}

#[tokio::test]
async fn it_is_exact_in_every_class_and_over_every_transport() {
    let server = StandIn::start().await;
    let editor = |number| Open::editor(&format!("d{number}"), &format!("u{number}"));
    let viewer = |number| Open::live_viewer(&format!("d{number}"), &format!("u{number}"));
    for polling in [false, true] {
        let redis = RedisServer::start();
        let both = (&server, &redis);
        let licence =
            |editors, viewers| LicenceFile::connections(DEFAULT_LICENCE, editors, viewers);
        exactly::<2>(licence(9, 1), EDITORS, both, 9, editor, polling).await;
        redis.ask(&["FLUSHALL"]);
        exactly::<2>(licence(1, 9), VIEWERS, both, 9, viewer, polling).await;
        redis.ask(&["FLUSHALL"]);
        let licence = LicenceFile::users(DEFAULT_LICENCE, 1, 9);
        exactly::<3>(licence, VIEWER_USERS, both, 9, viewer, polling).await;
    }
}

#[tokio::test]
async fn whoever_comes_back_through_another_gateway_has_their_seat() {
    let server = StandIn::start().await;
    let redis = RedisServer::start();
    for (licence, kind, open) in [
        (
            LicenceFile::connections(DEFAULT_LICENCE, 1, 0),
            EDITORS,
            Open::editor as fn(&str, &str) -> Open,
        ),
        (LicenceFile::connections(DEFAULT_LICENCE, 0, 1), VIEWERS, Open::live_viewer),
    ] {
        redis.ask(&["FLUSHALL"]);
        let start = || {
            setup(&server, &redis, licence.clone(), "deny")
                .set("enforcement.reconnect_grace", "60s")
                .start()
        };
        let (one, other) = (start().await, start().await);
        let lost = open("d", "lost");
        let (editor, opened) = one.open(&lost).await;
        let session = opened.reply()["sessionId"].as_str().unwrap().to_owned();
        editor.reset();
        eventually("everybody knows that it is lost", async || {
            let labels = [("tenant", "default"), ("kind", kind)];
            let metrics = other.metrics().await;
            (metrics.get("seatgate_seats_grace", &labels) == Some(1.0)).then_some(())
        })
        .await;
        for gateway in [&one, &other] {
            gateway.refuse(&open("d", "another")).await;
            gateway.refuse(&open("d", "another").with("sessionId", session.clone())).await;
        }
        let _back = other.admit(&lost.with("sessionId", session)).await;
        for gateway in [&one, &other] {
            gateway.refuse(&open("d", "another")).await;
            gateway.await_seats(kind, 1.0).await;
        }
    }
}

#[tokio::test]
async fn a_session_that_went_elsewhere_stays_there_when_its_gateway_wakes_up() {
    let server = StandIn::start().await;
    let redis = RedisServer::start();
    let licence = LicenceFile::connections(DEFAULT_LICENCE, 1, 0);
    let [asleep, living] = gateways(&server, &redis, &licence, "deny").await;
    let (mut before, opened) = asleep.open(&Open::editor("d", "a")).await;
    let session = opened.reply()["sessionId"].as_str().unwrap().to_owned();
    asleep.signal("STOP");
    let back = Open::editor("d", "a").with("sessionId", session);
    // Only when the lease is over: the session had no seat any more, and was given a new one.
    tokio::time::sleep(LEASE + Duration::from_millis(300)).await;
    let mut after = living.admit(&back).await;
    asleep.signal("CONT");
    before.hear_out().await;
    exchange(&mut after).await;
    for gateway in [&asleep, &living] {
        gateway.await_seats(EDITORS, 1.0).await;
    }
    assert_eq!(after.hear_within(Duration::from_secs(3)).await, None, "it was ended");
}

#[tokio::test]
async fn an_outage_longer_than_the_lease_ends_nobodys_session() {
    let server = StandIn::start().await;
    let mut redis = RedisServer::start();
    let licence = LicenceFile::connections(DEFAULT_LICENCE, 4, 0);
    let gateways: [Gateway; 2] = gateways(&server, &redis, &licence, "deny").await;
    let mut running = Vec::new();
    for (number, user) in ["a", "b", "c", "d"].into_iter().enumerate() {
        running.push(gateways[number % 2].admit(&Open::editor("d", user)).await);
    }
    redis.kill();
    tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
    redis.restart();
    // Whichever is back first, nobody gets a seat of the other's.
    let until = Instant::now() + Duration::from_secs(8);
    while Instant::now() < until {
        assert_eq!(burst(&gateways, 4).await.len(), 0);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for editor in &mut running {
        exchange(editor).await;
    }
}

#[tokio::test]
async fn users_are_counted_while_redis_is_away_as_configured() {
    for on_failure in ["deny", "allow"] {
        let server = StandIn::start().await;
        let mut redis = RedisServer::start();
        let licence = LicenceFile::users(DEFAULT_LICENCE, 3, 0);
        let [one, other] = gateways(&server, &redis, &licence, on_failure).await;
        let mut running = one.admit(&Open::editor("d", "runs")).await;
        other.await_seats(EDITOR_USERS, 1.0).await;
        redis.kill();
        exchange(&mut running).await;
        let (mut new, opened) = other.open(&Open::editor("d", "new")).await;
        assert_eq!(opened.is_admitted(), on_failure == "allow");
        if on_failure == "allow" {
            exchange(&mut new).await;
            new.goodbye().await;
        }
        redis.restart();
        eventually("opens are decided by Redis again", async || {
            let (_, opened) = one.open(&Open::editor("d", "again")).await;
            let up = one.metrics().await.get("seatgate_store_up", &[]) == Some(1.0);
            (opened.is_admitted() && up).then_some(())
        })
        .await;
        exchange(&mut running).await;
        // Who was counted meanwhile stays counted, on each.
        let counted = if on_failure == "allow" { 3.0 } else { 2.0 };
        for gateway in [&one, &other] {
            gateway.await_seats(EDITOR_USERS, counted).await;
        }
        let (_third, opened) = one.open(&Open::editor("d", "one more")).await;
        assert_eq!(opened.is_admitted(), on_failure == "deny");
    }
}
