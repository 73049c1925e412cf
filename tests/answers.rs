//! What a document server answers beside its usual words, and what becomes of a session then: opens that
//! fail, replies of any length, answers before their time; and who is told first that a session is over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use support::admin::run;
use support::gateway::{DEFAULT_LICENCE, EDITORS};
use support::raw_server::Step;
use support::wait::{eventually_within, within};
use support::{
    AuthReply, Call, Gateway, Heard, LicenceFile, Open, Poller, RawServer, Setup, StandIn,
    eventually,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Fails what the user `stale` opens, as the server does with a document that was changed meanwhile.
async fn server_with_failures() -> StandIn {
    let server = StandIn::start().await;
    server.on_auth(|message| match message["user"]["id"].as_str() {
        Some("stale") => AuthReply::Fail,
        _ => AuthReply::Accept,
    });
    server
}

#[tokio::test]
async fn an_open_that_fails_gives_its_seat_back_while_the_session_stays() {
    let server = server_with_failures().await;
    let gateway = Gateway::connections(&server, 1, 0).await;
    let open = Open::editor("d", "stale");
    let mut editor = gateway.dial("d").connect().await;
    editor.greet(&open).await;
    editor.send(&open.auth_packet()).await.unwrap();
    editor.hear_message("error").await;
    gateway.await_seats(EDITORS, 0.0).await;
    let other = gateway.admit(&Open::editor("d", "other")).await;
    other.goodbye().await;
    gateway.await_seats(EDITORS, 0.0).await;
    // The session goes on, and its next open is judged by itself.
    editor.authenticate(&Open::editor("d", "fresh")).await.reply();
    assert_eq!(gateway.seats("default", EDITORS).await, 1.0);
    gateway.refuse(&Open::editor("d", "other")).await;
}

#[tokio::test]
async fn an_open_that_fails_gives_its_seat_back_over_polling_too() {
    let server = server_with_failures().await;
    let gateway = Gateway::users(&server, 1, 0).await;
    let open = Open::editor("d", "stale");
    let mut poller = Poller::connect(gateway.addr, "d").await;
    poller.greet(&open).await;
    poller.post(&[&open.auth_packet()]).await;
    loop {
        if poller.hear().await.kind() == "error" {
            break;
        }
    }
    gateway.await_seats("editor_users", 0.0).await;
    gateway.admit(&Open::editor("d", "other")).await;
}

#[tokio::test]
async fn a_web_socket_that_only_probes_is_no_connection_of_its_own() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 1, 0).await;
    let (poller, opened) = Poller::open(gateway.addr, &Open::editor("d", "u")).await;
    opened.reply();
    let connections = async || {
        let metrics = gateway.metrics().await;
        let of = |transport| metrics.get("seatgate_connections", &[("transport", transport)]);
        (of("polling").unwrap(), of("websocket").unwrap())
    };
    let listed = async || {
        let seats = run(&gateway, &["seats", "list", "--json"]).await.json();
        seats[0]["transport"].clone()
    };
    let target = poller.target.replace("transport=polling", "transport=websocket");
    let mut probe = gateway.dial("d").target(&target).connect().await;
    probe.send("2probe").await.unwrap();
    probe.hear().await;
    assert_eq!(connections().await, (1.0, 0.0));
    assert_eq!(listed().await, "polling");
    probe.send("5").await.unwrap();
    let upgraded = async || (connections().await == (0.0, 1.0)).then_some(());
    eventually("the WebSocket carries the session", upgraded).await;
    assert_eq!(listed().await, "websocket");
    probe.goodbye().await;
    let ended = async || (connections().await == (0.0, 0.0)).then_some(());
    eventually("nobody is connected", ended).await;
}

#[tokio::test]
async fn the_server_lets_go_of_a_dismissed_session_before_its_seat_is_free() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 1, 0).await;
    // A client that stays after it was told to go.
    let mut lingerer = gateway.admit(&Open::editor("d", "lingerer")).await;
    let seats = run(&gateway, &["seats", "list", "--json"]).await.json();
    let number = seats[0]["id"].to_string();
    let began = Instant::now();
    run(&gateway, &["seats", "close", &number]).await.good();
    eventually_within(Duration::from_secs(4), "the server lets go", async || {
        (server.sockets() == 0).then_some(())
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(4));
    gateway.await_seats(EDITORS, 0.0).await;
    assert_eq!(server.sockets(), 0);
    assert_eq!(lingerer.hear_message("disconnectReason").await["code"], 4007);
}

