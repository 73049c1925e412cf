//! Who gets a seat, who does not, and when a seat comes back: over real sockets, against the
//! rules of PRODUCT.md ("What a seat is") and WIRE.md (section 3).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use support::editor::Refusal;
use support::gateway::{DEFAULT_LICENCE, EDITOR_USERS, EDITORS, VIEWER_USERS, VIEWERS};
use support::real_client::RealClient;
use support::{
    AuthReply, Editor, Gateway, Heard, LicenceFile, Open, Opened, Setup, StandIn, eventually,
};

// --- the limit -----------------------------------------------------------------------------------

#[tokio::test]
async fn two_of_three_are_let_in() {
    let server = StandIn::start().await;
    for by_user in [false, true] {
        let gateway = if by_user {
            Gateway::users(&server, 2, 2).await
        } else {
            Gateway::connections(&server, 2, 2).await
        };
        let (editors, viewers) =
            if by_user { (EDITOR_USERS, VIEWER_USERS) } else { (EDITORS, VIEWERS) };
        let reasons =
            if by_user { ["users", "users_view"] } else { ["connections", "connections_view"] };
        server.forget();
        let mut inside = Vec::new();
        for make in [Open::editor, Open::live_viewer] {
            for user in ["one", "two"] {
                inside.push(gateway.admit(&make("d", user)).await);
            }
            gateway.refuse(&make("d", "three")).await;
        }
        for user in ["four", "five", "six"] {
            inside.push(gateway.admit(&Open::viewer("d", user)).await);
        }
        gateway.await_seats(editors, 2.0).await;
        gateway.await_seats(viewers, 2.0).await;
        assert!(!server.users().contains(&"three".to_owned()), "the server never saw the refused");
        let what = "the refused left no session behind";
        eventually(what, async || (server.sockets() == 7).then_some(())).await;
        assert_eq!(gateway.admissions("editor", "rejected", reasons[0]).await, 1.0);
        assert_eq!(gateway.admissions("live_viewer", "rejected", reasons[1]).await, 1.0);
        for (class, admitted) in [("editor", 2.0), ("live_viewer", 2.0), ("viewer", 3.0)] {
            assert_eq!(gateway.admissions(class, "admitted", "none").await, admitted, "{class}");
        }
        let metrics = gateway.metrics().await;
        for kind in [editors, viewers] {
            let labels = [("tenant", "default"), ("kind", kind)];
            assert_eq!(metrics.get("seatgate_seats_limit", &labels), Some(2.0), "{kind}");
        }
        let plain = metrics.get("seatgate_viewers_unlimited", &[("tenant", "default")]);
        assert_eq!(plain, Some(3.0));
        gateway.await_connections("websocket", 7.0).await;
    }
}

#[tokio::test]
async fn a_refusal_is_said_so_that_no_editor_comes_back() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 0, 0).await;
    let open = Open::editor("d", "u");
    let mut editor = gateway.dial("d").connect().await;
    editor.greet(&open).await;
    editor.send(&open.auth_packet()).await.unwrap();
    let heard = editor.hear_out().await;
    assert_eq!(heard[0].kind(), "disconnectReason");
    assert_eq!(heard[0].message()["code"], 4004);
    assert!(heard[0].message()["description"].is_string());
    assert_eq!(heard[1], Heard::Text("41".to_owned()));
    assert!(matches!(heard[2], Heard::Close(_)), "{heard:?}");
    assert_eq!(heard.len(), 4, "and nothing else: {heard:?}");
    assert!(server.auths().is_empty());
    eventually("the server's side is closed", async || (server.sockets() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_real_client_understands_admission_and_refusal() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 1, 0).await;
    for (user, kind) in [("in", "auth"), ("out", "disconnectReason")] {
        let open = Open::editor("d", user);
        let mut client = RealClient::connect(gateway.addr, &open).await;
        assert_eq!(client.hear().await["type"], "license");
        client.say(&open.message).await;
        let answer = client.hear().await;
        assert_eq!(answer["type"], kind);
        if user == "in" {
            // Keeps its seat while the other one tries.
            std::mem::forget(client);
        } else {
            assert_eq!(answer["code"], 4004);
            assert_eq!(client.hear().await, Value::Null, "the session ends");
        }
    }
}

