//! What is not the gateway's business passes through it unchanged, and what must not reach the
//! document server does not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::gateway::free_address;
use support::http::Connection;
use support::raw_server::{Step, ok};
use support::{Call, Gateway, Open, RawServer, Setup, StandIn, eventually, pattern};

const MEBIBYTE: u64 = 1 << 20;

#[tokio::test]
async fn every_method_reaches_the_server() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "X-ODD"] {
        let answer = Call::new(method, "/thing").send(gateway.addr).await;
        assert_eq!(answer.status, 200, "{method}");
        assert_eq!(answer.header("x-stand-in"), Some("yes"), "{method}");
        assert_eq!(answer.json()["method"], method);
    }
}

#[tokio::test]
async fn odd_targets_arrive_byte_for_byte() {
    let server = RawServer::start(|_| Step::Send(ok("seen"))).await;
    let gateway = Setup::before(server.addr).start().await;
    let long = format!("/long?q={}", "x%20".repeat(2000));
    let targets: [&[u8]; 17] = [
        b"/",
        b"/a%2Fb%2fc",
        b"/a+b%20c;p=1,2",
        b"/%E6%96%87%E4%BB%B6.docx",
        "/文件.docx".as_bytes(),
        b"/x?",
        b"/x??a=b&&c=%00&d",
        b"/x|y[z]",
        b"/x?a[]=1&b={y}|z^`\\",
        b"/a//b///c",
        b"/a/./b",
        b"/a/../b",
        b"/~user/$&'()*!@:=",
        b"/x?redirect=http://evil.example/../info",
        b"/cache/files/data/k_1/Editor.bin/Editor.bin?md5=Zx-_&expires=1&shardkey=k&filename=a%2Bb",
        b"/9.3.0-abc123/web-apps/apps/api/documents/api.js",
        long.as_bytes(),
    ];
    let mut wrong = Vec::new();
    for target in targets {
        let shown = String::from_utf8_lossy(target);
        let answer = Call::get(target).send(gateway.addr).await;
        let seen = server.seen().pop().map(|request| request.target().to_vec());
        if answer.status != 200 || seen.as_deref() != Some(target) {
            wrong.push(format!("{shown}: {}, the server saw {seen:?}", answer.status));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // What no URL may hold (RFC 3986) need not pass, but it is never altered.
    for target in [r#"/x?a="b""#, "/x?<y>", "/<y>"] {
        let answer = Call::get(target).send(gateway.addr).await;
        if answer.status != 400 {
            let seen = server.seen().pop().expect("the server saw it");
            assert_eq!(String::from_utf8_lossy(seen.target()), target);
        }
    }
}

#[tokio::test]
async fn bodies_arrive_whole() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    let body = pattern::bytes(300_000);
    let chunks = body.chunks(4_321).map(<[u8]>::to_vec).collect();
    for call in [
        Call::post("/up", body.clone()),
        Call::new("PUT", "/up").chunks(chunks),
        Call::post("/up", body.clone()).header("Expect", "100-continue"),
    ] {
        let answer = call.send(gateway.addr).await;
        assert_eq!(answer.status, 200);
        let seen = server.requests().pop().unwrap();
        assert!(seen.body.complete && seen.body.start == body, "{} bytes", seen.body.length);
    }
    let answer = Call::post("/up", "").send(gateway.addr).await;
    assert_eq!(answer.json()["length"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_bodies_are_streamed() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    let size = 100 * MEBIBYTE;
    gateway.get("/warm-up").await;
    let before = gateway.resident_bytes();
    for call in [Call::post("/up", "").pattern(size), Call::post("/up", "").pattern_chunks(size)] {
        let echo = call.send(gateway.addr).await.json();
        assert_eq!((&echo["length"], &echo["is_pattern"]), (&json!(size), &json!(true)));
    }
    for kind in ["bytes", "chunked"] {
        let answer = gateway.get(&format!("/stand-in/{kind}/{size}")).await;
        assert!(answer.is_pattern(size), "{kind}");
    }
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 32 * MEBIBYTE, "bodies are kept in memory: {} MiB more", grown / MEBIBYTE);
}

#[tokio::test]
async fn answers_pass_unchanged() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    for size in [0, 1, 300_000] {
        for kind in ["bytes", "chunked"] {
            let answer = gateway.get(&format!("/stand-in/{kind}/{size}")).await;
            assert!(answer.is_pattern(size), "{kind} {size}");
        }
    }
    for code in [201, 204, 302, 400, 401, 404, 409, 500, 503] {
        assert_eq!(gateway.get(&format!("/stand-in/status/{code}")).await.status, code);
    }
    let head = Call::new("HEAD", "/stand-in/bytes/77").send(gateway.addr).await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("77")));
    let known = Call::get("/stand-in/etag").header("If-None-Match", "\"one\"");
    let known = known.send(gateway.addr).await;
    assert_eq!((known.status, known.header("etag")), (304, Some("\"one\"")));
    let cookies = gateway.get("/stand-in/cookies").await;
    let cookies =
        cookies.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
    assert_eq!(cookies.count(), 2);
    assert_eq!(gateway.get("/healthcheck").await.text(), "true");
}