#[tokio::test]
async fn the_server_lets_go_of_a_dismissed_polling_session_before_its_seat_is_free() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 1, 0).await;
    let (mut poller, opened) = Poller::open(gateway.addr, &Open::editor("d", "p")).await;
    opened.reply();
    let seats = run(&gateway, &["seats", "list", "--json"]).await.json();
    let number = seats[0]["id"].to_string();
    let parked = tokio::spawn(async move { poller.verdict().await });
    run(&gateway, &["seats", "close", &number]).await.good();
    gateway.await_seats(EDITORS, 0.0).await;
    assert_eq!(server.sockets(), 0);
    assert!(!parked.await.unwrap().is_admitted());
}

/// A document server that answers each request's head at once and reads nothing of its body.
async fn hasty_server(answer: &'static str) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut kept: Vec<TcpStream> = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.windows(4).any(|window| window == b"\r\n\r\n") {
                if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let _ = stream.write_all(answer.as_bytes()).await;
            kept.push(stream);
        }
    });
    (address, task)
}

const REFUSAL: &str =
    "HTTP/1.1 413 Payload Too Large\r\nX-By: server\r\nContent-Length: 4\r\n\r\nmuch";

#[tokio::test]
async fn an_answer_before_its_time_reaches_the_client() {
    for answer in [
        REFUSAL,
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 413 Payload Too Large\r\nX-By: server\r\nContent-Length: 4\r\n\r\nmuch",
    ] {
        let (address, task) = hasty_server(answer).await;
        let gateway = Setup::before(address).start().await;
        // More than the sockets' buffers hold.
        let body = format!(r#"{{"c":"version","x":"{}"}}"#, "x".repeat(14 << 20));
        let command = Call::post("/coauthoring/CommandService.ashx", body);
        let said = within("the command is answered", command.send(gateway.addr)).await;
        assert_eq!((said.status, said.text().as_str()), (413, "much"));
        assert_eq!(said.header("x-by"), Some("server"));
        task.abort();
    }
}

/// A connection that is closed with bytes unread is reset, and takes an answer with it that the client
/// has not read yet.
#[tokio::test]
async fn a_client_that_sends_all_before_it_reads_hears_why_it_was_refused() {
    let server = StandIn::start().await;
    let setup = Setup::before(server.addr).set("document_server.command_body_limit", "64KiB");
    let gateway = setup.start().await;
    for length in [70_000, 3_000_000, 30_000_000] {
        let mut client = TcpStream::connect(gateway.addr).await.unwrap();
        let head = format!("POST /command HTTP/1.1\r\nHost: d\r\nContent-Length: {length}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let sent = client.write_all(&vec![b'x'; length]).await;
        sent.unwrap_or_else(|error| panic!("{length}: {error}"));
        let mut heard = String::new();
        within("the answer", client.read_to_string(&mut heard)).await.unwrap();
        assert!(heard.starts_with("HTTP/1.1 413 "), "{length}: {heard}");
    }
    // Nor does it wait for one that sends nothing.
    let mut client = TcpStream::connect(gateway.addr).await.unwrap();
    let head = "POST /command HTTP/1.1\r\nHost: d\r\nContent-Length: 70000\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let began = Instant::now();
    let mut heard = String::new();
    within("the answer", client.read_to_string(&mut heard)).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 413 ") && began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn interim_answers_before_a_handshakes_are_skipped() {
    let server = RawServer::start(|request| {
        let text = String::from_utf8_lossy(&request.head).to_ascii_lowercase();
        if !text.contains("upgrade: websocket") {
            return Step::Send(support::raw_server::ok("{}"));
        }
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n";
        let refused = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
        Step::Send(format!("HTTP/1.1 100 Continue\r\n\r\n{hints}{refused}").into_bytes())
    })
    .await;
    let gateway = Setup::before(server.addr).start().await;
    let handshake = Call::get("/doc/d/c/?EIO=4&transport=websocket")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    let answer = handshake.send(gateway.addr).await;
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
}

#[tokio::test]
async fn a_reply_of_many_megabytes_gets_through() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 1, 0).await;
    let chat = "y".repeat(12 << 20);
    server.add_to_replies(json!({"messages": [{"message": chat}]}));
    let (mut editor, opened) = gateway.open(&Open::editor("d", "u")).await;
    let reply = opened.reply();
    assert_eq!(reply["messages"][0]["message"].as_str().unwrap().len(), 12 << 20);
    editor.say(&json!({"type": "isSaveLock", "syncChangesIndex": 0})).await;
    editor.hear_message("saveLock").await;
}

