//! What waits for the document server's reply to an open: changes of whom nobody has counted yet, and
//! the end of a session whose id another connection presents.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::editor::event;
use support::gateway::EDITORS;
use support::http::Connection;
use support::raw_server::Step;
use support::{
    AuthReply, Editor, Gateway, LicenceFile, Open, Poller, RawServer, Setup, StandIn, eventually,
};

/// Longer than it takes for what does not wait to arrive.
const A_WHILE: Duration = Duration::from_millis(400);

/// Accepts opens after [`StandIn::release`] only.
async fn slow_server() -> StandIn {
    let server = StandIn::start().await;
    server.on_auth(|_| AuthReply::Hold);
    server
}

fn cursor(at: u32) -> Value {
    json!({"type": "cursor", "cursor": at.to_string()})
}

fn changes(name: &str) -> Value {
    json!({"type": "saveChanges", "changes": format!("[\"{name}\"]"), "startSaveChanges": true})
}

/// The types of the events that came, in their order.
fn kinds(server: &StandIn) -> Vec<String> {
    let kind = |raw: &String| {
        let raw: Value = serde_json::from_str(raw).unwrap();
        raw[1]["type"].as_str().unwrap_or_default().to_owned()
    };
    server.events().iter().map(kind).collect()
}

async fn await_auths(server: &StandIn, count: usize) {
    eventually("the auth is there", async || (server.auths().len() == count).then_some(())).await;
}

async fn await_kinds(server: &StandIn, expected: &[&str]) {
    eventually("the events are there", async || (kinds(server) == expected).then_some(())).await;
}

async fn begin(gateway: &Gateway, open: &Open) -> Editor {
    let mut editor = gateway.dial(open.document()).connect().await;
    editor.greet(open).await;
    editor.send(&open.auth_packet()).await.unwrap();
    editor
}

#[tokio::test]
async fn changes_wait_until_their_user_is_counted() {
    let server = slow_server().await;
    let gateway = Gateway::users(&server, 9, 0).await;
    let mut editor = begin(&gateway, &Open::editor("d", "new")).await;
    editor.say(&cursor(1)).await;
    // However it is written.
    let odd = r#"42["message",{"changes":"[]","type":"save\u0043hanges"}]"#;
    editor.send(odd).await.unwrap();
    editor.say(&cursor(2)).await;
    editor.say(&changes("b")).await;
    await_kinds(&server, &["cursor"]).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(kinds(&server), ["cursor"], "what follows does not overtake");
    server.release();
    assert!(editor.verdict().await.is_admitted());
    await_kinds(&server, &["cursor", "saveChanges", "cursor", "saveChanges"]).await;
    editor.say(&changes("c")).await;
    await_kinds(&server, &["cursor", "saveChanges", "cursor", "saveChanges", "saveChanges"]).await;
    assert_eq!(gateway.seats("default", "editor_users").await, 1.0);
}

#[tokio::test]
async fn changes_wait_over_polling_too() {
    let server = slow_server().await;
    let gateway = Gateway::users(&server, 9, 0).await;
    let open = Open::editor("d", "new");
    let mut poller = Poller::connect(gateway.addr, "d").await;
    poller.greet(&open).await;
    // With the open, and after it.
    let (auth, target, to) = (open.auth_packet(), poller.target.clone(), gateway.addr);
    let posted = tokio::spawn(async move {
        let body = [auth, event(&cursor(1)), event(&changes("a")), event(&cursor(2))];
        support::Call::post(&target, body.join("\u{1e}")).send(to).await
    });
    await_kinds(&server, &["cursor"]).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(kinds(&server), ["cursor"]);
    assert!(!posted.is_finished());
    server.release();
    assert!(poller.verdict().await.is_admitted());
    assert_eq!(posted.await.unwrap().text(), "ok");
    await_kinds(&server, &["cursor", "saveChanges", "cursor"]).await;
    assert_eq!(poller.post(&[&event(&changes("b"))]).await.text(), "ok");
    await_kinds(&server, &["cursor", "saveChanges", "cursor", "saveChanges"]).await;
}

