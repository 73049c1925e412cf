//! The harness against itself: what the clients say to the stand-in is what the wire documents,
//! so that a failure elsewhere is the gateway's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::editor::{Dial, Refusal};
use support::frames::{self, Frame, Style};
use support::raw_server::{Step, ok};
use support::real_client::RealClient;
use support::{AuthReply, Call, Heard, Open, Opened, RawServer, StandIn, eventually, tokens};

fn dial(server: &StandIn, open: &Open) -> Dial {
    Dial::new(server.addr, open.document())
}

async fn admit(server: &StandIn, open: &Open) -> support::Editor {
    dial(server, open).admit(open).await
}

#[tokio::test]
async fn a_session_follows_the_documented_order() {
    let server = StandIn::start().await;
    let open = Open::editor("report", "u1");
    let mut editor = dial(&server, &open).connect().await;
    let opening = editor.handshake().await;
    assert_eq!(opening["pingInterval"], 25_000);
    assert_eq!(opening["pingTimeout"], 20_000);
    assert_eq!(opening["maxPayload"], 100_000_000);
    assert_eq!(opening["upgrades"], json!([]));
    editor.send(&open.connect_packet()).await.unwrap();
    editor.connected().await;
    let reply = editor.authenticate(&open).await.reply();
    assert_eq!(reply["result"], 1);
    assert_eq!(reply["licenseType"], 3);
    assert_eq!(reply["participants"][0]["idOriginal"], "u1");
    assert_eq!(reply["participants"][0]["view"], false);
    assert_eq!(reply["participants"][0]["connectionId"], reply["sessionId"]);
    assert!(reply["jwt"].as_str().is_some_and(|token| token.split('.').count() == 3));
    assert_eq!(server.users(), ["u1"]);
    assert_eq!(server.auths()[0].raw, &open.auth_packet()[2..], "the raw event is kept");
    assert_eq!(server.sockets(), 1);
    editor.goodbye().await;
    eventually("the server notices", async || (server.sockets() == 0).then_some(())).await;
}

#[tokio::test]
async fn every_sub_path_and_the_version_prefix_reach_the_socket() {
    let server = StandIn::start().await;
    let open = Open::editor("d", "u");
    for path in ["/doc/", "/doc/d/c/", "/doc/a/b/c/", "/9.3.0-abc123/doc/d/c/"] {
        let target = format!("{path}?EIO=4&transport=websocket");
        dial(&server, &open).target(&target).admit(&open).await;
        let seen = server.all_requests().pop().unwrap();
        assert_eq!(seen.target, target, "recorded as it came");
    }
}

#[tokio::test]
async fn classes_follow_the_servers_rules() {
    let server = StandIn::start().await;
    let commenting = json!({"edit": false, "comment": true});
    for (open, view, live) in [
        (Open::editor("c", "a"), false, false),
        (Open::live_viewer("c", "b"), true, true),
        (Open::viewer("c", "c"), true, false),
        (Open::editor("c", "d").permissions(commenting), false, false),
        (Open::editor("c", "e").permissions(json!({"edit": false})), true, true),
        (Open::editor("c", "f").with("mode", "view"), true, true),
        (Open::editor("c", "g").with("permissions", Value::Null), false, false),
    ] {
        let (_editor, opened) = dial(&server, &open).open(&open).await;
        let reply = opened.reply();
        let own = reply["participants"].as_array().unwrap();
        let own = own.iter().find(|other| other["connectionId"] == reply["sessionId"]).unwrap();
        assert_eq!((&own["view"], &own["isLiveViewer"]), (&json!(view), &json!(live)), "{own}");
    }
}

#[tokio::test]
async fn tokens_override_the_message() {
    let server = StandIn::builder().secret(tokens::SECRET).start().await;
    let claims = json!({
        "document": {"key": "signed", "permissions": {"edit": false}},
        "editorConfig": {"mode": "edit", "user": {"id": "boss"}, "coEditing": {"mode": "fast"}},
    });
    let open = Open::editor("said", "u").token(&tokens::sign(tokens::SECRET, &claims));
    let (_editor, opened) = dial(&server, &open).open(&open).await;
    let reply = opened.reply();
    assert_eq!(reply["participants"][0]["idOriginal"], "boss");
    assert_eq!(reply["participants"][0]["isLiveViewer"], true);
    let session = tokens::verify(tokens::SECRET, reply["jwt"].as_str().unwrap()).unwrap();
    assert_eq!(session["document"]["key"], "signed");

    for (token, code) in [
        (tokens::sign("another secret", &claims), 4006),
        (tokens::unsigned(&claims), 4006),
        (tokens::sign(tokens::SECRET, &json!({"exp": tokens::now() - 3600})), 4005),
    ] {
        let open = Open::editor("said", "u").token(&token);
        let (_editor, opened) = dial(&server, &open).open(&open).await;
        let Opened::Refused(refusal) = opened else { panic!("a bad token was accepted") };
        assert_eq!(refusal, Refusal::proper(code));
    }
}

