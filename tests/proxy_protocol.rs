//! The PROXY protocol in front of the plain and the TLS listeners.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use support::gateway::{Gateway, free_address};
use support::tls::{Authority, Client};
use support::{Setup, StandIn, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// The peer that owes headers, and one that must not send any.
const PROXY: &str = "127.0.0.7";
const OTHER: &str = "127.0.0.8";

const REQUEST: &[u8] =
    b"GET /echo HTTP/1.1\r\nHost: docs.example\r\nX-Forwarded-For: 192.0.2.66\r\nConnection: close\r\n\r\n";

fn version_2(command: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([0x20 | command, 0x11]);
    bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn of_client(client: [u8; 4]) -> Vec<u8> {
    let mut payload = client.to_vec();
    payload.extend([10, 0, 0, 1, 0x11, 0x5c, 0, 80]);
    version_2(1, &payload)
}

async fn connect(to: SocketAddr, source: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Sends pieces on a connection of its own; what comes back until its end.
async fn exchange(to: SocketAddr, source: &str, pieces: &[&[u8]]) -> String {
    let mut stream = connect(to, source).await;
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        if stream.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut answer = Vec::new();
    let _ = within("the connection ends", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn start(server: &StandIn) -> Gateway {
    Setup::before(server.addr)
        .set("server.proxy_protocol", vec![PROXY])
        .set("server.trusted_proxies", vec!["192.0.2.0/24"])
        .start()
        .await
}

/// What the document server was told about the last client.
fn told(server: &StandIn) -> String {
    let seen = server.requests().pop().expect("a request");
    seen.header("x-forwarded-for").unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_client_is_the_one_that_the_header_tells() {
    let server = StandIn::start().await;
    let gateway = start(&server).await;
    let with_fields = version_2(1, &[203, 0, 113, 5, 10, 0, 0, 1, 0, 1, 0, 80, 0xe0, 0, 1, 9]);
    for (header, expected) in [
        (b"PROXY TCP4 203.0.113.9 10.0.0.1 4444 80\r\n".to_vec(), "203.0.113.9"),
        (b"PROXY TCP6 2001:db8::9 ::1 4444 80\r\n".to_vec(), "2001:db8::9"),
        (of_client([203, 0, 113, 4]), "203.0.113.4"),
        (with_fields, "203.0.113.5"),
        // A trusted proxy behind the one that passes bytes on: its own headers count.
        (of_client([192, 0, 2, 1]), "192.0.2.66"),
        // The proxy's own connections.
        (b"PROXY UNKNOWN\r\n".to_vec(), PROXY),
        (version_2(0, &[0; 12]), PROXY),
    ] {
        let at_once = [&header[..], REQUEST].concat();
        let answer = exchange(gateway.addr, PROXY, &[&at_once]).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(told(&server), expected);
        // Byte by byte.
        let bytes: Vec<&[u8]> = header.chunks(1).chain([REQUEST]).collect();
        let answer = exchange(gateway.addr, PROXY, &bytes).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(told(&server), expected);
    }
    gateway.await_log("\"client\":\"203.0.113.9\"").await;
}

#[tokio::test]
async fn who_owes_a_header_gets_nothing_without_one() {
    let server = StandIn::start().await;
    let gateway = start(&server).await;
    server.forget();
    for bad in [
        REQUEST.to_vec(),
        [b"PROXY TCP4 203.0.113.9 10.0.0.1 4444 99999\r\n", REQUEST].concat(),
        [b"PROXY UDP4 203.0.113.9 10.0.0.1 4444 80\r\n", REQUEST].concat(),
        [&version_2(3, &[0; 12])[..], REQUEST].concat(),
        [&version_2(1, &[0; 11])[..], REQUEST].concat(),
        version_2(1, &[0; 5000]),
        [b"PROXY TCP4 ", &[b'1'; 3000][..]].concat(),
    ] {
        let answer = exchange(gateway.addr, PROXY, &[&bad]).await;
        assert_eq!(answer, "", "{}", String::from_utf8_lossy(&bad));
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_header_that_does_not_come_is_not_waited_for() {
    let server = StandIn::start().await;
    let gateway = start(&server).await;
    let started = Instant::now();
    let mut slow = connect(gateway.addr, PROXY).await;
    slow.write_all(b"PROXY TCP4 ").await.unwrap();
    // Others are served meanwhile.
    let header = of_client([203, 0, 113, 4]);
    let answer = exchange(gateway.addr, PROXY, &[&[&header[..], REQUEST].concat()]).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let ended = within("it is ended", slow.read(&mut [0; 1])).await;
    assert!(matches!(ended, Ok(0) | Err(_)));
    let waited = started.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(10)).contains(&waited), "{waited:?}");
}

#[tokio::test]
async fn nobody_else_can_say_who_they_are() {
    let server = StandIn::start().await;
    let gateway = start(&server).await;
    for header in [b"PROXY TCP4 203.0.113.9 10.0.0.1 4444 80\r\n".to_vec(), of_client([1, 2, 3, 4])]
    {
        let answer = exchange(gateway.addr, OTHER, &[&[&header[..], REQUEST].concat()]).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    assert!(server.requests().is_empty());
    let answer = exchange(gateway.addr, OTHER, &[REQUEST]).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(told(&server), OTHER);
}

#[tokio::test]
async fn the_header_stands_before_tls() {
    let server = StandIn::start().await;
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = authority.issue(&["house.example"]).write(folder.path(), "house");
    let over_tls = free_address();
    let _gateway = Setup::before(server.addr)
        .set("server.proxy_protocol", vec![PROXY])
        .set("server.tls.listen", vec![over_tls.to_string()])
        .set("server.tls.certificate", chain.display().to_string())
        .set("server.tls.private_key", key.display().to_string())
        .start()
        .await;
    let client = Client::new(&authority, "house.example");
    let header = of_client([203, 0, 113, 4]);
    let proxied = client.clone().from(PROXY).before(&header);
    let (answer, _) = proxied.ask(over_tls).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(told(&server), "203.0.113.4");
    let answer = proxied.http2(over_tls).await.get("/echo").await;
    assert_eq!(answer.status, 200);
    assert_eq!(told(&server), "203.0.113.4");
    // Without one from the proxy, with one from another.
    assert!(client.clone().from(PROXY).ask(over_tls).await.is_err());
    assert!(client.clone().from(OTHER).before(&header).ask(over_tls).await.is_err());
    assert!(client.from(OTHER).ask(over_tls).await.is_ok());
}