#[tokio::test]
async fn no_change_is_too_long_to_wait_nor_kept_in_memory() {
    let server = slow_server().await;
    let gateway = Gateway::users(&server, 9, 0).await;
    let mut editor = begin(&gateway, &Open::editor("d", "new")).await;
    await_auths(&server, 1).await;
    let before = gateway.resident_bytes();
    let long = event(&changes(&"y".repeat(30 << 20)));
    let (sent, ()) = tokio::join!(editor.send(&long), async {
        tokio::time::sleep(A_WHILE).await;
        let more = gateway.resident_bytes().saturating_sub(before);
        assert!(more < 16 << 20, "{more} bytes");
        assert_eq!(kinds(&server), [""; 0]);
        server.release();
    });
    sent.unwrap();
    await_kinds(&server, &["saveChanges"]).await;
    assert!(editor.verdict().await.is_admitted());
    // The first one behind the reply is no other.
    let (mut editor, opened) = {
        let next = Open::editor("d", "next");
        let mut editor = begin(&gateway, &next).await;
        await_auths(&server, 2).await;
        server.release();
        let opened = editor.verdict().await;
        (editor, opened)
    };
    assert!(opened.is_admitted());
    editor.send(&long).await.unwrap();
    await_kinds(&server, &["saveChanges", "saveChanges"]).await;
}

/// The server fails one of two opens alike and accepts the other: the gateway cannot tell which.
#[tokio::test]
async fn an_open_beside_one_that_failed_is_counted_too() {
    for polled in [false, true] {
        let server = StandIn::start().await;
        let gateway = Gateway::users(&server, 1, 0).await;
        let auths = AtomicUsize::new(0);
        server.on_auth(move |_| match auths.fetch_add(1, Ordering::Relaxed) {
            0 => AuthReply::Fail,
            _ => AuthReply::Hold,
        });
        let open = Open::editor("d", "sly").with("encrypted", true);
        let (auth, save) = (open.auth_packet(), event(&changes("a")));
        let ends = if polled {
            let mut poller = Poller::connect(gateway.addr, "d").await;
            poller.greet(&open).await;
            poller.post(&[&auth, &auth]).await;
            while poller.hear().await.kind() != "error" {}
            let (target, to) = (poller.target.clone(), gateway.addr);
            let posted =
                tokio::spawn(async move { support::Call::post(&target, save).send(to).await });
            tokio::time::sleep(A_WHILE).await;
            assert_eq!(kinds(&server), [""; 0]);
            server.release();
            assert!(poller.verdict().await.is_admitted());
            posted.await.unwrap();
            poller.post(&["41", "1"]).await.text()
        } else {
            let mut editor = begin(&gateway, &open).await;
            editor.send(&auth).await.unwrap();
            editor.hear_message("error").await;
            editor.send(&save).await.unwrap();
            tokio::time::sleep(A_WHILE).await;
            assert_eq!(kinds(&server), [""; 0]);
            server.release();
            assert!(editor.verdict().await.is_admitted());
            await_kinds(&server, &["saveChanges"]).await;
            editor.goodbye().await;
            "ok".to_owned()
        };
        assert_eq!(ends, "ok");
        await_kinds(&server, &["saveChanges"]).await;
        gateway.await_seats(EDITORS, 0.0).await;
        assert_eq!(gateway.seats("default", "editor_users").await, 1.0, "polled: {polled}");
        gateway.refuse(&Open::editor("d", "other")).await;
    }
}

#[tokio::test]
async fn changes_on_a_web_socket_wait_for_an_open_that_was_polled() {
    let server = StandIn::start().await;
    let gateway = Gateway::users(&server, 9, 0).await;
    let open = Open::editor("d", "new");
    let mut poller = Poller::connect(gateway.addr, "d").await;
    poller.greet(&open).await;
    server.on_auth(|_| AuthReply::Hold);
    poller.post(&[&open.auth_packet()]).await;
    await_auths(&server, 1).await;
    let mut editor = poller.upgrade().await;
    editor.say(&changes("a")).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(kinds(&server), [""; 0]);
    server.release();
    assert!(editor.verdict().await.is_admitted());
    await_kinds(&server, &["saveChanges"]).await;
}