#[tokio::test]
async fn a_reply_beyond_all_bounds_is_refused_in_words() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 1, 0).await;
    server.add_to_replies(json!({"messages": [{"message": "y".repeat(70 << 20)}]}));
    gateway.refuse(&Open::editor("d", "u")).await;
    gateway.await_seats(EDITORS, 0.0).await;
    gateway.await_log("bytes would wait for a decision").await;
}

#[tokio::test]
async fn another_licence_counts_what_runs_and_throws_nobody_out() {
    let server = StandIn::start().await;
    let gateway = Setup::before(server.addr)
        .default_licence(|id| LicenceFile::connections(id, 9, 0))
        .licence(LicenceFile::connections("smaller", 1, 0))
        .set("enforcement.reconnect_grace", "60s")
        .start()
        .await;
    let mut editor = gateway.admit(&Open::editor("d", "socket")).await;
    let (poller, opened) = Poller::open(gateway.addr, &Open::editor("d", "poller")).await;
    opened.reply();
    let (lost, opened) = gateway.open(&Open::editor("d", "lost")).await;
    let session = opened.reply()["sessionId"].clone();
    lost.reset();
    let grace = [("tenant", "default"), ("kind", EDITORS)];
    eventually("one is lost", async || {
        let kept = gateway.metrics().await.get("seatgate_seats_grace", &grace);
        (kept == Some(1.0)).then_some(())
    })
    .await;
    let file = gateway.folder().join("seatgate.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, config.replace(DEFAULT_LICENCE, "smaller")).unwrap();
    gateway.signal("HUP");
    eventually("all three count against the new licence", async || {
        let seats = run(&gateway, &["seats", "list", "--json"]).await.json();
        let seats = seats.as_array().unwrap().clone();
        let moved = seats.iter().all(|seat| seat["licence"] == "smaller");
        (seats.len() == 3 && moved).then_some(())
    })
    .await;
    assert_eq!(gateway.seats("default", EDITORS).await, 3.0);
    gateway.refuse(&Open::editor("d", "new")).await;
    editor.say(&json!({"type": "isSaveLock", "syncChangesIndex": 0})).await;
    editor.hear_message("saveLock").await;
    let again = Open::editor("d", "lost").with("sessionId", session);
    let back = gateway.admit(&again).await;
    back.goodbye().await;
    poller.post(&["41", "1"]).await;
    editor.goodbye().await;
    gateway.await_seats(EDITORS, 0.0).await;
    gateway.admit(&Open::editor("d", "new")).await;
}

/// A value of a client's stands in the server's replies, some levels deeper than the client wrote it.
#[tokio::test]
async fn a_reply_is_judged_however_deep_it_is() {
    // Too deep for a reader of JSON that is a test's.
    let is_yes =
        |heard: &Heard| matches!(heard, Heard::Text(text) if text.contains(r#""result":1"#));
    for depth in [500, 600] {
        let server = StandIn::start().await;
        let deep = (0..depth).fold(json!("x"), |inner, _| json!([inner]));
        server.add_to_replies(json!({"messages": [{"message": deep}]}));
        let gateway = Gateway::users(&server, 2, 0).await;
        let first = Open::editor("d", "first");
        let mut editor = gateway.dial("d").connect().await;
        editor.greet(&first).await;
        editor.send(&first.auth_packet()).await.unwrap();
        while !is_yes(&editor.hear().await) {}
        let second = Open::editor("d", "second");
        let mut poller = Poller::connect(gateway.addr, "d").await;
        poller.greet(&second).await;
        poller.post(&[&second.auth_packet()]).await;
        while !is_yes(&poller.hear().await) {}
        gateway.refuse(&Open::editor("d", "third")).await;
        editor.goodbye().await;
        assert_eq!(poller.post(&["41", "1"]).await.text(), "ok");
        gateway.await_connections("websocket", 0.0).await;
        assert_eq!(gateway.seats("default", "editor_users").await, 2.0, "{depth}: counted");
    }
}