#[tokio::test]
async fn the_same_person_twice_takes_two_connections_but_is_one_user() {
    let server = StandIn::start().await;
    let open = Open::editor("d", "same");
    let by_connection = Gateway::connections(&server, 1, 0).await;
    let _first = by_connection.admit(&open).await;
    by_connection.refuse(&open).await;
    let by_user = Gateway::users(&server, 1, 0).await;
    let _tabs = (by_user.admit(&open).await, by_user.admit(&open).await);
    by_user.refuse(&Open::editor("d", "another")).await;
    by_user.await_seats(EDITOR_USERS, 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_300_at_once_exactly_50_get_in() {
    for by_user in [false, true] {
        let server = StandIn::start().await;
        let gateway = if by_user {
            Gateway::users(&server, 50, 0).await
        } else {
            Gateway::connections(&server, 50, 0).await
        };
        let opens: Vec<Open> = (0..300)
            .map(|number| Open::editor(&format!("d{}", number % 30), &format!("u{number}")))
            .collect();
        // All are connected before the first says `auth`.
        let mut editors: Vec<Editor> = join_all(opens.iter().map(async |open| {
            let mut editor = gateway.dial(open.document()).connect().await;
            editor.greet(open).await;
            editor
        }))
        .await;
        let together = editors.iter_mut().zip(&opens);
        let opened =
            join_all(together.map(async |(editor, open)| editor.authenticate(open).await)).await;
        let admitted = opened.iter().filter(|opened| opened.is_admitted()).count();
        assert_eq!(admitted, 50, "by_user: {by_user}");
        for refused in opened.iter().filter(|opened| !opened.is_admitted()) {
            refused.assert_refused();
        }
        assert_eq!(server.auths().len(), 50);
        let kind = if by_user { EDITOR_USERS } else { EDITORS };
        gateway.await_seats(kind, 50.0).await;
    }
}

// --- seats come back -----------------------------------------------------------------------------

/// Opens an editor on a licence of one, lets `leave` end it, and expects the seat back.
async fn seat_comes_back(server: &StandIn, what: &str, leave: impl AsyncFnOnce(&Gateway, Editor)) {
    let gateway = Gateway::connections(server, 1, 0).await;
    let editor = gateway.admit(&Open::editor("d", "leaver")).await;
    gateway.await_seats(EDITORS, 1.0).await;
    leave(&gateway, editor).await;
    gateway.await_seats(EDITORS, 0.0).await;
    let _next = gateway.admit(&Open::editor("d", "next")).await;
    eventually(what, async || (server.sockets() == 1).then_some(())).await;
}

#[tokio::test]
async fn a_goodbye_gives_the_seat_back() {
    let server = StandIn::start().await;
    seat_comes_back(&server, "goodbye", async |_, editor| editor.goodbye().await).await;
}

#[tokio::test]
async fn a_reset_gives_the_seat_back() {
    let server = StandIn::start().await;
    seat_comes_back(&server, "reset", async |_, editor| editor.reset()).await;
}

#[tokio::test]
async fn a_closed_connection_gives_the_seat_back() {
    let server = StandIn::start().await;
    seat_comes_back(&server, "hang-up", async |_, editor| editor.hang_up().await).await;
}

#[tokio::test]
async fn silence_gives_the_seat_back() {
    let heartbeat = Duration::from_millis(300);
    let server = StandIn::builder().heartbeat(heartbeat, heartbeat).start().await;
    let mut silent = None;
    seat_comes_back(&server, "silence", async |gateway, editor| {
        silent = Some(editor.fall_silent());
        gateway.await_seats(EDITORS, 0.0).await;
    })
    .await;
}

#[tokio::test]
async fn the_servers_goodbye_gives_the_seat_back() {
    let server = StandIn::start().await;
    seat_comes_back(&server, "kick", async |_, mut editor| {
        server.kick("leaver", 4001);
        let Opened::Refused(refusal) = editor.verdict().await else { panic!("still in") };
        assert_eq!(refusal, Refusal::proper(4001), "the client hears all of it");
    })
    .await;
}

#[tokio::test]
async fn a_server_that_cuts_gives_the_seat_back() {
    let server = StandIn::start().await;
    seat_comes_back(&server, "cut", async |_, mut editor| {
        server.cut("leaver");
        assert_eq!(editor.hear_out().await.last(), Some(&Heard::End), "the client is let go");
    })
    .await;
}

#[tokio::test]
async fn an_editor_who_gives_up_editing_gives_the_seat_back() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 1, 0).await;
    let mut stays = gateway.admit(&Open::editor("d", "quits")).await;
    stays.say(&json!({"type": "close"})).await;
    stays.hear_message("refreshToken").await;
    gateway.await_seats(EDITORS, 0.0).await;
    let _next = gateway.admit(&Open::editor("d", "next")).await;
    assert_eq!(server.sockets(), 2, "who gave up stays as a viewer");
}