#[tokio::test]
async fn whoever_is_counted_or_holds_a_seat_saves_at_once() {
    let server = StandIn::start().await;
    let users = Gateway::users(&server, 9, 0).await;
    users.admit(&Open::editor("d", "known")).await.goodbye().await;
    let connections = Gateway::connections(&server, 9, 0).await;
    let observed = Setup::before(server.addr)
        .default_licence(|id| LicenceFile::users(id, 9, 0))
        .set("enforcement.mode", "observe")
        .start()
        .await;
    server.on_auth(|_| AuthReply::Hold);
    for (gateway, user) in [(&users, "known"), (&connections, "new"), (&observed, "new")] {
        server.forget();
        let before = kinds(&server).len();
        let mut editor = begin(gateway, &Open::editor("d", user)).await;
        await_auths(&server, 1).await;
        editor.say(&changes("a")).await;
        eventually("the change is there", async || (kinds(&server).len() > before).then_some(()))
            .await;
    }
}

#[tokio::test]
async fn changes_of_a_client_that_is_gone_are_not_lost() {
    let server = slow_server().await;
    let gateway = Gateway::users(&server, 9, 0).await;
    for (gone, leave) in [("closed", false), ("reset", true)] {
        let before = (server.auths().len(), kinds(&server).len());
        let mut editor = begin(&gateway, &Open::editor("d", gone)).await;
        await_auths(&server, before.0 + 1).await;
        editor.say(&changes(gone)).await;
        tokio::time::sleep(A_WHILE).await;
        if leave {
            editor.reset()
        } else {
            editor.hang_up().await
        }
        tokio::time::sleep(A_WHILE).await;
        assert_eq!(kinds(&server).len(), before.1, "{gone}: not before the user is counted");
        server.release();
        eventually(&format!("{gone}: the change is there"), async || {
            (kinds(&server).len() > before.1).then_some(())
        })
        .await;
    }
    gateway.await_connections("websocket", 0.0).await;
    assert_eq!(gateway.seats("default", "editor_users").await, 2.0);
}

#[tokio::test]
async fn nobody_is_put_out_by_an_open_that_the_server_does_not_accept() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 1, 0).await;
    let (mut editor, opened) = gateway.open(&Open::editor("d", "ann")).await;
    let session = opened.reply()["sessionId"].clone();
    let same = Open::editor("d", "ann").with("sessionId", session);
    server.on_auth(|_| AuthReply::Refuse(4006));
    for _ in 0..3 {
        let (_, opened) = gateway.open(&same).await;
        assert!(!opened.is_admitted());
        let (_, opened) = Poller::open(gateway.addr, &same).await;
        assert!(!opened.is_admitted());
    }
    editor.say(&json!({"type": "isSaveLock", "syncChangesIndex": 0})).await;
    editor.hear_message("saveLock").await;
    assert_eq!(gateway.seats("default", EDITORS).await, 1.0);
    gateway.refuse(&Open::editor("d", "bob")).await;

    server.on_auth(|_| AuthReply::Accept);
    let back = gateway.admit(&same).await;
    assert_eq!(editor.hear_message("disconnectReason").await["code"], 4007);
    assert_eq!(gateway.seats("default", EDITORS).await, 1.0);
    back.goodbye().await;
    gateway.await_seats(EDITORS, 0.0).await;
}

/// The document server's own way with a client that fell silent: its close frame, and then half a
/// minute of patience.
#[tokio::test]
async fn a_silent_clients_connection_ends_when_the_server_closes_it() {
    let server = RawServer::start(|request| {
        let text = String::from_utf8_lossy(&request.head).to_ascii_lowercase();
        if !text.contains("upgrade: websocket") {
            return Step::Send(support::raw_server::ok("{}"));
        }
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        Step::Send([head.as_bytes(), &[0x88, 2, 3, 0xed]].concat())
    })
    .await;
    let gateway = Setup::before(server.addr).start().await;
    let mut client = Connection::open(gateway.addr).await.unwrap();
    let handshake = "GET /doc/d/c/?EIO=4&transport=websocket HTTP/1.1\r\nHost: d\r\nConnection: \
                     Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let began = Instant::now();
    client.write(handshake.as_bytes()).await.unwrap();
    let heard = client.read_to_end().await;
    assert!(heard.ends_with(&[0x88, 2, 3, 0xed]), "{heard:?}");
    gateway.await_connections("websocket", 0.0).await;
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
}