#[tokio::test]
async fn the_server_can_be_told_what_to_do_with_an_auth() {
    let server = StandIn::start().await;
    let open = Open::editor("d", "u");

    server.on_auth(|_| AuthReply::Refuse(4004));
    dial(&server, &open).refuse(&open).await;

    server.on_auth(|_| AuthReply::WaitThenAccept);
    let mut editor = dial(&server, &open).connect().await;
    editor.greet(&open).await;
    editor.send(&open.auth_packet()).await.unwrap();
    assert_eq!(editor.hear().await.kind(), "waitAuth");
    editor.verdict().await.reply();

    server.on_auth(|_| AuthReply::Cut);
    let (_, opened) = dial(&server, &open).open(&open).await;
    let Opened::Refused(refusal) = opened else { panic!("admitted") };
    assert_eq!(refusal, Refusal { code: None, goodbye: false, close: false });

    server.on_auth(|_| AuthReply::Hang);
    let mut editor = dial(&server, &open).connect().await;
    editor.greet(&open).await;
    editor.send(&open.auth_packet()).await.unwrap();
    assert_eq!(editor.hear_within(Duration::from_millis(200)).await, None);

    server.on_auth(|_| AuthReply::Hold);
    let mut editor = dial(&server, &open).connect().await;
    editor.greet(&open).await;
    editor.send(&open.auth_packet()).await.unwrap();
    eventually("the auth arrives", async || (server.auths().len() == 5).then_some(())).await;
    assert_eq!(editor.hear_within(Duration::from_millis(100)).await, None);
    server.release();
    editor.verdict().await.reply();
}

#[tokio::test]
async fn messages_are_relayed_within_a_document() {
    let server = StandIn::start().await;
    let mut one = admit(&server, &Open::editor("d", "one")).await;
    let mut two = admit(&server, &Open::editor("d", "two")).await;
    let mut elsewhere = admit(&server, &Open::editor("other", "three")).await;
    assert_eq!(one.hear_message("connectState").await["participants"][1]["idOriginal"], "two");
    two.say(&json!({"type": "cursor", "cursor": "10;AgAAADIA"})).await;
    assert_eq!(one.hear_message("cursor").await["cursor"], "10;AgAAADIA");
    let changes = "x".repeat(300_000);
    let save = json!({"type": "saveChanges", "changes": changes});
    let style = Style { fragment: Some(131_000), chunk: Some(4_000), ..Style::default() };
    two.send_styled(&support::editor::event(&save), &style).await.unwrap();
    two.hear_message("unSaveLock").await;
    assert_eq!(one.hear_message("saveChanges").await["changes"], changes);
    assert_eq!(elsewhere.hear_within(Duration::from_millis(100)).await, None);
}

#[tokio::test]
async fn events_before_auth_are_ignored_and_viewers_may_not_save() {
    let server = StandIn::start().await;
    let lock = json!({"type": "isSaveLock", "syncChangesIndex": 0});
    let open = Open::editor("d", "u");
    let mut early = dial(&server, &open).connect().await;
    early.greet(&open).await;
    early.say(&lock).await;
    assert_eq!(early.hear_within(Duration::from_millis(100)).await, None);
    early.authenticate(&open).await.reply();
    early.say(&lock).await;
    assert_eq!(early.hear_message("saveLock").await["saveLock"], false);
    let mut viewer = admit(&server, &Open::viewer("d", "v")).await;
    viewer.say(&lock).await;
    let Opened::Refused(refusal) = viewer.verdict().await else { panic!("still in") };
    assert_eq!(refusal, Refusal::proper(4004));
    // An editor who gives up editing is a viewer from then on.
    early.say(&json!({"type": "close"})).await;
    early.hear_message("refreshToken").await;
    early.say(&lock).await;
    let Opened::Refused(refusal) = early.verdict().await else { panic!("still in") };
    assert_eq!(refusal, Refusal::proper(4004));
}

#[tokio::test]
async fn an_auth_without_user_or_token_is_ignored() {
    let server = StandIn::start().await;
    for field in ["user", "token"] {
        let open = Open::editor("d", "u").with(field, Value::Null);
        let mut editor = dial(&server, &open).connect().await;
        editor.greet(&open).await;
        editor.send(&open.auth_packet()).await.unwrap();
        assert_eq!(editor.hear_within(Duration::from_millis(100)).await, None, "{field}");
    }
    assert_eq!(server.auths().len(), 2);
}

