//! Document servers behind TLS: every way to them is over TLS, and only the right server will do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::path::Path;

use serde_json::json;
use support::gateway::{EDITORS, Gateway};
use support::tls::{Authority, Pair, Relay, tls_before};
use support::{Call, Open, Poller, Setup, StandIn, eventually};

/// A stand-in behind TLS with a certificate of `names`, and a gateway that knows `authority`.
async fn start(
    server: &StandIn,
    pair: &Pair,
    authority: &Authority,
    folder: &Path,
    change: impl FnOnce(Setup) -> Setup,
) -> (Relay, Gateway) {
    let front = tls_before(server.addr, pair).await;
    let file = folder.join("authority.pem");
    std::fs::write(&file, &authority.pem).unwrap();
    let setup = Setup::before(server.addr)
        .set("document_server.addresses", vec![format!("https://{}", front.addr)])
        .set("document_server.tls_ca", file.display().to_string());
    let gateway = change(setup).start().await;
    (front, gateway)
}

async fn health(gateway: &Gateway) -> Option<bool> {
    let answer = Call::get("/readyz").send(gateway.ops).await.json();
    answer["document_servers"][0]["healthy"].as_bool()
}

#[tokio::test]
async fn everything_goes_over_tls_to_the_right_server() {
    let server = StandIn::start().await;
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let pair = authority.issue(&["127.0.0.1"]);
    let (_front, gateway) = start(&server, &pair, &authority, folder.path(), |setup| setup).await;

    // Forwarded, a command, a WebSocket, polling, the gateway's own question and health.
    assert_eq!(gateway.get("/healthcheck").await.text(), "true");
    let command = Call::post("/command", r#"{"c":"version"}"#).send(gateway.addr).await;
    assert_eq!(command.status, 200);
    let mut editor = gateway.admit(&Open::editor("d", "u")).await;
    editor.say(&json!({"type": "isSaveLock", "syncChangesIndex": 0})).await;
    editor.hear_message("saveLock").await;
    let (poller, opened) = Poller::open(gateway.addr, &Open::editor("d", "v")).await;
    opened.reply();
    poller.upgrade().await.goodbye().await;
    gateway.await_seats(EDITORS, 1.0).await;
    editor.goodbye().await;
    gateway.await_log("\"version\":\"9.3.0\",\"number\":138").await;
    eventually("the server is healthy", async || {
        let asked = server
            .all_requests()
            .iter()
            .any(|seen| seen.target == "/healthcheck" && seen.header("host") == Some("localhost"));
        (asked && health(&gateway).await == Some(true)).then_some(())
    })
    .await;
    // A large body both ways, over a pooled connection.
    for _ in 0..3 {
        let upload = Call::new("POST", "/upload").pattern(3_000_000).send(gateway.addr).await;
        assert_eq!(upload.status, 200);
        assert!(server.requests().pop().unwrap().body.is_pattern);
        let download = gateway.get("/stand-in/bytes/3000000").await;
        assert!(download.is_pattern(3_000_000));
    }
}

#[tokio::test]
async fn a_server_that_is_not_the_right_one_gets_nothing() {
    let server = StandIn::start().await;
    let (authority, stranger) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    for (pair, what) in [
        (stranger.issue(&["127.0.0.1"]), "of another authority"),
        (authority.issue(&["other.example"]), "of another name"),
        (authority.issue_until(&["127.0.0.1"], 2021), "that is over"),
    ] {
        let (_front, gateway) =
            start(&server, &pair, &authority, folder.path(), |setup| setup).await;
        server.forget();
        for call in [
            Call::get("/healthcheck"),
            Call::post("/command", r#"{"c":"version"}"#),
            Call::get("/doc/d/c/?EIO=4&transport=polling"),
        ] {
            let answer = call.send(gateway.addr).await;
            assert_eq!(answer.status, 502, "a certificate {what}: {}", answer.text());
        }
        assert!(gateway.dial("d").try_connect().await.is_err(), "a certificate {what}");
        assert!(server.all_requests().is_empty(), "a certificate {what}: something got through");
        let failures = gateway.metrics().await;
        let connect = failures.sum("seatgate_upstream_failures_total", &[("kind", "connect")]);
        assert!(connect >= 4.0, "{connect}");
    }
}

#[tokio::test]
async fn another_name_can_be_stated_and_trust_be_switched_off() {
    let server = StandIn::start().await;
    let (authority, stranger) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let named = authority.issue(&["docs.internal"]);
    let (_front, gateway) = start(&server, &named, &authority, folder.path(), |setup| {
        setup.set("document_server.tls_server_name", "docs.internal")
    })
    .await;
    assert_eq!(gateway.get("/healthcheck").await.text(), "true");

    let pair = stranger.issue(&["other.example"]);
    let (_front, gateway) = start(&server, &pair, &authority, folder.path(), |setup| {
        setup.set("document_server.tls_verify", false)
    })
    .await;
    assert_eq!(gateway.get("/healthcheck").await.text(), "true");
    gateway.admit(&Open::editor("d", "u")).await.goodbye().await;
    gateway.await_log("can read and change all").await;
}

#[tokio::test]
async fn an_authority_is_taken_anew_and_pools_are_not_mixed() {
    let server = StandIn::start().await;
    let (authority, stranger) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let pair = authority.issue(&["127.0.0.1"]);
    let (_front, gateway) = start(&server, &pair, &authority, folder.path(), |setup| setup).await;
    assert_eq!(gateway.get("/healthcheck").await.text(), "true");
    // A connection of before is in the pool now; it must not serve those who trust others.
    std::fs::write(folder.path().join("authority.pem"), &stranger.pem).unwrap();
    gateway.signal("HUP");
    eventually("the server is trusted no more", async || {
        (gateway.get("/healthcheck").await.status == 502).then_some(())
    })
    .await;
    std::fs::write(folder.path().join("authority.pem"), "nothing").unwrap();
    gateway.signal("HUP");
    gateway.await_log("authority.pem: there is no certificate in it").await;
    std::fs::write(folder.path().join("authority.pem"), &authority.pem).unwrap();
    gateway.signal("HUP");
    eventually("the server is trusted again", async || {
        (gateway.get("/healthcheck").await.status == 200).then_some(())
    })
    .await;
}

/// One that speaks no TLS, and one that never answers the handshake.
#[tokio::test]
async fn a_server_without_tls_is_told_in_time() {
    let server = StandIn::start().await;
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, &authority.pem).unwrap();
    let setup = |address: String| {
        Setup::before(server.addr)
            .set("document_server.addresses", vec![format!("https://{address}")])
            .set("document_server.tls_ca", file.display().to_string())
            .set("document_server.connect_timeout", "300ms")
    };
    let gateway = setup(server.addr.to_string()).start().await;
    assert_eq!(gateway.get("/healthcheck").await.status, 502);
    assert!(gateway.dial("d").try_connect().await.is_err());

    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = setup(silent.local_addr().unwrap().to_string()).start().await;
    assert_eq!(gateway.get("/healthcheck").await.status, 504);
    assert!(gateway.dial("d").try_connect().await.is_err());
}
