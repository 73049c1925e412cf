//! Several gateways seen as one: lists, reports, numbers and changes are the licence's, whichever
//! gateway is asked; and an outage of what they share is told by all that tells anything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "support/engine.rs"]
mod engine;
mod support;

use std::time::Duration;

use engine::RedisServer;
use serde_json::{Value, json};
use support::admin::run;
use support::gateway::{DEFAULT_LICENCE, EDITOR_USERS, EDITORS};
use support::{Call, Gateway, LicenceFile, Open, Opened, Setup, StandIn, eventually, within};

fn setup(server: &StandIn, redis: &RedisServer, licence: LicenceFile) -> Setup {
    Setup::before(server.addr)
        .default_licence(move |_| licence)
        .set("store.backend", "redis")
        .set("store.url", redis.url())
        .set("store.lease", "3s")
}

async fn two(setup: impl Fn() -> Setup) -> [Gateway; 2] {
    let (one, other) = tokio::join!(setup().start(), setup().start());
    [one, other]
}

async fn listed(gateway: &Gateway) -> Vec<Value> {
    run(gateway, &["seats", "list", "--json"]).await.json().as_array().unwrap().clone()
}

fn named<'a>(seats: &'a [Value], user: &str) -> &'a Value {
    seats.iter().find(|seat| seat["user"] == user).unwrap_or_else(|| panic!("{user}: {seats:?}"))
}

async fn status(gateway: &Gateway) -> Value {
    Call::get("/api/status?history=none").send(gateway.ops).await.json()
}

