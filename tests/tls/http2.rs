//! HTTP/2 and WebSockets on one port: every rule holds over either.

use std::time::Duration;

use serde_json::json;

use crate::secured::Secured;
use crate::support::editor::Dial;
use crate::support::gateway::EDITORS;
use crate::support::standin::SeenRequest;
use crate::support::{Open, Poller, StandIn, eventually};

fn last(server: &StandIn) -> SeenRequest {
    server.requests().pop().expect("a request")
}

#[tokio::test]
async fn http_2_and_websockets_share_a_port() {
    let server = StandIn::start().await;
    let secured = Secured::before(server.addr);
    let gateway = secured.start().await;
    let to = secured.over_tls;
    let client = secured.client("house.example");
    // As a browser offers it.
    let stream = client.connect(to, &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let http2 = client.http2(to).await;
    assert!(!http2.sender.is_extended_connect_protocol_enabled(), "RFC 8441 is offered");
    // Who tries all the same gets nowhere.
    let mut request = http2.request("CONNECT", "/doc/d/c/?EIO=4&transport=websocket");
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let tried = client.http2(to).await.try_send(request, b"").await;
    assert!(tried.as_ref().map_or(true, |answer| answer.status >= 400), "{tried:?}");

    let relay = client.relay(to).await;
    let mut editor = Dial::new(relay.addr, "d").admit(&Open::editor("d", "u")).await;
    gateway.await_seats(EDITORS, 1.0).await;
    editor.say(&json!({"type": "isSaveLock", "syncChangesIndex": 0})).await;
    editor.hear_message("saveLock").await;
    let second = Dial::new(relay.addr, "d").admit(&Open::editor("d", "v")).await;
    Dial::new(relay.addr, "d").refuse(&Open::editor("d", "w")).await;
    second.goodbye().await;
    editor.goodbye().await;
    gateway.await_seats(EDITORS, 0.0).await;
    assert_eq!(http2.get("/healthcheck").await.text(), "true");
}

#[tokio::test]
async fn every_rule_holds_over_http_2() {
    let server = StandIn::start().await;
    let secured = Secured::before(server.addr)
        .set("document_server.command_body_limit", "4KiB")
        .set("document_server.path_prefix", "/docs");
    let mut secured = secured;
    secured.setup = secured.setup.app("app", "api-key").tenant(
        "acme",
        &["docs.acme.example"],
        "licence-of-the-house",
    );
    let gateway = secured.start().await;
    let http2 = secured.client("house.example").http2(secured.over_tls).await;

    // The license command, by its tenant's host.
    let body = br#"{"c":"license"}"#;
    for path in ["/coauthoring/CommandService.ashx", "/docs/9.3.0-abc/command"] {
        let answer = http2.post(path, "application/json", body).await;
        assert_eq!(answer.json()["license"]["connections"], 2, "{}", answer.text());
    }
    let forwarded = http2.post("/command", "application/json", br#"{"c":"version"}"#).await;
    assert_eq!(forwarded.status, 200);
    assert_eq!(last(&server).body.start, br#"{"c":"version"}"#);
    let large = http2.post("/command", "application/json", &[b' '; 5000]).await;
    assert_eq!(large.status, 413);

    // What is for operators.
    for path in ["/info/info.json", "/docs/internal/connections/edit", "//INFO", "/x/%2e%2e/info"] {
        assert_eq!(http2.get(path).await.status, 403, "{path}");
    }

    // The validation API.
    let refused = http2.post("/licences/api/validate", "application/json", b"{}").await;
    assert_eq!(refused.status, 401);
    assert_eq!(http2.get("/licences/api/validate").await.status, 405);

    // Forwarding headers: ours, with the authority as the host.
    let mut request = http2.request("GET", "/docs/echo?x=1");
    let headers = request.headers_mut();
    headers.insert("x-forwarded-prefix", "/outer".parse().unwrap());
    headers.append("cookie", "a=1".parse().unwrap());
    headers.append("cookie", "b=2".parse().unwrap());
    http2.send(request, b"").await;
    let seen = last(&server);
    assert_eq!(seen.target, "/echo?x=1");
    assert_eq!(seen.all("host"), [http2.authority.as_str()]);
    assert_eq!(seen.all("x-forwarded-host"), [http2.authority.as_str()]);
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-prefix"), ["/outer/docs"]);
    assert_eq!(seen.all("cookie"), ["a=1; b=2"]);

    // Two opinions about the host are refused.
    let mut request = http2.request("GET", "/docs/echo");
    request.headers_mut().insert("host", "docs.acme.example".parse().unwrap());
    assert_eq!(http2.send(request, b"").await.status, 400);

    // The tenant of the authority.
    let mut acme = secured.client("house.example").http2(secured.over_tls).await;
    acme.authority = "docs.acme.example".to_owned();
    acme.get("/docs/echo").await;
    let count = |tenant: &'static str| {
        let gateway = &gateway;
        async move { gateway.log().matches(&format!("\"tenant\":\"{tenant}\"")).count() }
    };
    eventually("the tenant is logged", async || (count("acme").await >= 1).then_some(())).await;

    // An answer over HEAD, a method that has no business here, and a large body that is forwarded.
    assert_eq!(http2.send(http2.request("HEAD", "/healthcheck"), b"").await.status, 200);
    let uploaded = http2.post("/docs/upload", "text/plain", &vec![b'x'; 900_000]).await;
    assert_eq!(uploaded.status, 200);
    assert_eq!(last(&server).body.length, 900_000);
}

#[tokio::test]
async fn polling_takes_seats_over_http_2() {
    let server = StandIn::start().await;
    let secured = Secured::before(server.addr);
    let gateway = secured.start().await;
    let http2 = secured.client("house.example").http2(secured.over_tls).await;
    let path = "/doc/d/c/?shardkey=d&EIO=4&transport=polling";
    let mut inside = Vec::new();
    for user in ["one", "two", "three"] {
        let open = Open::editor("d", user);
        let opening = http2.get(path).await.text();
        let opening: serde_json::Value = serde_json::from_str(&opening[1..]).unwrap();
        let target = format!("{path}&sid={}", opening["sid"].as_str().unwrap());
        let packets = [open.connect_packet(), open.auth_packet()];
        let mut answers = String::new();
        for packet in packets {
            let posted = http2.post(&target, "text/plain;charset=UTF-8", packet.as_bytes()).await;
            assert_eq!(posted.text(), "ok");
        }
        while !answers.contains("\"auth\"") && !answers.contains("disconnectReason") {
            let polled = http2.get(&target).await;
            assert_eq!(polled.status, 200);
            answers += &polled.text();
        }
        inside.push((answers.contains("\"code\":4004"), target));
    }
    let refused: Vec<bool> = inside.iter().map(|(refused, _)| *refused).collect();
    assert_eq!(refused, [false, false, true]);
    assert_eq!(gateway.seats("default", EDITORS).await, 2.0);

    // A goodbye over HTTP/2 frees its seat, and polling over HTTP/1.1 goes on over a WebSocket.
    let (_, target) = &inside[0];
    let posted = http2.post(target, "text/plain;charset=UTF-8", b"1").await;
    assert_eq!(posted.status, 200);
    gateway.await_seats(EDITORS, 1.0).await;
    let relay = secured.client("house.example").relay(secured.over_tls).await;
    let (poller, opened) = Poller::open(relay.addr, &Open::editor("d", "four")).await;
    opened.reply();
    let mut upgraded = poller.upgrade().await;
    upgraded.say(&json!({"type": "isSaveLock", "syncChangesIndex": 0})).await;
    upgraded.hear_message("saveLock").await;
    assert_eq!(gateway.seats("default", EDITORS).await, 2.0);
    upgraded.goodbye().await;
    gateway.await_seats(EDITORS, 1.0).await;
}

#[tokio::test]
async fn floods_over_http_2_end_their_own_connection() {
    let server = StandIn::start().await;
    let secured = Secured::before(server.addr);
    let mut gateway = secured.start().await;
    let to = secured.over_tls;
    let client = secured.client("house.example");

    // Headers beyond the limit.
    let http2 = client.http2(to).await;
    let mut request = http2.request("GET", "/healthcheck");
    for name in 0..300_u32 {
        let name: ::http::HeaderName = format!("x-{name}").parse().unwrap();
        request.headers_mut().insert(name, "y".parse().unwrap());
    }
    assert_eq!(http2.send(request, b"").await.status, 431);
    let mut request = http2.request("GET", "/healthcheck");
    request.headers_mut().insert("x", "y".repeat(100_000).parse().unwrap());
    let answer = http2.try_send(request, b"").await;
    assert!(answer.as_ref().map_or(true, |answer| answer.status == 431), "{answer:?}");

    // More streams at a time than were offered.
    let http2 = client.http2(to).await;
    eventually("the settings arrive", async || {
        (http2.sender.current_max_send_streams() == 100).then_some(())
    })
    .await;

    // Rapid reset.
    let http2 = client.http2(to).await;
    let mut sender = http2.sender.clone();
    let mut broken = false;
    for _ in 0..20_000 {
        match sender.clone().ready().await {
            Ok(ready) => sender = ready,
            Err(_) => broken = true,
        }
        if broken {
            break;
        }
        let request = http2.request("GET", "/healthcheck");
        match sender.send_request(request, true) {
            Ok((answer, mut stream)) => {
                stream.send_reset(h2::Reason::CANCEL);
                drop(answer);
            }
            Err(_) => broken = true,
        }
        tokio::task::yield_now().await;
    }
    assert!(broken, "twenty thousand streams were opened and reset on one connection");
    gateway.assert_alive().await;
    assert_eq!(client.http2(to).await.get("/healthcheck").await.text(), "true");

    // A connection that never says anything more.
    let idle = client.connect(to, &["h2"]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(idle);
}