#[tokio::test]
async fn vanished_clients_are_noticed() {
    let heartbeat = Duration::from_millis(200);
    let server = StandIn::builder().heartbeat(heartbeat, heartbeat).start().await;
    admit(&server, &Open::editor("d", "one")).await.reset();
    admit(&server, &Open::editor("d", "two")).await.hang_up().await;
    let _silent = admit(&server, &Open::editor("d", "three")).await.fall_silent();
    eventually("all are gone", async || (server.sockets() == 0).then_some(())).await;
}

#[tokio::test]
async fn heartbeats_are_answered() {
    let heartbeat = Duration::from_millis(50);
    let server = StandIn::builder().heartbeat(heartbeat, heartbeat).start().await;
    let mut editor = admit(&server, &Open::editor("d", "u")).await;
    assert_eq!(editor.hear_within(Duration::from_millis(500)).await, None);
    assert_eq!(server.sockets(), 1);
    editor.answers_pings = false;
    let heard = editor.hear().await;
    assert!(matches!(heard, Heard::Close(_) | Heard::End), "{heard:?}");
}

#[tokio::test]
async fn users_are_kicked_and_cut() {
    let server = StandIn::start().await;
    let mut kicked = admit(&server, &Open::editor("d", "kicked")).await;
    server.kick("kicked", 4001);
    let Opened::Refused(refusal) = kicked.verdict().await else { panic!("still in") };
    assert_eq!(refusal, Refusal::proper(4001));
    let mut cut = admit(&server, &Open::editor("d", "cut")).await;
    server.cut("cut");
    let heard = cut.hear_out().await;
    assert_eq!(heard, [Heard::End], "no goodbye");
    eventually("both are gone", async || (server.sockets() == 0).then_some(())).await;
}

#[tokio::test]
async fn any_cut_of_the_bytes_means_the_same() {
    let server = StandIn::start().await;
    let open = Open::editor("d", "u");
    for style in [
        Style { fragment: Some(1), ..Style::default() },
        Style { fragment: Some(100), chunk: Some(7), mask: [1, 2, 3, 4], pings_between: true },
        Style { chunk: Some(1), ..Style::default() },
        Style { mask: [0xff; 4], ..Style::default() },
    ] {
        let mut editor = dial(&server, &open).connect().await;
        editor.handshake().await;
        editor.send_styled(&open.connect_packet(), &style).await.unwrap();
        editor.connected().await;
        editor.send_styled(&open.auth_packet(), &style).await.unwrap();
        editor.verdict().await.reply();
    }
}

#[tokio::test]
async fn wrong_frames_end_the_connection() {
    let server = StandIn::start().await;
    let open = Open::editor("d", "u");
    let ping = Frame::new(frames::PING, b"");
    for frame in [
        Frame { mask: None, ..Frame::text("3") },
        Frame { reserved: 0b100, ..Frame::text("3") },
        Frame { opcode: 5, ..Frame::text("3") },
        Frame { fin: false, ..ping },
    ] {
        let mut editor = admit(&server, &open).await;
        editor.send_raw(&frame.encode()).await.unwrap();
        assert!(matches!(editor.hear_out().await.last(), Some(Heard::End)), "{frame:?}");
    }
}

#[tokio::test]
async fn the_http_side_answers_and_records() {
    let server = StandIn::start().await;
    let get = |target: &str| Call::get(target);
    assert_eq!(get("/healthcheck").send(server.addr).await.text(), "true");
    assert_eq!(get("/info/info.json").send(server.addr).await.status, 200);
    assert_eq!(get("/command").send(server.addr).await.status, 404);
    let echo = get("/any%2Fthing?q=%20&&").header("X-Odd", "1").send(server.addr).await.json();
    assert_eq!(echo["target"], "/any%2Fthing?q=%20&&");
    assert!(echo["headers"].as_array().unwrap().contains(&json!(["x-odd", "1"])));

    for target in ["/stand-in/bytes/300000", "/stand-in/chunked/300000"] {
        let answer = get(target).send(server.addr).await;
        assert!(answer.is_pattern(300_000), "{target}");
    }
    for call in [
        Call::new("PUT", "/up").pattern(3_000_000),
        Call::new("PUT", "/up").pattern_chunks(3_000_000),
    ] {
        let echo = call.send(server.addr).await.json();
        assert_eq!((&echo["length"], &echo["is_pattern"]), (&json!(3_000_000), &json!(true)));
    }
    let seen = server.requests().pop().unwrap();
    assert_eq!(
        (seen.method.as_str(), seen.body.length, seen.body.complete),
        ("PUT", 3_000_000, true)
    );

    let fresh = get("/stand-in/etag").send(server.addr).await;
    assert_eq!((fresh.status, fresh.header("etag")), (200, Some("\"one\"")));
    let known = get("/stand-in/etag").header("If-None-Match", "\"one\"").send(server.addr).await;
    assert_eq!((known.status, known.body.len()), (304, 0));
    let head = Call::new("HEAD", "/stand-in/bytes/77").send(server.addr).await;
    assert_eq!((head.header("content-length"), head.body.len()), (Some("77"), 0));
}

