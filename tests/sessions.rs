//! What kind of seat a session takes, what changes it, and that an admitted session is passed
//! through: over real sockets, against WIRE.md (section 3) and INTERFACE.md ("Policy").
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::editor::{Dial, event};
use support::frames::{Frame, Style};
use support::gateway::{DEFAULT_LICENCE, EDITOR_USERS, EDITORS, VIEWERS};
use support::{Editor, Gateway, LicenceFile, Open, Setup, StandIn, eventually, tokens};

// --- classes -------------------------------------------------------------------------------------

/// Opens `open`, expects so many seats of editors and viewers to be taken, and leaves again.
async fn takes(gateway: &Gateway, open: &Open, (editors, viewers): (f64, f64), what: &str) {
    let editor = gateway.admit(open).await;
    let taken = (gateway.seats("default", EDITORS).await, gateway.seats("default", VIEWERS).await);
    assert_eq!(taken, (editors, viewers), "{what}");
    editor.goodbye().await;
    gateway.await_seats(EDITORS, 0.0).await;
    gateway.await_seats(VIEWERS, 0.0).await;
}

#[tokio::test]
async fn the_class_follows_mode_permissions_and_co_editing() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 9, 9).await;
    let may = |value: Value| Open::editor("d", "u").permissions(value);
    let view = |open: Open| open.with("mode", "view");
    for (open, editors, viewers, what) in [
        (may(json!({"edit": true})), 1.0, 0.0, "edits"),
        (may(json!({})), 1.0, 0.0, "edits: nothing is forbidden"),
        (may(Value::Null), 1.0, 0.0, "edits: no permissions at all"),
        (may(json!({"edit": false, "comment": true})), 1.0, 0.0, "comments"),
        (may(json!({"edit": false, "review": true})), 1.0, 0.0, "reviews"),
        (may(json!({"edit": false, "fillForms": true})), 1.0, 0.0, "fills forms"),
        (may(json!({"edit": false, "comment": "yes"})), 0.0, 1.0, "only `true` counts"),
        (may(json!({"edit": false})), 0.0, 1.0, "may not edit, fast"),
        (may(json!({"edit": 0})), 1.0, 0.0, "only `false` forbids"),
        (view(may(json!({"edit": true}))), 0.0, 1.0, "views, fast"),
        (view(may(json!({"edit": false, "comment": true}))), 0.0, 1.0, "views, may comment"),
        (Open::editor("d", "u").with("mode", Value::Null), 1.0, 0.0, "no mode"),
        (Open::editor("d", "u").with("mode", "VIEW"), 1.0, 0.0, "no mode that exists"),
        (Open::editor("d", "u").with("coEditingMode", "strict"), 1.0, 0.0, "edits, strict"),
        (Open::viewer("d", "u"), 0.0, 0.0, "views, strict"),
        (Open::viewer("d", "u").with("coEditingMode", Value::Null), 0.0, 0.0, "views, unsaid"),
    ] {
        takes(&gateway, &open, (editors, viewers), what).await;
    }
}

#[tokio::test]
async fn a_licence_without_live_viewers_makes_them_plain() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 1, 0).await;
    let mut inside = Vec::new();
    for user in ["a", "b", "c"] {
        inside.push(gateway.admit(&Open::live_viewer("d", user)).await);
    }
    for auth in server.auths() {
        assert_eq!(auth.message["coEditingMode"], "strict");
        assert_eq!(auth.message["permissions"], json!({"edit": false}));
    }
    assert_eq!(gateway.seats("default", VIEWERS).await, 0.0);
}

fn claims(user: &str, mode: &str, permissions: Value, co_editing: &str) -> Value {
    json!({
        "document": {"key": "d", "permissions": permissions},
        "editorConfig": {"mode": mode, "user": {"id": user}, "coEditing": {"mode": co_editing}},
    })
}

#[tokio::test]
async fn the_tokens_claims_are_the_truth() {
    let server = StandIn::builder().secret(tokens::SECRET).start().await;
    let setup = Setup::before(server.addr).set("document_server.token_secret", tokens::SECRET);
    let gateway = setup.default_licence(|id| LicenceFile::connections(id, 9, 9)).start().await;
    let edit = || json!({"edit": true});
    let read = || json!({"edit": false});
    let said = |open: Open, claims: Value| open.token(&tokens::sign(tokens::SECRET, &claims));
    let viewer = || Open::viewer("d", "said").permissions(json!({"edit": true}));
    for (open, editors, viewers, what) in [
        (said(Open::editor("d", "x"), claims("t", "edit", edit(), "fast")), 1.0, 0.0, "edits"),
        (
            said(Open::editor("d", "x").permissions(read()), claims("t", "edit", read(), "fast")),
            0.0,
            1.0,
            "the token forbids editing",
        ),
        (said(Open::editor("d", "x"), claims("t", "view", edit(), "fast")), 0.0, 1.0, "views"),
        (said(viewer(), claims("t", "edit", edit(), "strict")), 0.0, 0.0, "says view itself"),
        (said(viewer(), claims("t", "edit", edit(), "fast")), 0.0, 1.0, "says strict, is fast"),
    ] {
        takes(&gateway, &open, (editors, viewers), what).await;
    }
}