#[tokio::test]
async fn a_connection_carries_many_requests() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    let mut connection = Connection::open(gateway.addr).await.unwrap();
    for number in 0..20 {
        let target = format!("/number/{number}");
        let call = match number % 3 {
            0 => Call::get(&target),
            1 => Call::post(&target, vec![b'x'; 10_000]),
            _ => Call::new("HEAD", &target),
        };
        assert_eq!(connection.send(&call).await.unwrap().status, 200, "{target}");
        assert_eq!(server.requests().pop().unwrap().target, target);
    }
}

#[tokio::test]
async fn headers_of_strangers_are_replaced() {
    let server = StandIn::start().await;
    let none: Vec<String> = Vec::new();
    let gateway = Setup::before(server.addr).set("server.trusted_proxies", none).start().await;
    let call = Call::get("/x")
        .header("Host", "docs.example:8080")
        .header("X-Forwarded-For", "10.1.2.3, 10.4.5.6")
        .header("X-Forwarded-Host", "evil.example")
        .header("x-forwarded-host", "worse.example")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Prefix", "/evil")
        .header("Cloudfront-Forwarded-Proto", "https")
        .header("X-Custom", "kept")
        .from("127.0.0.7");
    call.send(gateway.addr).await;
    let seen = server.requests().pop().unwrap();
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.7"]);
    assert_eq!(seen.all("x-forwarded-host"), ["docs.example:8080"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.header("x-forwarded-prefix").unwrap_or_default(), "");
    assert_eq!(seen.header("cloudfront-forwarded-proto"), None);
    assert_eq!(seen.header("x-custom"), Some("kept"));
}

#[tokio::test]
async fn headers_of_trusted_proxies_are_kept() {
    let server = StandIn::start().await;
    let trusted = vec!["127.0.0.2/32", "192.0.2.128/25"];
    let gateway = Setup::before(server.addr).set("server.trusted_proxies", trusted).start().await;
    let call = |forwarded_for: &str| {
        Call::get("/x")
            .header("X-Forwarded-For", forwarded_for)
            .header("X-Forwarded-Host", "docs.example")
            .header("X-Forwarded-Proto", "https")
            .header("X-Forwarded-Prefix", "/office")
            .from("127.0.0.2")
    };
    call("203.0.113.5").send(gateway.addr).await;
    let seen = server.requests().pop().unwrap();
    assert_eq!(seen.all("x-forwarded-host"), ["docs.example"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
    assert_eq!(seen.all("x-forwarded-prefix"), ["/office"]);
    // The server filters by the leftmost address: it must be the client's, not one it made up.
    for (told, client) in [
        ("203.0.113.5", "203.0.113.5"),
        ("10.1.2.3, 203.0.113.5", "203.0.113.5"),
        ("10.1.2.3, 203.0.113.5, 192.0.2.200", "203.0.113.5"),
    ] {
        call(told).send(gateway.addr).await;
        let seen = server.requests().pop().unwrap();
        let all = seen.all("x-forwarded-for").join(",");
        let leftmost = all.split(',').next().unwrap_or_default().trim();
        assert_eq!(leftmost, client, "of {told:?} became {all:?}");
    }
    // The same from a stranger.
    call("203.0.113.5").from("127.0.0.3").send(gateway.addr).await;
    let seen = server.requests().pop().unwrap();
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.3"]);
    assert_ne!(seen.all("x-forwarded-host"), ["docs.example"]);
}

#[tokio::test]
async fn the_websocket_handshake_gets_the_same_headers() {
    let server = StandIn::start().await;
    let none: Vec<String> = Vec::new();
    let gateway = Setup::before(server.addr).set("server.trusted_proxies", none).start().await;
    let open = Open::viewer("d", "u");
    let dial = gateway.dial("d").host("docs.example").header("X-Forwarded-Host", "evil.example");
    let dial = dial.header("X-Forwarded-For", "10.1.2.3").header("X-Forwarded-Prefix", "/evil");
    let _editor = dial.from("127.0.0.7").admit(&open).await;
    let seen = server.requests().pop().unwrap();
    assert_eq!(seen.target, "/doc/d/c/?shardkey=d&EIO=4&transport=websocket");
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.7"]);
    assert_eq!(seen.all("x-forwarded-host"), ["docs.example"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.header("x-forwarded-prefix").unwrap_or_default(), "");
    assert!(seen.header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")));
    assert_eq!(seen.header("sec-websocket-extensions"), None, "the server never compresses");
}

#[tokio::test]
async fn the_virtual_path_goes_into_its_header_only() {
    let server = StandIn::start().await;
    let gateway =
        Setup::before(server.addr).set("document_server.path_prefix", "/docs").start().await;
    for (asked, forwarded) in [
        ("/docs/web-apps/x.js?a=1", "/web-apps/x.js?a=1"),
        ("/docs/9.3.0-abc/web-apps/x.js", "/9.3.0-abc/web-apps/x.js"),
        ("/docs/", "/"),
        ("/docs?a", "/?a"),
    ] {
        assert_eq!(gateway.get(asked).await.status, 200, "{asked}");
        let seen = server.requests().pop().unwrap();
        assert_eq!(seen.target, forwarded);
        assert_eq!(seen.all("x-forwarded-prefix"), ["/docs"]);
    }
    // A trusted proxy in front may have taken off a part of its own.
    Call::get("/docs/x").header("X-Forwarded-Prefix", "/outer").send(gateway.addr).await;
    let seen = server.requests().pop().unwrap();
    assert_eq!(seen.all("x-forwarded-prefix"), ["/outer/docs"]);
    let target = "/docs/doc/d/c/?EIO=4&transport=websocket";
    let _editor = gateway.dial("d").target(target).admit(&Open::editor("d", "u")).await;
    let seen = server.requests().pop().unwrap();
    assert_eq!(seen.target, "/doc/d/c/?EIO=4&transport=websocket");
    assert_eq!(seen.all("x-forwarded-prefix"), ["/docs"]);
}

#[tokio::test]
async fn the_version_prefix_is_taken_off_for_a_bare_service() {
    let server = RawServer::start(|_| Step::Send(ok("seen"))).await;
    let setup = Setup::before(server.addr).set("document_server.strip_version_prefix", true);
    let gateway = setup.start().await;
    gateway.get("/9.3.0-abc123/downloadas/k?cmd=%7B%7D").await;
    assert_eq!(server.seen()[0].target(), b"/downloadas/k?cmd=%7B%7D");
}

#[tokio::test]
async fn only_websocket_is_upgraded() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    for protocol in ["h2c", "foo", "TLS/1.0", "h2c, websocket"] {
        let call =
            Call::get("/x").header("Upgrade", protocol).header("Connection", "Upgrade, close");
        assert_eq!(call.send(gateway.addr).await.status, 200, "{protocol}");
        let seen = server.requests().pop().unwrap();
        assert!(matches!(seen.header("upgrade"), None | Some("websocket")), "{protocol}");
    }
}

/// Other spellings of a path under which some layer of the document server knows it.
fn aliases(name: &str, rest: &str) -> Vec<String> {
    let (first, tail) = name.split_at(1);
    let hex = format!("%{:02x}{tail}", first.as_bytes()[0]);
    let upper = name.to_uppercase();
    vec![
        format!("/{name}"),
        format!("/{name}/"),
        format!("/{name}?a=1"),
        format!("/{name}/{rest}"),
        format!("//{name}/{rest}"),
        format!("/{name}//{rest}"),
        format!("/{upper}/{rest}"),
        format!("/{hex}/{rest}"),
        format!("/{}/{rest}", hex.to_uppercase()),
        format!("/./{name}/{rest}"),
        format!("/x/../{name}/{rest}"),
        format!("/%2e/{name}/{rest}"),
        format!("/x/%2E%2e/{name}/{rest}"),
        format!("/../{name}/{rest}"),
        format!("/9.3.0-abc/{name}/{rest}"),
        format!("/9.3.0-abc//{hex}/{rest}"),
        format!("/9.3.0-abc/x/../{upper}/{rest}"),
        format!("/x/../9.3.0-abc/{name}/{rest}"),
        format!("http://127.0.0.1/{name}/{rest}"),
    ]
}

#[tokio::test]
async fn the_servers_own_pages_are_closed_to_the_public() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    let mut all = aliases("info", "info.json");
    all.extend(aliases("internal", "connections/edit"));
    for target in all {
        for call in [
            Call::get(&target),
            Call::post(&target, "x"),
            Call::get(&target).header("X-Forwarded-For", "127.0.0.1"),
            Call::get(&target).header("Upgrade", "websocket").header("Connection", "Upgrade"),
        ] {
            let answer = call.send(gateway.addr).await;
            // The absolute form need not be understood, as long as it is not passed on.
            let refused = if target.starts_with('/') { 403..=403 } else { 400..=403 };
            assert!(refused.contains(&answer.status), "{target}: {}", answer.status);
            assert_eq!(answer.header("x-stand-in"), None);
        }
    }
    assert!(server.requests().is_empty(), "the server saw {:?}", server.requests());
    for target in ["/information", "/x/info", "/internals", "/x?/info"] {
        let answer = gateway.get(target).await;
        assert_eq!(answer.header("x-stand-in"), Some("yes"), "{target} is forwarded");
    }
}

#[tokio::test]
async fn the_servers_own_pages_are_closed_under_the_virtual_path_too() {
    let server = StandIn::start().await;
    let gateway =
        Setup::before(server.addr).set("document_server.path_prefix", "/docs").start().await;
    for target in [
        "/docs/info/info.json",
        "/docs//info/info.json",
        "/DOCS/../docs/info",
        "/docs/9.3.0-abc/info",
        "/docs/x/../%69nfo",
        "/x/../docs/info",
        "//docs/info",
        "/docs/docs/../info",
        "/info",
    ] {
        let answer = gateway.get(target).await;
        assert_eq!(answer.header("x-stand-in"), None, "{target}");
        assert!(matches!(answer.status, 403 | 404), "{target}: {}", answer.status);
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn operators_reach_the_servers_own_pages() {
    let server = StandIn::start().await;
    let gateway = Setup::before(server.addr)
        .set("server.operators", vec!["127.0.0.9/32", "10.0.0.0/8"])
        .set("server.trusted_proxies", vec!["127.0.0.2/32"])
        .start()
        .await;
    let call = |source: &str| Call::get("/info/info.json").from(source);
    let told = |source: &str, clients: &str| call(source).header("X-Forwarded-For", clients);
    for (call, status, why) in [
        (call("127.0.0.9"), 200, "an operator"),
        (call("127.0.0.1"), 403, "somebody else"),
        (told("127.0.0.2", "10.1.2.3"), 200, "an operator behind a trusted proxy"),
        (told("127.0.0.1", "10.1.2.3"), 403, "a stranger who says so"),
        (told("127.0.0.2", "10.1.2.3, 203.0.113.5"), 403, "a stranger who told the proxy so"),
        (told("127.0.0.2", "203.0.113.5"), 403, "a stranger behind a trusted proxy"),
        (call("127.0.0.2"), 403, "the proxy itself"),
        (told("127.0.0.9", "203.0.113.5"), 200, "an operator whom nobody trusts to tell"),
    ] {
        assert_eq!(call.send(gateway.addr).await.status, status, "{why}");
    }
    // What one reader takes for their page, and another for a session.
    for path in ["/doc/d/c/..%5c..%5c..%5cinfo", "/doc/d/c/%2e%2e/%2e%2e/%2e%2e/info"] {
        let handshake = Call::get(format!("{path}?EIO=4&transport=polling")).from("127.0.0.9");
        assert_eq!(handshake.send(gateway.addr).await.status, 403, "{path}");
    }
}

#[tokio::test]
async fn a_dead_server_is_told_in_the_clients_language() {
    let dead = free_address();
    let gateway = Setup::before(dead).start().await;
    let json = Call::get("/x").header("Accept", "application/json").send(gateway.addr).await;
    assert_eq!(json.status, 502);
    assert!(json.header("content-type").is_some_and(|kind| kind.starts_with("application/json")));
    let body = json.json();
    assert!(body["error"].is_string() && body["message"].is_string(), "{body}");
    assert!(json.text().contains(&dead.to_string()), "says which server: {body}");

    let accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let page = Call::get("/x").header("Accept", accept).send(gateway.addr).await;
    assert_eq!(page.status, 502);
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    assert!(page.text().to_lowercase().contains("<html"), "{}", page.text());

    let upgrade = gateway.dial("d").try_connect().await;
    assert!(upgrade.is_err(), "no server, no WebSocket");
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up() {
    let server = StandIn::start().await;
    let gateway =
        Setup::before(server.addr).set("document_server.read_timeout", "1s").start().await;
    let started = Instant::now();
    let call = Call::get("/stand-in/slow/20000").header("Accept", "application/json");
    let answer = call.send(gateway.addr).await;
    assert_eq!(answer.status, 504);
    assert!(answer.json()["message"].is_string());
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[tokio::test]
async fn slow_answers_are_waited_for() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    assert_eq!(gateway.get("/stand-in/slow/2500").await.text(), "late");
}

#[tokio::test]
async fn who_leaves_takes_the_waiting_request_along() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    let mut connection = Connection::open(gateway.addr).await.unwrap();
    let head = "GET /stand-in/slow/60000 HTTP/1.1\r\nHost: h\r\n\r\n";
    connection.write(head.as_bytes()).await.unwrap();
    eventually("the request waits", async || (server.parked() == 1).then_some(())).await;
    drop(connection);
    eventually("it is given up", async || (server.parked() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_stale_connection_does_not_fail_a_request() {
    let server = StandIn::start().await;
    let gateway = Gateway::before(&server).await;
    for attempt in 0..10 {
        let answer = gateway.get("/stand-in/stale").await;
        assert_eq!(answer.status, 200, "attempt {attempt}");
    }
    // A POST may not be repeated blindly, but it must not hang either.
    for _ in 0..4 {
        let answer = Call::post("/stand-in/stale", "x").send(gateway.addr).await;
        assert!(matches!(answer.status, 200 | 502), "{}", answer.status);
    }
}

#[tokio::test]
async fn a_server_that_comes_back_is_used_again() {
    let server = StandIn::start().await;
    let address = server.addr;
    let gateway = Gateway::before(&server).await;
    assert_eq!(gateway.get("/x").await.status, 200);
    drop(server);
    eventually("it is gone", async || (gateway.get("/x").await.status == 502).then_some(())).await;
    let _server = eventually("the address is free again", async || {
        let probe = tokio::net::TcpListener::bind(address).await;
        drop(probe.ok()?);
        Some(StandIn::builder().bind(address).start().await)
    })
    .await;
    eventually("it is used", async || (gateway.get("/x").await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn a_document_stays_on_one_of_several_servers() {
    let (one, two) = (StandIn::start().await, StandIn::start().await);
    let addresses = vec![one.addr.to_string(), two.addr.to_string()];
    let gateway = Setup::before(one.addr).set("document_server.addresses", addresses).start().await;
    for document in 0..12 {
        let document = format!("document-{document}");
        for user in ["a", "b", "c"] {
            let _viewer = gateway.admit(&Open::viewer(&document, user)).await;
        }
    }
    let documents = |server: &StandIn| {
        let auths = server.auths();
        let of = |message: &Value| message["docid"].as_str().unwrap().to_owned();
        let mut all: Vec<String> = auths.iter().map(|auth| of(&auth.message)).collect();
        let opens = all.len();
        all.sort_unstable();
        all.dedup();
        (all, opens)
    };
    let ((first, first_opens), (second, second_opens)) = (documents(&one), documents(&two));
    assert_eq!(first_opens + second_opens, 36);
    assert!(!first.is_empty() && !second.is_empty(), "both are used");
    assert!(first.iter().all(|document| !second.contains(document)), "{first:?} {second:?}");
}