#[tokio::test]
async fn an_open_that_the_server_refuses_takes_no_seat_and_counts_no_user() {
    let server = StandIn::start().await;
    for (reply, what) in
        [(AuthReply::Refuse(4004), "refused"), (AuthReply::Cut, "cut"), (AuthReply::Hang, "hung")]
    {
        for by_user in [false, true] {
            let gateway = if by_user {
                Gateway::users(&server, 1, 0).await
            } else {
                Gateway::connections(&server, 1, 0).await
            };
            server.on_auth(move |_| reply);
            let open = Open::editor("d", "unlucky");
            let mut editor = gateway.dial("d").connect().await;
            editor.greet(&open).await;
            editor.send(&open.auth_packet()).await.unwrap();
            if matches!(reply, AuthReply::Hang) {
                eventually("the server saw it", async || {
                    server.users().contains(&"unlucky".to_owned()).then_some(())
                })
                .await;
                editor.hang_up().await;
            } else {
                assert!(!editor.verdict().await.is_admitted());
            }
            let kind = if by_user { EDITOR_USERS } else { EDITORS };
            gateway.await_seats(kind, 0.0).await;
            server.on_auth(|_| AuthReply::Accept);
            let _next = gateway.admit(&Open::editor("d", &format!("after {what}"))).await;
            server.forget();
        }
    }
}

#[tokio::test]
async fn a_seat_is_held_while_the_server_thinks() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 1, 0).await;
    server.on_auth(|_| AuthReply::Hold);
    let open = Open::editor("d", "first");
    let mut first = gateway.dial("d").connect().await;
    first.greet(&open).await;
    first.send(&open.auth_packet()).await.unwrap();
    eventually("the server thinks", async || (server.auths().len() == 1).then_some(())).await;
    gateway.refuse(&Open::editor("d", "second")).await;
    server.release();
    first.verdict().await.reply();
    server.on_auth(|_| AuthReply::WaitThenAccept);
    let mut viewer = gateway.dial("d").connect().await;
    let open = Open::viewer("d", "third");
    viewer.greet(&open).await;
    viewer.send(&open.auth_packet()).await.unwrap();
    assert_eq!(viewer.hear().await.kind(), "waitAuth");
    viewer.verdict().await.reply();
}

#[tokio::test]
async fn a_goodbye_is_no_lost_connection() {
    let server = StandIn::start().await;
    let gateway = Setup::before(server.addr)
        .default_licence(|id| LicenceFile::connections(id, 1, 0))
        .set("enforcement.reconnect_grace", "60s")
        .start()
        .await;
    gateway.admit(&Open::editor("d", "one")).await.goodbye().await;
    gateway.await_seats(EDITORS, 0.0).await;
}

#[tokio::test]
async fn a_lost_connection_keeps_its_seat_for_the_same_session() {
    let server = StandIn::start().await;
    let gateway = Setup::before(server.addr)
        .default_licence(|id| LicenceFile::connections(id, 1, 0))
        .set("enforcement.reconnect_grace", "60s")
        .start()
        .await;
    let open = Open::editor("d", "lost");
    let (editor, opened) = gateway.open(&open).await;
    let session = opened.reply()["sessionId"].as_str().unwrap().to_owned();
    editor.reset();
    eventually("the gateway knows that it is lost", async || {
        let labels = [("tenant", "default"), ("kind", EDITORS)];
        let metrics = gateway.metrics().await;
        (metrics.get("seatgate_seats_grace", &labels) == Some(1.0)).then_some(())
    })
    .await;
    gateway.refuse(&Open::editor("d", "another")).await;
    let _back = gateway.admit(&open.with("sessionId", session)).await;
    assert_eq!(gateway.seats("default", EDITORS).await, 1.0);
}

// --- users ---------------------------------------------------------------------------------------

#[tokio::test]
async fn a_unique_user_stays_counted() {
    let server = StandIn::start().await;
    let gateway = Gateway::users(&server, 1, 1).await;
    gateway.admit(&Open::editor("d", "regular")).await.goodbye().await;
    eventually("has left", async || (server.sockets() == 0).then_some(())).await;
    gateway.refuse(&Open::editor("d", "new")).await;
    let _back = gateway.admit(&Open::editor("other", "regular")).await;
    // Editors and live viewers are separate sets.
    let _viewer = gateway.admit(&Open::live_viewer("d", "new")).await;
    gateway.refuse(&Open::live_viewer("d", "regular")).await;
    gateway.await_seats(EDITOR_USERS, 1.0).await;
    gateway.await_seats(VIEWER_USERS, 1.0).await;
}

