//! TLS listeners: versions, certificates by name, certificates taken anew, clients' certificates.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "tls/http2.rs"]
mod http2;
#[path = "tls/secured.rs"]
mod secured;
mod support;

use std::net::SocketAddr;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use secured::Secured;
use serde_json::json;
use support::editor::Dial;
use support::gateway::{EDITORS, Gateway, free_address, seatgate};
use support::tls::{Authority, Client, Pair};
use support::{Call, Open, StandIn, eventually, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn der(pair: &Pair) -> Vec<u8> {
    CertificateDer::from_pem_slice(pair.chain.as_bytes()).unwrap().to_vec()
}

/// Whether a connection ends without an answer to a request.
async fn is_turned_away(client: &Client, to: SocketAddr) -> bool {
    let Ok(mut stream) = client.connect(to, &["http/1.1"]).await else { return true };
    // In TLS 1.3 a client learns only afterwards that its certificate is not taken.
    let _ = stream.write_all(b"GET /healthcheck HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut answer = [0; 16];
    !matches!(within("an end", stream.read(&mut answer)).await, Ok(1..))
}

async fn reload(gateway: &Gateway, good: bool) {
    let counted = "seatgate_config_last_reload_success_timestamp_seconds";
    let before = gateway.metrics().await.get(counted, &[]);
    gateway.signal("HUP");
    eventually("the configuration is reloaded", async || {
        let metrics = gateway.metrics().await;
        let successful = metrics.get("seatgate_config_last_reload_successful", &[]) == Some(1.0);
        let done = if good { metrics.get(counted, &[]) != before } else { !successful };
        (done && successful == good).then_some(())
    })
    .await;
}

#[tokio::test]
async fn versions_1_2_and_1_3_are_spoken_and_nothing_older() {
    let server = StandIn::start().await;
    let secured = Secured::before(server.addr);
    let gateway = secured.start().await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let relay = secured.client("house.example").version(version).relay(secured.over_tls).await;
        assert_eq!(Call::get("/healthcheck").send(relay.addr).await.text(), "true");
    }
    let seen = server.requests();
    let forwarded: Vec<_> =
        seen.iter().filter_map(|seen| seen.header("x-forwarded-proto")).collect();
    assert_eq!(forwarded, ["https", "https"]);

    // A ClientHello of TLS 1.1, as OpenSSL would write it: version 3.2, one old cipher suite.
    let mut body = vec![3, 2];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
    let mut hello = vec![0x16, 3, 1, 0, u8::try_from(body.len() + 4).unwrap(), 1, 0, 0];
    hello.push(u8::try_from(body.len()).unwrap());
    hello.extend(body);
    let mut stream = TcpStream::connect(secured.over_tls).await.unwrap();
    stream.write_all(&hello).await.unwrap();
    let mut alert = Vec::new();
    let _ = within("an alert", stream.read_to_end(&mut alert)).await;
    assert_eq!(alert.first(), Some(&0x15), "{alert:?}");
    assert_eq!(alert.get(5), Some(&2), "a fatal alert: {alert:?}");

    // Plain HTTP on the TLS port, and TLS on the plain one.
    let mut stream = TcpStream::connect(secured.over_tls).await.unwrap();
    stream.write_all(b"GET /healthcheck HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = within("an end", stream.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert!(secured.client("house.example").connect(gateway.addr, &[]).await.is_err());
}

#[tokio::test]
async fn the_name_decides_about_the_certificate() {
    let server = StandIn::start().await;
    let mut secured = Secured::before(server.addr);
    let wide = secured.authority.issue(&["*.wide.example"]);
    let own = secured.authority.issue(&["docs.acme.example"]);
    secured = secured.also("wide", &wide);
    let (chain, key) = own.write(secured.folder.path(), "own");
    let tenant = toml::toml! {
        name = "acme"
        hosts = ["docs.acme.example"]
        licence = "licence-of-the-house"
    };
    let mut tenant = tenant;
    tenant.insert("certificate".to_owned(), chain.display().to_string().into());
    tenant.insert("private_key".to_owned(), key.display().to_string().into());
    let secured = secured.set("tenant", vec![toml::Value::Table(tenant)]);
    let gateway = secured.start().await;
    let to = secured.over_tls;
    assert_eq!(secured.client("a.wide.example").shown(to).await.unwrap(), der(&wide));
    assert_eq!(secured.client("docs.acme.example").shown(to).await.unwrap(), der(&own));
    secured.client("house.example").shown(to).await.unwrap();
    // An unknown name gets the first certificate, which its client does not take.
    let error = secured.client("unknown.example").shown(to).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");

    let metrics = gateway.metrics().await;
    let named = |name| metrics.get("seatgate_certificate_end_timestamp_seconds", &[("name", name)]);
    for name in ["house.example", "*.wide.example", "docs.acme.example"] {
        assert_eq!(named(name), Some(2_208_988_800.0), "{name}");
    }
    let checked = seatgate(&["check", "--config", "seatgate.toml"], gateway.folder());
    assert!(checked.status.success());
    assert_eq!(String::from_utf8_lossy(&checked.stderr), "");
}

#[tokio::test]
async fn certificates_are_taken_anew_under_live_connections() {
    let server = StandIn::start().await;
    let secured = Secured::before(server.addr);
    let gateway = secured.start().await;
    let to = secured.over_tls;
    let client = secured.client("house.example");
    let relay = client.relay(to).await;
    let mut editor = Dial::new(relay.addr, "d").admit(&Open::editor("d", "u")).await;
    let http2 = client.http2(to).await;
    assert_eq!(http2.get("/healthcheck").await.text(), "true");
    let before = client.shown(to).await.unwrap();

    let anew = secured.authority.issue(&["house.example"]);
    anew.write(secured.folder.path(), "house");
    reload(&gateway, true).await;
    assert_eq!(client.shown(to).await.unwrap(), der(&anew));
    assert_ne!(before, der(&anew));

    // A key that does not belong, and a file that is gone: the whole reload is refused.
    let other = secured.authority.issue(&["house.example"]);
    let key = secured.folder.path().join("house.key");
    std::fs::write(&key, &other.key).unwrap();
    reload(&gateway, false).await;
    gateway.await_log("house.key: the private key in it does not belong").await;
    assert_eq!(client.shown(to).await.unwrap(), der(&anew));
    std::fs::remove_file(secured.folder.path().join("house.pem")).unwrap();
    gateway.signal("HUP");
    gateway.await_log("house.pem: No such file").await;
    assert_eq!(client.shown(to).await.unwrap(), der(&anew));

    // Nobody noticed.
    editor.say(&json!({"type": "isSaveLock", "syncChangesIndex": 0})).await;
    editor.hear_message("saveLock").await;
    assert_eq!(http2.get("/healthcheck").await.text(), "true");
    assert_eq!(gateway.seats("default", EDITORS).await, 1.0);
}

#[tokio::test]
async fn a_pair_that_does_not_fit_is_told_at_the_start() {
    let server = StandIn::start().await;
    let secured = Secured::before(server.addr);
    let other = secured.authority.issue(&["house.example"]);
    std::fs::write(secured.folder.path().join("house.key"), &other.key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    secured.setup.write(folder.path(), free_address(), free_address());
    for command in ["run", "check"] {
        let run = seatgate(&["--config", "seatgate.toml", command], folder.path());
        assert_eq!(run.status.code(), Some(2));
        let told = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(told.contains("[server.tls] private_key: "), "{told}");
        assert!(told.contains("name the key that the certificate was made for"), "{told}");
    }

    // One that is over is told, and served.
    secured.authority.issue_until(&["house.example"], 2021).write(secured.folder.path(), "house");
    let checked = seatgate(&["check", "--config", "seatgate.toml"], folder.path());
    assert!(checked.status.success());
    let told = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(told.contains("the certificate of house.example is over since 2021"), "{told}");
}

#[tokio::test]
async fn clients_show_certificates_where_that_is_asked() {
    let server = StandIn::start().await;
    let trusted = Authority::new();
    let stranger = Authority::new().issue(&["client.example"]);
    let good = trusted.issue(&["client.example"]);
    for required in [true, false] {
        let secured = Secured::before(server.addr);
        let authorities = secured.folder.path().join("clients.pem");
        std::fs::write(&authorities, &trusted.pem).unwrap();
        let mut secured = secured.set("server.tls.client_ca", authorities.display().to_string());
        if !required {
            secured = secured.set("server.tls.client_auth", "optional");
        }
        let gateway = secured.start().await;
        let to = secured.over_tls;
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let client = secured.client("house.example").version(version);
            assert_eq!(is_turned_away(&client, to).await, required, "without a certificate");
            assert!(!is_turned_away(&client.clone().pair(&good), to).await, "with a good one");
            assert!(is_turned_away(&client.clone().pair(&stranger), to).await, "a stranger's");
        }
        drop(gateway);
    }
}

#[tokio::test]
async fn tickets_of_before_open_nothing_after_a_change_of_authorities() {
    let server = StandIn::start().await;
    let (first, second) = (Authority::new(), Authority::new());
    let pair = first.issue(&["client.example"]);
    let secured = Secured::before(server.addr);
    let authorities = secured.folder.path().join("clients.pem");
    std::fs::write(&authorities, &first.pem).unwrap();
    let secured = secured.set("server.tls.client_ca", authorities.display().to_string());
    let gateway = secured.start().await;
    let connect = secured.client("house.example").pair(&pair).resuming();
    for expected in [false, true] {
        let (answer, resumed) = connect.ask(secured.over_tls).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(resumed, expected);
    }
    std::fs::write(&authorities, &second.pem).unwrap();
    reload(&gateway, true).await;
    assert!(connect.ask(secured.over_tls).await.is_err(), "an old ticket is taken");
}

#[tokio::test]
async fn a_handshake_that_stands_still_is_ended_and_holds_nobody_up() {
    let server = StandIn::start().await;
    let secured = Secured::before(server.addr);
    let _gateway = secured.start().await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(secured.over_tls).await.unwrap();
        stream.write_all(&[0x16, 3, 1]).await.unwrap();
        silent.push(stream);
    }
    let relay = secured.client("house.example").relay(secured.over_tls).await;
    assert_eq!(Call::get("/healthcheck").send(relay.addr).await.text(), "true");
    for mut stream in silent {
        let ended = within("a handshake is given up", stream.read(&mut [0; 8])).await;
        assert!(matches!(ended, Ok(0) | Err(_)));
    }
}
