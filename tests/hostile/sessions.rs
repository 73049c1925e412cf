//! Clients that mean harm, or are broken: nobody gets a seat by a trick, nobody brings the
//! gateway down, and an honest editor beside them is served.

use std::time::{Duration, Instant};

use crate::support::frames::{self, Frame, Style};
use crate::support::http::Connection;
use crate::support::{
    AuthReply, Call, Editor, Gateway, Heard, LicenceFile, Open, Opened, Setup, StandIn, eventually,
};
use serde_json::{Value, json};

const MEBIBYTE: u64 = 1 << 20;

async fn greeted(gateway: &Gateway, open: &Open) -> Editor {
    let mut editor = gateway.dial(open.document()).connect().await;
    editor.greet(open).await;
    editor
}

/// Hears until the end, at most for a while; whether an `auth` was answered with `result: 1`.
async fn gets_in(editor: &mut Editor, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while let Some(heard) =
        editor.hear_within(deadline.saturating_duration_since(Instant::now())).await
    {
        if heard.kind() == "auth" {
            return true;
        }
        if heard == Heard::End {
            return false;
        }
    }
    false
}

// --- an auth in disguise -----------------------------------------------------------------------

/// Packets that the document server takes for an `auth` of an editor (WIRE.md, "Also accepted as
/// the same auth").
fn disguises() -> Vec<(&'static str, String)> {
    let open = Open::editor("d", "sly");
    let auth = open.message.to_string();
    let replaced = |from: &str, to: &str| auth.replacen(from, to, 1);
    let event = |auth: &str| format!(r#"42["message",{auth}]"#);
    let padded = auth.replacen('{', &format!("{{\"padding\":\"{}\",", "x".repeat(200_000)), 1);
    vec![
        ("an ack id", format!(r#"4213["message",{auth}]"#)),
        ("an explicit namespace", format!(r#"42/,["message",{auth}]"#)),
        ("a namespace and an ack id", format!(r#"42/,7["message",{auth}]"#)),
        ("a namespace with a query", format!(r#"42/?a=b,["message",{auth}]"#)),
        ("an escaped event name", format!(r#"42["m\u0065ssage",{auth}]"#)),
        ("an escaped type", event(&replaced(r#""type":"auth""#, r#""type":"\u0061uth""#))),
        ("an escaped key", event(&replaced(r#""type":"auth""#, r#""t\u0079pe":"auth""#))),
        ("an escaped mode", event(&replaced(r#""mode":"edit""#, r#""mode":"\u0065dit""#))),
        (
            "a type behind a type",
            event(&replaced(r#""type":"auth""#, r#""type":"x","type":"auth""#)),
        ),
        (
            "a mode behind a mode",
            event(&replaced(r#""mode":"edit""#, r#""mode":"view","mode":"edit""#)),
        ),
        (
            "an escaped double",
            event(&replaced(r#""mode":"edit""#, r#""mode":"view","\u006dode":"edit""#)),
        ),
        (
            "a type at the end",
            event(&replaced(r#""type":"auth","#, "").replace(
                r#""supportAuthChangesAck":true}"#,
                r#""supportAuthChangesAck":true,"type":"auth"}"#,
            )),
        ),
        ("white space", format!("42 \t[ \"message\" , {auth} ] ")),
        ("more arguments", format!(r#"42["message",{auth},1,{{}}]"#)),
        ("a number for a user", event(&replaced(r#""id":"sly""#, r#""id":123"#))),
        ("no user id", event(&replaced(r#""id":"sly","#, ""))),
        ("padding", event(&padded)),
    ]
}

#[tokio::test]
async fn no_disguise_of_an_auth_gets_past_a_full_licence() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 0, 0).await;
    let open = Open::editor("d", "sly");
    for (what, packet) in disguises() {
        let mut editor = greeted(&gateway, &open).await;
        let _ = editor.send(&packet).await;
        assert!(!gets_in(&mut editor, Duration::from_millis(400)).await, "{what}");
        assert!(server.auths().is_empty(), "{what}: the server saw it");
    }
}

#[tokio::test]
async fn a_disguised_auth_takes_a_seat_or_is_refused() {
    let server = StandIn::start().await;
    let gateway =
        Setup::before(server.addr).default_licence(|id| LicenceFile::connections(id, 50, 0));
    let gateway = gateway.start().await;
    let open = Open::editor("d", "sly");
    for (what, packet) in disguises() {
        let mut editor = greeted(&gateway, &open).await;
        let _ = editor.send(&packet).await;
        if gets_in(&mut editor, Duration::from_secs(1)).await {
            assert_eq!(gateway.seats("default", "editor_connections").await, 1.0, "{what}");
        }
        editor.reset();
        gateway.await_seats("editor_connections", 0.0).await;
    }
}

#[tokio::test]
async fn an_ambiguous_auth_never_reaches_the_server() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    let open = Open::editor("d", "sly");
    for (what, packet) in disguises() {
        if !what.contains("behind") && !what.contains("double") {
            continue;
        }
        let mut editor = greeted(&gateway, &open).await;
        let _ = editor.send(&packet).await;
        assert!(!gets_in(&mut editor, Duration::from_millis(400)).await, "{what}");
    }
    assert!(server.auths().is_empty());
}

#[tokio::test]
async fn a_binary_event_is_an_auth_too() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 0, 0).await;
    let open = Open::editor("d", "sly");
    let mut auth = open.message.clone();
    auth["block"] = json!({"_placeholder": true, "num": 0});
    let mut editor = greeted(&gateway, &open).await;
    let _ = editor.send(&format!("451-{}", json!(["message", auth]))).await;
    let _ = editor.send_raw(&Frame::new(frames::BINARY, b"binary").encode()).await;
    assert!(!gets_in(&mut editor, Duration::from_millis(500)).await);
    assert!(server.auths().is_empty());
}

#[tokio::test]
async fn any_cut_of_the_bytes_is_judged_alike() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 0, 0).await;
    let open = Open::editor("d", "sly");
    for style in [
        Style { fragment: Some(1), ..Style::default() },
        Style { fragment: Some(100), chunk: Some(7), mask: [1, 2, 3, 4], pings_between: true },
        Style { chunk: Some(1), ..Style::default() },
        Style { fragment: Some(20), mask: [0xff; 4], ..Style::default() },
    ] {
        let mut editor = greeted(&gateway, &open).await;
        let _ = editor.send_styled(&open.auth_packet(), &style).await;
        editor.verdict().await.assert_refused();
    }
    assert!(server.auths().is_empty());
}

#[tokio::test]
async fn a_second_connect_opens_no_door() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 0, 0).await;
    let open = Open::editor("d", "sly");
    for between in ["40", "40/,", "40/other,{}", "41/other", "0{}", "1", "6", "5", "2probe"] {
        let mut editor = greeted(&gateway, &open).await;
        let _ = editor.send(between).await;
        let _ = editor.send(&open.auth_packet()).await;
        assert!(!gets_in(&mut editor, Duration::from_millis(400)).await, "{between}");
    }
    assert!(server.auths().is_empty());
}

#[tokio::test]
async fn an_auth_behind_the_servers_back_is_not_carried() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 0, 0).await;
    let open = Open::editor("d", "sly");
    // Before CONNECT, and in the same breath as CONNECT.
    for with_connect in [false, true] {
        let mut editor = gateway.dial("d").connect().await;
        editor.handshake().await;
        if with_connect {
            let _ = editor.send(&open.connect_packet()).await;
        }
        let _ = editor.send(&open.auth_packet()).await;
        assert!(!gets_in(&mut editor, Duration::from_millis(500)).await);
    }
    // Right behind the handshake's head, before the 101 was read.
    let mut connection = Connection::open(gateway.addr).await.unwrap();
    let head = "GET /doc/d/c/?EIO=4&transport=websocket HTTP/1.1\r\nHost: h\r\n\
        Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut bytes = head.as_bytes().to_vec();
    bytes.extend(Frame::text(&open.connect_packet()).encode());
    bytes.extend(Frame::text(&open.auth_packet()).encode());
    connection.write(&bytes).await.unwrap();
    assert_eq!(connection.read().await.unwrap().status, 101);
    let rest = connection.read_to_end().await;
    assert!(!String::from_utf8_lossy(&rest).contains(r#""result":1"#));
    assert!(server.auths().is_empty());
}

#[tokio::test]
async fn a_seat_that_moves_on_while_the_server_thinks_leaves_no_editor_behind() {
    let server = StandIn::start().await;
    server.on_auth(|message| match message["user"]["id"] == "second" {
        true => AuthReply::Hang,
        false => AuthReply::Accept,
    });
    let gateway = Gateway::connections(&server, 1, 0).await;
    let mut first = gateway.admit(&Open::editor("d", "first")).await;
    let again = Open::editor("d", "second").with("sessionId", "one and the same");
    first.send(&again.auth_packet()).await.unwrap();
    eventually("it is asked", async || (server.auths().len() == 2).then_some(())).await;
    let mut second = greeted(&gateway, &again).await;
    second.send(&again.auth_packet()).await.unwrap();
    let Opened::Refused(refusal) = first.verdict().await else { panic!("two editors, one seat") };
    assert_eq!((refusal.code, refusal.goodbye), (Some(4007), true));
    assert_eq!(gateway.seats("default", "editor_connections").await, 1.0);
}

// --- polling -----------------------------------------------------------------------------------

#[tokio::test]
async fn an_upgraded_polling_session_gets_no_seat_for_free() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 0, 0).await;
    // The polling half is done with the server itself, as if by another way in.
    let path = "/doc/d/c/?EIO=4&transport=polling";
    let opening = Call::get(path).send(server.addr).await.text();
    let opening: Value = serde_json::from_str(&opening[1..]).unwrap();
    let sid = opening["sid"].as_str().unwrap();
    let open = Open::editor("d", "sly");
    let polling = format!("{path}&sid={sid}");
    Call::post(&polling, open.connect_packet()).send(server.addr).await;
    let target = format!("/doc/d/c/?EIO=4&transport=websocket&sid={sid}");
    if let Ok(mut editor) = gateway.dial("d").target(&target).try_connect().await {
        let _ = editor.send("2probe").await;
        let _ = editor.hear_within(Duration::from_millis(500)).await;
        let _ = editor.send("5").await;
        let _ = editor.send(&open.auth_packet()).await;
        assert!(!gets_in(&mut editor, Duration::from_millis(500)).await);
    }
    assert!(server.auths().is_empty());
}

// --- broken frames -----------------------------------------------------------------------------

#[tokio::test]
async fn broken_frames_end_the_connection() {
    let server = StandIn::start().await;
    let mut gateway = Gateway::before(&server).await;
    let open = Open::viewer("d", "u");
    let ping = Frame::new(frames::PING, &[b'x'; 10]);
    let huge = 1 << 40;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("not masked", Frame { mask: None, ..Frame::text("3") }.encode()),
        ("RSV1", Frame { reserved: 0b100, ..Frame::text("3") }.encode()),
        ("RSV2", Frame { reserved: 0b010, ..Frame::text("3") }.encode()),
        ("RSV3", Frame { reserved: 0b001, ..Frame::text("3") }.encode()),
        ("an unknown opcode", Frame::new(3, b"3").encode()),
        ("an unknown control opcode", Frame::new(11, b"").encode()),
        ("a fragmented ping", Frame { fin: false, ..ping }.encode()),
        ("a long ping", Frame::new(frames::PING, &[b'x'; 126]).encode()),
        ("a continuation of nothing", Frame::new(frames::CONTINUATION, b"3").encode()),
        (
            "a message inside a message",
            [Frame { fin: false, ..Frame::text("4") }.encode(), Frame::text("3").encode()].concat(),
        ),
        ("a terabyte", Frame { claimed_length: Some(huge), ..Frame::text("4") }.encode()),
        (
            "a negative length",
            Frame { claimed_length: Some(u64::MAX), ..Frame::text("4") }.encode(),
        ),
        (
            "one byte too much",
            Frame { claimed_length: Some(100_000_001), ..Frame::text("4") }.encode(),
        ),
        ("no UTF-8", Frame::new(frames::TEXT, b"42[\"\xff\xfe\"]").encode()),
        ("half a character", Frame::new(frames::TEXT, b"42[\"\xe6\x96").encode()),
        ("a close of one byte", Frame::new(frames::CLOSE, b"x").encode()),
        ("no packet", Frame::text("garbage").encode()),
        ("an empty packet", Frame::text("").encode()),
        (
            "a text packet in a binary frame",
            Frame::new(frames::BINARY, b"42[\"message\",{}]").encode(),
        ),
    ];
    for (what, bytes) in cases {
        let mut editor = gateway.admit(&open).await;
        let _ = editor.send_raw(&bytes).await;
        // The server of the stand-in may be laxer than the gateway; say something it would answer.
        let ended = tokio::time::timeout(Duration::from_secs(5), editor.hear_out()).await;
        if what == "a text packet in a binary frame" || what == "an empty packet" {
            continue; // ended here or by the server, as each sees fit
        }
        assert!(ended.is_ok(), "{what}: the connection lives on");
    }
    gateway.assert_alive().await;
}

#[tokio::test]
async fn truncated_frames_hold_nothing() {
    let server = StandIn::start().await;
    let mut gateway =
        Setup::before(server.addr).default_licence(|id| LicenceFile::connections(id, 1, 0));
    gateway = gateway.set("enforcement.reconnect_grace", "0s");
    let mut gateway = gateway.start().await;
    let open = Open::editor("d", "u");
    let whole = Frame::text(&open.auth_packet()).encode();
    for length in [1, 2, 3, 4, 7, 8, 9, 100, whole.len() - 1] {
        let mut editor = greeted(&gateway, &open).await;
        editor.send_raw(&whole[..length]).await.unwrap();
        editor.hang_up().await;
    }
    eventually("all are gone", async || (server.sockets() == 0).then_some(())).await;
    assert!(server.auths().is_empty());
    gateway.await_seats("editor_connections", 0.0).await;
    let _next = gateway.admit(&open).await;
    assert!(gateway.is_running());
}

#[tokio::test]
async fn endless_fragments_fill_no_memory() {
    let server = StandIn::start().await;
    let mut gateway = Gateway::connections(&server, 0, 0).await;
    let open = Open::editor("d", "u");
    let before = gateway.resident_bytes();
    let mut editor = greeted(&gateway, &open).await;
    let first = open.auth_packet();
    let first = first.trim_end_matches(['}', ']']);
    let _ = editor.send_raw(&Frame { fin: false, ..Frame::text(first) }.encode()).await;
    // Many tiny ones, then big ones, until the gateway has had enough or 160 MiB are sent.
    let tiny = Frame { fin: false, ..Frame::new(frames::CONTINUATION, b"") }.encode().repeat(100);
    let padding = vec![b' '; 1 << 20];
    let big = Frame { fin: false, ..Frame::new(frames::CONTINUATION, &padding) }.encode();
    let mut most = 0;
    for round in 0..1160 {
        let bytes = if round < 1000 { &tiny } else { &big };
        if editor.send_raw(bytes).await.is_err() {
            break;
        }
        if round % 20 == 0 {
            most = most.max(gateway.resident_bytes().saturating_sub(before));
        }
    }
    // Whether the rest was refused or read and forgotten: it is over, and was not kept.
    assert_eq!(editor.hear_out().await.last(), Some(&Heard::End));
    assert!(most < 64 * MEBIBYTE, "{} MiB were kept", most / MEBIBYTE);
    assert!(server.auths().is_empty());
    gateway.assert_alive().await;
}

#[tokio::test]
async fn a_huge_auth_is_judged_or_refused() {
    let server = StandIn::start().await;
    let mut gateway = Gateway::connections(&server, 0, 0).await;
    for size in [5_000_000, 99_000_000] {
        let open = Open::editor("d", "u").with("padding", "x".repeat(size));
        let slim = Open::editor("d", "u");
        let mut editor = greeted(&gateway, &slim).await;
        let style = Style { fragment: Some(131_000), ..Style::default() };
        let _ = editor.send_styled(&open.auth_packet(), &style).await;
        let limit = Duration::from_secs(20);
        assert!(!gets_in(&mut editor, limit).await, "{size}");
    }
    assert!(server.auths().is_empty());
    gateway.assert_alive().await;
}

#[tokio::test]
async fn deep_json_is_survived() {
    let server = StandIn::start().await;
    let mut gateway = Gateway::connections(&server, 0, 0).await;
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(10_000), close.repeat(10_000));
    let auth = Open::editor("d", "u").message.to_string();
    let inside = |value: &str| auth.replacen('{', &format!("{{\"deep\":{value},"), 1);
    for (what, packet) in [
        ("lists", format!("42{}", deep("[", "]"))),
        ("objects", format!(r#"42["message",{}]"#, deep(r#"{"a":"#, "1}").replace("}1", "}"))),
        ("an auth with lists", format!(r#"42["message",{}]"#, inside(&deep("[", "]")))),
        ("no end", format!(r#"42["message",{}"#, r#"{"a":"#.repeat(10_000))),
        ("CONNECT", format!("40{}", deep("[", "]"))),
    ] {
        let mut editor = greeted(&gateway, &Open::editor("d", "u")).await;
        let _ = editor.send(&packet).await;
        assert!(!gets_in(&mut editor, Duration::from_millis(300)).await, "{what}");
        assert!(server.auths().is_empty(), "{what}");
    }
    for target in ["/command", "/coauthoring/CommandService.ashx"] {
        let answer = Call::post(target, deep("[", "]")).send(gateway.addr).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    gateway.assert_alive().await;
}