fn codes(status: &Value) -> Vec<&str> {
    status["warnings"].as_array().unwrap().iter().map(|one| one["code"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn seats_of_all_gateways_are_listed_and_closed_anywhere() {
    let server = StandIn::start().await;
    let redis = RedisServer::start();
    let licence = LicenceFile::connections(DEFAULT_LICENCE, 5, 0);
    let [one, mut other] = two(|| setup(&server, &redis, licence.clone())).await;
    let _here = one.admit(&Open::editor("d", "here")).await;
    let mut there = other.admit(&Open::editor("d", "there")).await;
    let from_one = listed(&one).await;
    assert_eq!(from_one.len(), 2, "{from_one:?}");
    let port = |gateway: &Gateway| format!(":{}", gateway.addr.port());
    for (user, gateway) in [("here", &one), ("there", &other)] {
        let told = named(&from_one, user)["gateway"].as_str().unwrap();
        assert!(told.ends_with(&port(gateway)) && told.len() > port(gateway).len(), "{told}");
    }
    // How another's are connected is not known here.
    assert_eq!(named(&from_one, "here")["transport"], "websocket");
    assert_eq!(named(&from_one, "there")["transport"], json!(null));
    let table = run(&one, &["seats", "list"]).await.good().out;
    assert!(table.contains("GATEWAY") && table.contains(&port(&other)), "{table}");

    let seat = named(&from_one, "there")["id"].to_string();
    run(&one, &["seats", "close", &seat]).await.good();
    within("the editor hears of it", there.hear_out()).await;
    let left = listed(&other).await;
    assert_eq!(left.len(), 1, "{left:?}");
    run(&one, &["seats", "close", &seat]).await.failed(1, &["seat"]);

    // A gateway that does not answer does not close: that is not passed over.
    let _stays = other.admit(&Open::editor("d", "stays")).await;
    let seat = named(&listed(&one).await, "stays")["id"].to_string();
    other.signal("STOP");
    let said = run(&one, &["seats", "close", &seat]).await;
    other.signal("CONT");
    // Its lease may end in the meantime, and the seat with it.
    assert!(said.code == 0 || said.err.contains("does not close it"), "{said:?}");
    other.crash();
}

#[tokio::test]
async fn a_user_is_released_for_all() {
    let server = StandIn::start().await;
    let redis = RedisServer::start();
    let licence = LicenceFile::users(DEFAULT_LICENCE, 2, 0);
    let [one, other] = two(|| setup(&server, &redis, licence.clone())).await;
    drop(one.admit(&Open::editor("d", "a")).await);
    drop(other.admit(&Open::editor("d", "b")).await);
    for gateway in [&one, &other] {
        gateway.await_seats(EDITOR_USERS, 2.0).await;
        gateway.refuse(&Open::editor("d", "c")).await;
    }
    // The one who was let in by the other gateway.
    run(&one, &["seats", "release", DEFAULT_LICENCE, "b"]).await.good();
    for gateway in [&one, &other] {
        gateway.await_seats(EDITOR_USERS, 1.0).await;
    }
    drop(other.admit(&Open::editor("d", "c")).await);
    eventually("the one who was let in elsewhere is listed", async || {
        let users =
            run(&one, &["seats", "list", "--users", DEFAULT_LICENCE, "--json"]).await.json();
        let users = users.as_array().unwrap().iter().map(|user| user["user"].as_str().unwrap());
        let mut names: Vec<_> = users.collect();
        names.sort_unstable();
        (names == ["a", "c"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn changes_on_one_reach_the_other_within_a_second() {
    let server = StandIn::start().await;
    let redis = RedisServer::start();
    let licence = LicenceFile::connections("other", 5, 0);
    let start = || setup(&server, &redis, licence.clone()).set("licences.default", "issued");
    let [one, other] = two(start).await;
    run(&one, &["licence", "issue", "--id", "issued", "--connections", "1"]).await.good();
    // The command itself takes part of the second.
    let second = Duration::from_millis(1_500);
    let reaches = async |what: &str, wanted: bool| {
        let told = eventually(what, async || {
            let (editor, opened) = other.open(&Open::editor("d", "u")).await;
            (opened.is_admitted() == wanted).then_some(editor)
        });
        tokio::time::timeout(second, told).await.unwrap_or_else(|_| panic!("too late: {what}"))
    };
    drop(reaches("it is issued", true).await);
    run(&one, &["licence", "revoke", "issued"]).await.good();
    drop(reaches("it is revoked", false).await);
    run(&one, &["licence", "reinstate", "issued"]).await.good();
    let _held = reaches("it is reinstated", true).await;
    one.refuse(&Open::editor("d", "second")).await;
}

#[tokio::test]
async fn a_report_is_the_licences() {
    let server = StandIn::start().await;
    let redis = RedisServer::start();
    let licence = LicenceFile::connections(DEFAULT_LICENCE, 4, 0);
    let [one, other] = two(|| setup(&server, &redis, licence.clone())).await;
    // Four at one time, as fast as can be; two of them of the same user.
    let opens = [(&one, "a"), (&other, "b"), (&one, "c"), (&other, "a")];
    let inside = opens.map(|(gateway, user)| async move {
        gateway.open(&Open::editor(&format!("of-{user}"), user)).await.0
    });
    let inside = futures_util::future::join_all(inside).await;
    one.refuse(&Open::editor("d", "too many")).await;
    // And then all of them once more, at the other: never more than four.
    drop(inside);
    let again = opens.map(|(gateway, user)| {
        let gateway = if std::ptr::eq(gateway, &one) { &other } else { &one };
        eventually("there is room again", async move || {
            let open = Open::editor(&format!("of-{user}"), user);
            let (editor, opened) = gateway.open(&open).await;
            matches!(opened, Opened::Admitted(_)).then_some(editor)
        })
    });
    let _again = futures_util::future::join_all(again).await;
    // What the other counted comes to the store when it is asked, too.
    run(&other, &["report"]).await.good();
    let report = run(&one, &["report", "--json"]).await.json();
    let month = &report[0];
    assert_eq!(month["editors"], 3, "unique users: {month}");
    let kind = &month["kinds"][0];
    assert_eq!(
        (&kind["kind"], &kind["peak"], &kind["limit"]),
        (&json!(EDITORS), &json!(4), &json!(4))
    );
    let tally = |of: &str| month[of].as_array().unwrap()[0]["count"].as_u64().unwrap();
    assert!(tally("admitted") >= 8 && tally("refused") >= 1, "{month}");
    assert!(month["sufficient"]["connections"]["peak"].as_u64().unwrap() >= 5, "{month}");
    // Both tell the same, up to what happens in between.
    let theirs = run(&other, &["report", "--json"]).await.json();
    assert_eq!(theirs[0]["kinds"][0]["peak"], 4, "{theirs}");
    for gateway in [&one, &other] {
        gateway.await_seats(EDITORS, 4.0).await;
        let seats = status(gateway).await["tenants"][0]["seats"][0].take();
        assert_eq!((&seats["used"], &seats["free"]), (&json!(4), &json!(0)));
    }
}

#[tokio::test]
async fn an_outage_is_flagged_everywhere_and_overshoot_when_it_is_over() {
    let server = StandIn::start().await;
    let mut redis = RedisServer::start();
    let licence = LicenceFile::connections(DEFAULT_LICENCE, 2, 0);
    let start = || setup(&server, &redis, licence.clone()).set("store.on_failure", "allow");
    let [one, other] = two(start).await;
    let before = status(&one).await;
    assert_eq!(codes(&before), [""; 0]);
    let shared = json!({"connected": true, "counted_alone": 0, "seats_lost": 0, "overshoot": 0});
    assert_eq!(before["store"]["shared"], shared);
    redis.kill();
    for gateway in [&one, &other] {
        eventually("the outage is seen", async || {
            let status = status(gateway).await;
            (codes(&status) == ["counted_alone"]
                && status["store"]["shared"]["connected"] == false
                && status["store"]["shared"]["counted_alone"] == 1)
                .then_some(())
        })
        .await;
        let metrics = gateway.metrics().await;
        assert_eq!(metrics.get("seatgate_store_up", &[]), Some(0.0));
        assert_eq!(metrics.get("seatgate_seats_counted_alone", &[]), Some(1.0));
        let told = run(gateway, &["status"]).await.good();
        assert!(told.out.contains("counted by this gateway alone"), "{told:?}");
    }
    // Each knows of nobody but its own: together they let in twice as many as there are.
    let mut inside = Vec::new();
    for (gateway, user) in [(&one, "a"), (&one, "b"), (&other, "c"), (&other, "d")] {
        inside.push(gateway.admit(&Open::editor("d", user)).await);
    }
    one.refuse(&Open::editor("d", "e")).await;
    one.await_log("counted by this gateway alone").await;
    redis.restart();
    eventually("the overshoot is told", async || {
        let metrics = [one.metrics().await, other.metrics().await];
        let sum = |name: &str| metrics.iter().map(|of| of.get(name, &[]).unwrap()).sum::<f64>();
        let back = sum("seatgate_store_up") == 2.0 && sum("seatgate_seats_counted_alone") == 0.0;
        (back && sum("seatgate_seats_overshoot_total") == 2.0).then_some(())
    })
    .await;
    eventually("the log tells of the overshoot", async || {
        let log = one.log() + &other.log();
        log.contains("more seats are held than the licence has").then_some(())
    })
    .await;
    // Those that found seats beyond the licence say so, until they are given back.
    let tells =
        async |gateway: &Gateway| codes(&status(gateway).await).contains(&"seats_overshoot");
    eventually("the page tells of it", async || {
        (tells(&one).await || tells(&other).await).then_some(())
    })
    .await;
    drop(inside);
    eventually("it is over", async || (!tells(&one).await && !tells(&other).await).then_some(()))
        .await;
    one.await_seats(EDITORS, 0.0).await;
}
