//! Broken, oversized and slow HTTP: answered, cut or waited for, but never believed, and never at
//! the cost of the others.

use std::time::{Duration, Instant};

use crate::support::http::Connection;
use crate::support::{Call, Gateway, StandIn};

#[tokio::test]
async fn ten_thousand_headers_are_refused() {
    let server = StandIn::start().await;
    let mut gateway = Gateway::before(&server).await;
    for (count, length) in [(10_000, 10), (100, 100_000)] {
        let mut call = Call::get("/x");
        for number in 0..count {
            call = call.header(&format!("X-H{number}"), &"v".repeat(length));
        }
        // Refused or cut.
        if let Ok(answer) = call.try_send(gateway.addr).await {
            assert!(matches!(answer.status, 400 | 431), "{}", answer.status);
        }
    }
    assert!(server.requests().is_empty());
    gateway.assert_alive().await;
}

#[tokio::test]
async fn requests_that_two_could_read_differently_are_refused() {
    let server = StandIn::start().await;
    let mut gateway = Gateway::before(&server).await;
    let smuggled = "GET /info/info.json HTTP/1.1\r\nHost: h\r\n\r\n";
    let length = smuggled.len();
    for (what, head) in [
        (
            "both lengths",
            format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        ("two lengths", format!("Content-Length: 0\r\nContent-Length: {length}\r\n\r\n")),
        ("a list of lengths", format!("Content-Length: 0, {length}\r\n\r\n")),
        ("a signed length", "Content-Length: +0\r\n\r\n".to_owned()),
        ("an odd coding", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n".to_owned()),
        ("a twice odd coding", "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n".to_owned()),
        ("a space before the colon", "Content-Length : 0\r\n\r\n".to_owned()),
        ("a folded header", "X-A: b\r\n Content-Length: 0\r\n\r\n".to_owned()),
    ] {
        let mut connection = Connection::open(gateway.addr).await.unwrap();
        let request = format!("POST /x HTTP/1.1\r\nHost: h\r\n{head}{smuggled}");
        let _ = connection.write(request.as_bytes()).await;
        let first = connection.read().await;
        let second = match &first {
            Ok(_) => tokio::time::timeout(Duration::from_secs(2), connection.read()).await.ok(),
            Err(_) => None,
        };
        let got = format!("{what}: {first:?} {second:?}");
        assert!(!got.contains("connectionsStat"), "{got}");
        let reached = server.requests().iter().any(|request| request.target.contains("info"));
        assert!(!reached, "{got}");
        server.forget();
    }
    gateway.assert_alive().await;
}

#[tokio::test]
async fn broken_requests_are_answered_or_cut() {
    let server = StandIn::start().await;
    let mut gateway = Gateway::before(&server).await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /command HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /command HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    ] {
        let mut connection = Connection::open(gateway.addr).await.unwrap();
        let _ = connection.write(bytes).await;
        let answer = tokio::time::timeout(Duration::from_secs(3), connection.read()).await;
        if let Ok(Ok(answer)) = answer {
            assert!(answer.status >= 200, "{:?}", String::from_utf8_lossy(bytes));
        }
        drop(connection);
        assert!(gateway.is_running(), "{:?}", String::from_utf8_lossy(bytes));
    }
    gateway.assert_alive().await;
}

/// Drips a request's head, a byte every now and then; returns how long it was put up with.
async fn drip(gateway: &Gateway, limit: Duration) -> Duration {
    let started = Instant::now();
    let mut connection = Connection::open(gateway.addr).await.unwrap();
    let _ = connection.write(b"GET /x HTTP/1.1\r\nHost: h\r\nX-Drip: ").await;
    while started.elapsed() < limit {
        let heard = tokio::time::timeout(Duration::from_millis(500), connection.read()).await;
        // Any answer and any end will do.
        if heard.is_ok() || connection.write(b"x").await.is_err() {
            break;
        }
    }
    started.elapsed()
}

#[tokio::test]
async fn a_slow_head_is_cut() {
    let server = StandIn::start().await;
    let mut gateway = Gateway::before(&server).await;
    let limit = Duration::from_secs(40);
    let held = drip(&gateway, limit).await;
    assert!(held < limit, "a dripping client was put up with for {held:?}");
    gateway.assert_alive().await;
}

#[tokio::test]
async fn slow_clients_keep_nobody_waiting() {
    let server = StandIn::start().await;
    let mut gateway = Gateway::before(&server).await;
    let mut slow = Vec::new();
    for _ in 0..500 {
        let mut connection = Connection::open(gateway.addr).await.unwrap();
        connection.write(b"POST /command HTTP/1.1\r\nHost: h\r\nContent-Le").await.unwrap();
        slow.push(connection);
    }
    for _ in 0..100 {
        let mut connection = Connection::open(gateway.addr).await.unwrap();
        let head = b"POST /command HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n{";
        connection.write(head).await.unwrap();
        slow.push(connection);
    }
    let started = Instant::now();
    gateway.assert_alive().await;
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}
