//! Requests that come back to the gateway: refused at the second sight, on every way onward; and
//! two gateways in a row, which are none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use support::gateway::seatgate;
use support::{Call, Gateway, Open, Opened, Poller, Setup, StandIn};
use tokio::net::{TcpListener, TcpStream};

/// Something before the gateway that the gateway takes for its document server.
struct Between {
    addr: SocketAddr,
    target: Arc<OnceLock<SocketAddr>>,
}

impl Between {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let target: Arc<OnceLock<SocketAddr>> = Arc::default();
        let there = Arc::clone(&target);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let Some(there) = there.get().copied() else { continue };
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(there).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Self { addr, target }
    }
}

fn websocket(target: &str) -> Call {
    Call::get(target)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

#[tokio::test]
async fn what_comes_back_is_refused_on_every_way() {
    let between = Between::start().await;
    // Without an end they would take all that there are.
    let mut gateway = Setup::before(between.addr).shell("ulimit -n 512").start().await;
    between.target.set(gateway.addr).unwrap();
    let command = r#"{"c":"version"}"#;
    let calls = [
        Call::get("/x"),
        Call::post("/x", vec![b'x'; 100_000]),
        Call::post("/coauthoring/CommandService.ashx", command),
        Call::get("/doc/d/c/?EIO=4&transport=polling"),
        websocket("/doc/d/c/?EIO=4&transport=websocket"),
        websocket("/somewhere/else"),
    ];
    let count = calls.len();
    for call in calls {
        let answer = call.send(gateway.addr).await;
        assert_eq!(answer.status, 508, "{call:?}: {}", answer.text());
        assert_eq!(answer.json()["error"], "loop_detected", "{call:?}");
    }
    let page = Call::get("/x").header("Accept", "text/html").send(gateway.addr).await;
    assert!(page.status == 508 && page.text().contains("<h1>Loop Detected</h1>"));
    // The license command is answered here, and goes nowhere.
    let license = Call::post("/coauthoring/CommandService.ashx", r#"{"c":"license"}"#);
    assert_eq!(license.send(gateway.addr).await.status, 200);

    let folder = gateway.folder().to_owned();
    let doctor = move || seatgate(&["--config", "seatgate.toml", "doctor"], &folder);
    let doctor = tokio::task::spawn_blocking(doctor).await.unwrap();
    let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(told.contains("leads back to this gateway"), "{told}");

    gateway.stop().await;
    let log = gateway.log();
    let told = log.lines().filter(|line| line.contains("a request came back to this gateway"));
    let told = told.count();
    assert!((1..count).contains(&told), "not with each request: {told}\n{log}");
}

#[tokio::test]
async fn gateways_in_a_row_are_no_loop() {
    let server = StandIn::start().await;
    let inner = Gateway::before(&server).await;
    let outer = Setup::before(inner.addr).start().await;
    let asked = Call::get("/x").header("CDN-Loop", "cdn.example; v=1").send(outer.addr).await;
    assert_eq!(asked.status, 200);
    let seen = server.requests().pop().unwrap();
    let marks = seen.all("cdn-loop");
    assert_eq!((marks.len(), marks[0]), (3, "cdn.example; v=1"), "{marks:?}");
    assert_ne!(marks[1], marks[2], "each gateway has its own");
    let _editor = outer.admit(&Open::editor("d", "ann")).await;
    let (_poller, opened) = Poller::open(outer.addr, &Open::viewer("d", "bob")).await;
    assert!(matches!(opened, Opened::Admitted(_)), "{opened:?}");
    let command = Call::post("/coauthoring/CommandService.ashx", r#"{"c":"version"}"#);
    assert_eq!(command.send(outer.addr).await.status, 200);
}