#[tokio::test]
async fn the_user_is_the_tokens() {
    let server = StandIn::builder().secret(tokens::SECRET).start().await;
    let setup = Setup::before(server.addr).set("document_server.token_secret", tokens::SECRET);
    let gateway = setup.default_licence(|id| LicenceFile::users(id, 1, 0)).start().await;
    let signed = |said: &str, user: &str| {
        let claims = claims(user, "edit", json!({"edit": true}), "fast");
        Open::editor("d", said).token(&tokens::sign(tokens::SECRET, &claims))
    };
    let _first = gateway.admit(&signed("a", "boss")).await;
    let _second = gateway.admit(&signed("b", "boss")).await;
    gateway.refuse(&signed("boss", "another")).await;
    assert_eq!(gateway.seats("default", EDITOR_USERS).await, 1.0);
}

#[tokio::test]
async fn bad_tokens_take_no_seat() {
    let server = StandIn::builder().secret(tokens::SECRET).start().await;
    let setup = Setup::before(server.addr).set("document_server.token_secret", tokens::SECRET);
    let gateway = setup.default_licence(|id| LicenceFile::users(id, 9, 0)).start().await;
    let good = claims("u", "edit", json!({"edit": true}), "fast");
    let mut expired = good.clone();
    expired["exp"] = json!(tokens::now() - 3600);
    let none = Open::editor("d", "u");
    for (open, what) in [
        (none.clone(), "no token"),
        (none.clone().token(&tokens::sign("wrong", &good)), "a wrong secret"),
        (none.clone().token(&tokens::unsigned(&good)), "no signature"),
        (none.clone().token("garbage"), "garbage"),
        (none.clone().token(&tokens::sign(tokens::SECRET, &expired)), "expired"),
    ] {
        let mut editor = gateway.dial("d").connect().await;
        editor.handshake().await;
        editor.send(&open.connect_packet()).await.unwrap();
        let _ = editor.send(&open.auth_packet()).await;
        let opened = editor.verdict().await;
        assert!(!opened.is_admitted(), "{what}");
        assert_eq!(gateway.seats("default", EDITOR_USERS).await, 0.0, "{what}");
    }
}

// --- one socket, several auths -------------------------------------------------------------------

#[tokio::test]
async fn a_second_auth_changes_the_class() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 1, 1).await;
    let mut editor = gateway.admit(&Open::editor("d", "u")).await;
    // The same again counts once.
    editor.authenticate(&Open::editor("d", "u")).await.reply();
    assert_eq!(gateway.seats("default", EDITORS).await, 1.0);
    // To live viewer: the editor's seat is free.
    editor.authenticate(&Open::live_viewer("d", "u")).await.reply();
    gateway.await_seats(EDITORS, 0.0).await;
    gateway.await_seats(VIEWERS, 1.0).await;
    let other = gateway.admit(&Open::editor("d", "other")).await;
    // To plain viewer.
    editor.authenticate(&Open::viewer("d", "u")).await.reply();
    gateway.await_seats(VIEWERS, 0.0).await;
    // A plain viewer cannot slip into a full house.
    editor.authenticate(&Open::editor("d", "u")).await.assert_refused();
    other.goodbye().await;
    gateway.await_seats(EDITORS, 0.0).await;
}

/// Sends both opens in one write, before the server answered the first.
async fn in_one_breath(editor: &mut Editor, opens: [&Open; 2]) {
    let frames = opens.map(|open| Frame::text(&open.auth_packet()).encode());
    editor.send_raw(&frames.concat()).await.unwrap();
}

#[tokio::test]
async fn two_auths_in_one_breath_take_one_seat() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 1, 0).await;
    let open = Open::editor("d", "u");
    for second in [Open::editor("d", "u"), Open::editor("other", "u")] {
        let mut editor = gateway.dial("d").connect().await;
        editor.greet(&open).await;
        in_one_breath(&mut editor, [&open, &second]).await;
        editor.verdict().await.reply();
        editor.verdict().await.reply();
        assert_eq!(gateway.seats("default", EDITORS).await, 1.0);
        editor.goodbye().await;
        gateway.await_seats(EDITORS, 0.0).await;
    }
}