#[tokio::test]
async fn the_stale_endpoint_closes_a_used_connection() {
    let server = StandIn::start().await;
    let mut connection = support::http::Connection::open(server.addr).await.unwrap();
    let call = Call::get("/stand-in/stale");
    assert_eq!(connection.send(&call).await.unwrap().status, 200);
    assert!(connection.send(&call).await.is_err());
}

#[tokio::test]
async fn the_command_service_answers_as_captured() {
    let server = StandIn::start().await;
    let ashx = "/coauthoring/CommandService.ashx";
    for (path, body, expected) in [
        (ashx, r#"{"c":"version"}"#, r#"{"error":0,"version":"9.3.0.138"}"#),
        ("/Command/", r#"{"c":"version"}"#, r#"{"error":0,"version":"9.3.0.138"}"#),
        ("/COAUTHORING/commandservice.ASHX", r#"{"c":"License"}"#, r#"{"error":1}"#),
        ("/9.3.0-abc/command", r#"{"c":"nonsense","key":"k1"}"#, r#"{"key":"k1","error":5}"#),
        ("/command", r#"{"c":"drop","key":"k"}"#, r#"{"key":"k","error":0}"#),
        ("/command?c=version", "{c:", r#"{"error":0,"version":"9.3.0.138"}"#),
        ("/command?c=license", r#"{"c":"version"}"#, r#"{"error":0,"version":"9.3.0.138"}"#),
        ("/command", "[1]", r#"{"error":1}"#),
        ("/command", "", r#"{"error":1}"#),
    ] {
        let answer = Call::post(path, body).send(server.addr).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, expected), "{path} {body}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    let license = Call::post(ashx, r#"{"c":"license","key":"k9"}"#).send(server.addr).await;
    assert!(license.text().starts_with(r#"{"key":"k9","error":0,"license":{"start_date":"#));
    assert!(license.text().ends_with(r#""quota":{"users":[],"users_view":[]}}"#));
}

#[tokio::test]
async fn the_raw_server_sees_every_byte() {
    let server = RawServer::start(|request| match request.nth {
        0 => Step::Send(ok("one")),
        _ => Step::Close,
    })
    .await;
    let mut connection = support::http::Connection::open(server.addr).await.unwrap();
    let call = Call::post(b"/\xff|^\"?a=[]".as_slice(), "body").header("X-CaSe", " v ");
    assert_eq!(connection.send(&call).await.unwrap().text(), "one");
    assert!(connection.send(&call).await.is_err());
    let seen = server.seen();
    assert_eq!(seen[0].target(), b"/\xff|^\"?a=[]");
    assert_eq!(seen[0].body, b"body");
    assert!(String::from_utf8_lossy(&seen[0].head).contains("X-CaSe:  v "));
}

#[tokio::test]
async fn polling_works_too() {
    let server = StandIn::start().await;
    let path = "/doc/d/c/?EIO=4&transport=polling";
    let opening = Call::get(path).send(server.addr).await;
    let opening: Value = serde_json::from_str(&opening.text()[1..]).unwrap();
    assert_eq!(opening["upgrades"], json!(["websocket"]));
    let path = format!("{path}&sid={}", opening["sid"].as_str().unwrap());
    let open = Open::viewer("d", "u");
    let mut packets = Vec::new();
    for (sent, awaited) in [
        (open.connect_packet(), r#"42["message",{"type":"license""#),
        (open.auth_packet(), r#"42["message",{"type":"auth","result":1"#),
    ] {
        let post = Call::post(&path, sent).header("Content-Type", "text/plain");
        assert_eq!(post.send(server.addr).await.text(), "ok");
        while !packets.iter().any(|packet: &String| packet.starts_with(awaited)) {
            let polled = Call::get(&path).send(server.addr).await.text();
            let polled = polled.split('\x1e').filter(|packet| *packet != "2");
            packets.extend(polled.map(str::to_owned));
        }
    }
    assert!(packets[0].starts_with("40{"), "{packets:?}");
}

#[tokio::test]
async fn a_real_socket_io_client_does_the_same() {
    let server = StandIn::start().await;
    let open = Open::editor("d", "real");
    let mut client = RealClient::connect(server.addr, &open).await;
    assert_eq!(client.hear().await["type"], "license");
    client.say(&open.message).await;
    assert_eq!(client.hear().await["result"], 1);
    assert_eq!(server.users(), ["real"]);
    server.kick("real", 4004);
    assert_eq!(client.hear().await["code"], 4004);
    assert_eq!(client.hear().await, Value::Null, "the end");
}