#[tokio::test]
async fn odd_user_ids_are_users() {
    let server = StandIn::start().await;
    let gateway = Gateway::users(&server, 3, 0).await;
    let with_id = |id: Value| {
        Open::editor("d", "x").with("user", json!({"id": id, "username": "n", "indexUser": -1}))
    };
    let _number = gateway.admit(&with_id(json!(123))).await;
    let _same = gateway.admit(&with_id(json!("123"))).await;
    let _text = gateway.admit(&with_id(json!("用户 \u{1f600} \"'\\"))).await;
    let _null = gateway.admit(&with_id(Value::Null)).await;
    gateway.await_seats(EDITOR_USERS, 3.0).await;
}

// --- licences ------------------------------------------------------------------------------------

#[tokio::test]
async fn a_licence_that_does_not_hold_lets_nobody_edit() {
    let server = StandIn::start().await;
    for (date, when, reason, result) in [
        ("end", "2020-01-01T00:00:00Z", "licence_expired", 2.0),
        ("start", "2999-01-01T00:00:00Z", "licence_not_started", 16.0),
    ] {
        let licence = |id: &str| LicenceFile::connections(id, 9, 9).at(date, when);
        let gateway = Setup::before(server.addr).default_licence(licence).start().await;
        assert_nobody_edits(&gateway, reason, result).await;
    }
    let gateway =
        Setup::before(server.addr).set("licences.default", "no-such-licence").start().await;
    assert_nobody_edits(&gateway, "licence_missing", 1.0).await;
    assert!(server.users().iter().all(|user| user == "reader"), "{:?}", server.users());
}

async fn assert_nobody_edits(gateway: &Gateway, reason: &str, result: f64) {
    gateway.refuse(&Open::editor("d", "u")).await;
    gateway.refuse(&Open::live_viewer("d", "u")).await;
    let _reader = gateway.admit(&Open::viewer("d", "reader")).await;
    assert_eq!(gateway.admissions("editor", "rejected", reason).await, 1.0);
    assert_eq!(gateway.admissions("live_viewer", "rejected", reason).await, 1.0);
    let metrics = gateway.metrics().await;
    let shown = metrics.get("seatgate_licence_result", &[("tenant", "default")]);
    assert_eq!(shown, Some(result), "{reason}");
}

#[tokio::test]
async fn tenants_have_their_own_seats() {
    let server = StandIn::start().await;
    let gateway = Setup::before(server.addr)
        .licence(LicenceFile::connections("licence-a", 1, 0))
        .licence(LicenceFile::connections("licence-shared", 1, 0))
        .tenant("a", &["a.example"], "licence-a")
        .tenant("b", &["b.example", "*.b.example"], "licence-shared")
        .tenant("c", &["c.example"], "licence-shared")
        .start()
        .await;
    let at = |host: &str| gateway.dial("d").host(host);
    let open = |user: &str| Open::editor("d", user);
    let _a = at("a.example").admit(&open("a1")).await;
    at("A.Example:8080").refuse(&open("a2")).await;
    // Who shares a licence shares its seats.
    let _b = at("x.b.example").admit(&open("b1")).await;
    at("b.example").refuse(&open("b2")).await;
    at("c.example").refuse(&open("c1")).await;
    // Everybody else is the default tenant.
    let _others =
        (at("elsewhere.example").admit(&open("d1")).await, gateway.admit(&open("d2")).await);
    at("nota.example").refuse(&open("d3")).await;
    assert_eq!(gateway.seats("a", EDITORS).await, 1.0);
    assert_eq!(gateway.seats("default", EDITORS).await, 2.0);
    let metrics = gateway.metrics().await;
    for (tenant, licence) in
        [("a", "licence-a"), ("c", "licence-shared"), ("default", DEFAULT_LICENCE)]
    {
        let labels = [("tenant", tenant), ("licence", licence)];
        assert_eq!(metrics.get("seatgate_tenant_info", &labels), Some(1.0), "{tenant}");
    }
}

#[tokio::test]
async fn a_strangers_forwarded_host_chooses_no_tenant() {
    let server = StandIn::start().await;
    let gateway = Setup::before(server.addr)
        .set("server.trusted_proxies", vec!["127.0.0.2/32"])
        .default_licence(|id| LicenceFile::connections(id, 0, 0))
        .licence(LicenceFile::connections("licence-a", 9, 9))
        .tenant("a", &["a.example"], "licence-a")
        .start()
        .await;
    let dial = || gateway.dial("d").host("x.example").header("X-Forwarded-Host", "a.example");
    let open = Open::editor("d", "u");
    dial().from("127.0.0.1").refuse(&open).await;
    let _behind_a_proxy = dial().from("127.0.0.2").admit(&open).await;
}