#[tokio::test]
async fn an_editor_cannot_hide_behind_a_viewer_in_one_breath() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 0, 0).await;
    let (viewer, editor) = (Open::viewer("d", "sly"), Open::editor("d", "sly"));
    for both in [[&viewer, &editor], [&editor, &viewer]] {
        let mut sly = gateway.dial("d").connect().await;
        sly.greet(&viewer).await;
        in_one_breath(&mut sly, both).await;
        let heard = sly.hear_out().await;
        assert!(heard.iter().any(|heard| heard.kind() == "disconnectReason"), "{heard:?}");
        let auths = server.auths();
        assert!(auths.iter().all(|auth| auth.message["mode"] == "view"), "{auths:?}");
    }
}

#[tokio::test]
async fn a_second_auth_changes_the_user() {
    let server = StandIn::start().await;
    let gateway = Gateway::users(&server, 2, 0).await;
    let mut editor = gateway.admit(&Open::editor("d", "one")).await;
    editor.authenticate(&Open::editor("d", "two")).await.reply();
    gateway.await_seats(EDITOR_USERS, 2.0).await;
    editor.authenticate(&Open::editor("d", "three")).await.assert_refused();
}

#[tokio::test]
async fn a_session_token_gives_no_editor_away() {
    let server = StandIn::builder().secret(tokens::SECRET).start().await;
    let setup = Setup::before(server.addr).set("document_server.token_secret", tokens::SECRET);
    let gateway = setup.default_licence(|id| LicenceFile::connections(id, 1, 0)).start().await;
    let edit = json!({"edit": true});
    let token = |user: &str, mode: &str, co_editing: &str| {
        tokens::sign(tokens::SECRET, &claims(user, mode, edit.clone(), co_editing))
    };
    let _full =
        gateway.admit(&Open::editor("d", "full").token(&token("full", "edit", "fast"))).await;
    let viewer = Open::viewer("d", "v").permissions(edit.clone());
    let (mut viewer, opened) = gateway.open(&viewer.token(&token("v", "view", "strict"))).await;
    let session_token = opened.reply()["jwt"].as_str().unwrap().to_owned();
    // The session token carries no mode: with it the message decides.
    let again = Open::editor("d", "v").with("jwtSession", session_token);
    viewer.authenticate(&again).await.assert_refused();
}

// --- policies ------------------------------------------------------------------------------------

#[tokio::test]
async fn view_instead_of_refusal() {
    let server = StandIn::start().await;
    for (licence, editor_code, viewer_code) in [
        (LicenceFile::connections(DEFAULT_LICENCE, 1, 1), 5, 13),
        (LicenceFile::users(DEFAULT_LICENCE, 1, 1), 8, 14),
    ] {
        let gateway = Setup::before(server.addr)
            .set("enforcement.over_limit", "view")
            .default_licence(|_| licence)
            .start()
            .await;
        for (make, code) in [
            (Open::editor as fn(&str, &str) -> Open, editor_code),
            (Open::live_viewer, viewer_code),
        ] {
            let (_first, opened) = gateway.open(&make("d", "first")).await;
            assert_eq!(opened.reply()["licenseType"], 3);
            server.forget();
            let second = make("d", "second");
            let (_second, opened) = gateway.open(&second).await;
            let reply = opened.reply();
            assert_eq!(reply["licenseType"], code);
            assert_eq!(reply["result"], 1);
            let seen = &server.auths()[0].message;
            assert_eq!((&seen["mode"], &seen["coEditingMode"]), (&json!("view"), &json!("strict")));
            assert_eq!(seen["permissions"], second.message["permissions"], "untouched");
        }
        let outcome = [("class", "editor"), ("outcome", "view_only")];
        let counted = gateway.metrics().await.sum("seatgate_admissions_total", &outcome);
        assert_eq!(counted, 1.0);
        drop(gateway);
        eventually("all left", async || (server.sockets() == 0).then_some(())).await;
    }
}

#[tokio::test]
async fn observing_refuses_nobody() {
    let server = StandIn::start().await;
    let gateway = Setup::before(server.addr).set("enforcement.mode", "observe").start().await;
    let mut inside = Vec::new();
    for user in ["a", "b", "c"] {
        inside.push(gateway.admit(&Open::editor("d", user)).await);
    }
    assert_eq!(gateway.admissions("editor", "observed", "connections").await, 1.0);
    assert_eq!(gateway.admissions("editor", "admitted", "none").await, 2.0);
}

// --- the session itself --------------------------------------------------------------------------

#[tokio::test]
async fn an_admitted_session_is_passed_through() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 2, 0).await;
    let open = Open::editor("d", "one");
    let mut one = gateway.admit(&open).await;
    assert_eq!(server.auths()[0].raw, &open.auth_packet()[2..], "auth arrives as it was sent");
    let mut two = gateway.admit(&Open::editor("d", "two")).await;
    one.hear_message("connectState").await;
    two.say(&json!({"type": "cursor", "cursor": "10;AgAAADIA"})).await;
    assert_eq!(one.hear_message("cursor").await["cursor"], "10;AgAAADIA");
    for size in [1, 125, 126, 65_535, 65_536, 3_000_000] {
        let changes = json!({"type": "saveChanges", "changes": "x".repeat(size)});
        let style = Style {
            fragment: Some(131_000),
            chunk: Some(10_007),
            mask: [9, 8, 7, 6],
            pings_between: true,
        };
        two.send_styled(&event(&changes), &style).await.unwrap();
        assert_eq!(one.hear_message("saveChanges").await, changes, "{size}");
        two.hear_message("unSaveLock").await;
    }
}

#[tokio::test]
async fn a_large_auth_is_still_an_auth() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 1, 0).await;
    let open = Open::editor("d", "u");
    let large = open.clone().with("padding", "x".repeat(5_000_000));
    let mut editor = gateway.dial("d").connect().await;
    editor.greet(&open).await;
    let style = Style { fragment: Some(131_000), ..Style::default() };
    editor.send_styled(&large.auth_packet(), &style).await.unwrap();
    editor.verdict().await.reply();
    assert_eq!(server.auths()[0].message, large.message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_changes_are_streamed_and_slow_readers_cost_nothing() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 2, 0).await;
    let mut reader = gateway.admit(&Open::editor("d", "reader")).await;
    let mut writer = gateway.admit(&Open::editor("d", "writer")).await;
    let before = gateway.resident_bytes();
    let style = Style { fragment: Some(131_000), ..Style::default() };
    let changes = |size| json!({"type": "saveChanges", "changes": "x".repeat(size)});
    // The reader takes nothing while the writer writes, and the writer is not held up by that.
    let sizes = [4_000_000, 16_000_000, 4_000_000];
    for size in sizes {
        writer.send_styled(&event(&changes(size)), &style).await.unwrap();
        writer.hear_message("unSaveLock").await;
    }
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "{} MiB more", grown >> 20);
    for size in sizes {
        assert_eq!(
            reader.hear_message("saveChanges").await["changes"].as_str().unwrap().len(),
            size
        );
    }
}

#[tokio::test]
async fn heartbeats_pass_both_ways() {
    let heartbeat = Duration::from_millis(100);
    let server = StandIn::builder().heartbeat(heartbeat, heartbeat).start().await;
    let gateway = Gateway::connections(&server, 1, 0).await;
    let mut editor = gateway.admit(&Open::editor("d", "u")).await;
    assert_eq!(editor.hear_within(Duration::from_millis(1500)).await, None);
    assert_eq!(server.sockets(), 1);
}

#[tokio::test]
async fn every_path_of_the_socket_is_guarded() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 0, 0).await;
    for path in [
        "/doc/d/c/",
        "/doc/d/c",
        "/doc/",
        "/doc/a/b/c/",
        "/9.3.0-abc123/doc/d/c/",
        "//doc/d/c/",
        "/./doc/d/c/",
        "/x/../doc/d/c/",
        "/%64oc/d/c/",
        "/d%6fc/d/c/",
        "/DOC/d/c/",
        "/doc//d//c/",
    ] {
        let target = format!("{path}?EIO=4&transport=websocket");
        let open = Open::editor("d", "sly");
        // Whatever the gateway makes of the path: nobody gets in without a seat.
        if let Ok(mut editor) = Dial::new(gateway.addr, "d").target(&target).try_connect().await {
            let _ = editor.send(&open.connect_packet()).await;
            let _ = editor.send(&open.auth_packet()).await;
            assert!(!editor.verdict().await.is_admitted(), "{path}");
        }
        assert!(server.auths().is_empty(), "{path}: the server saw an auth");
    }
    // The plain spellings are served, and refuse in the proper way.
    for path in ["/doc/d/c/", "/doc/", "/9.3.0-abc123/doc/d/c/"] {
        let target = format!("{path}?EIO=4&transport=websocket");
        gateway.dial("d").target(&target).refuse(&Open::editor("d", "u")).await;
    }
}
