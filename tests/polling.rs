//! The polling transport: the same seats, the same refusals, and the way to a WebSocket.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::net::SocketAddr;

use serde_json::Value;
use support::{Answer, Call, Gateway, LicenceFile, Open, Setup, StandIn, eventually};

/// A client that polls, one request at a time.
struct Poller {
    to: SocketAddr,
    target: String,
    host: Option<&'static str>,
}

impl Poller {
    /// Performs the handshake.
    async fn open(to: SocketAddr, document: &str) -> Self {
        Self::open_at(to, document, None).await
    }

    async fn open_at(to: SocketAddr, document: &str, host: Option<&'static str>) -> Self {
        let target = format!("/doc/{document}/c/?EIO=4&transport=polling");
        let mut poller = Self { to, target, host };
        let answer = poller.get().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let text = answer.text();
        let opening: Value = serde_json::from_str(text.strip_prefix('0').unwrap()).unwrap();
        poller.target.push_str(&format!("&sid={}", opening["sid"].as_str().unwrap()));
        poller
    }

    fn call(&self, call: Call) -> Call {
        match self.host {
            Some(host) => call.header("Host", host),
            None => call,
        }
    }

    async fn get(&self) -> Answer {
        self.call(Call::get(&self.target)).send(self.to).await
    }

    async fn post(&self, packets: &[&str]) -> Answer {
        self.call(Call::post(&self.target, packets.join("\u{1e}"))).send(self.to).await
    }

    /// Polls until a packet holds `wanted`; the packet.
    async fn hear(&self, wanted: &str) -> String {
        loop {
            let answer = self.get().await;
            assert_eq!(answer.status, 200, "waiting for {wanted}: {}", answer.text());
            if let Some(packet) = answer.text().split('\u{1e}').find(|p| p.contains(wanted)) {
                return packet.to_owned();
            }
        }
    }

    /// Connects and opens; the packet that decides.
    async fn authenticate(&self, open: &Open) -> String {
        assert_eq!(self.post(&[&open.connect_packet()]).await.text(), "ok");
        self.hear(r#""type":"license""#).await;
        assert_eq!(self.post(&[&open.auth_packet()]).await.text(), "ok");
        loop {
            let text = self.get().await.text();
            let mut packets = text.split('\u{1e}');
            if let Some(found) =
                packets.find(|p| p.contains(r#""type":"auth""#) || p.contains("disconnectReason"))
            {
                return found.to_owned();
            }
        }
    }
}

#[tokio::test]
async fn a_polling_editor_takes_a_seat_and_gives_it_back() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 1, 1).await;
    let poller = Poller::open(gateway.addr, "d").await;
    let reply = poller.authenticate(&Open::editor("d", "one")).await;
    assert!(reply.contains(r#""result":1"#), "{reply}");
    gateway.await_seats("editor_connections", 1.0).await;
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.get("seatgate_connections", &[("transport", "polling")]), Some(1.0));
    assert_eq!(poller.post(&["41"]).await.text(), "ok");
    gateway.await_seats("editor_connections", 0.0).await;
    assert_eq!(poller.get().await.status, 400, "the session is over");
}

#[tokio::test]
async fn the_one_too_many_is_told_and_never_reaches_the_server() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 1, 0).await;
    let _first = gateway.admit(&Open::editor("d", "one")).await;
    let poller = Poller::open(gateway.addr, "d").await;
    let open = Open::editor("d", "two");
    assert_eq!(poller.post(&[&open.connect_packet()]).await.text(), "ok");
    poller.hear(r#""type":"license""#).await;
    // A parked request is woken by the refusal of what is posted beside it.
    let (answer, posted) = tokio::join!(poller.get(), async {
        let auth = open.auth_packet();
        poller.post(&[&auth]).await
    });
    assert_eq!(posted.text(), "ok");
    let text = answer.text();
    let packets: Vec<_> = text.split('\u{1e}').collect();
    let refused = if packets.len() == 2 { text.clone() } else { poller.get().await.text() };
    assert!(refused.contains(r#""type":"disconnectReason","code":4004"#), "{refused}");
    assert!(refused.ends_with("\u{1e}41"), "{refused}");
    assert_eq!(server.auths().len(), 1, "only the first reached the server");
    assert_eq!(poller.post(&["3"]).await.status, 400);
    gateway.await_seats("editor_connections", 1.0).await;
}

#[tokio::test]
async fn packets_in_one_body_are_judged_one_by_one() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 0, 0).await;
    for batch in [
        vec![Open::editor("d", "sly").connect_packet(), Open::editor("d", "sly").auth_packet()],
        vec!["3".to_owned(), Open::editor("d", "sly").auth_packet(), "3".to_owned()],
        vec![r#"42["message",{"type":"cursor","type":"auth"}]"#.to_owned()],
    ] {
        let poller = Poller::open(gateway.addr, "d").await;
        let packets: Vec<&str> = batch.iter().map(String::as_str).collect();
        assert_eq!(poller.post(&packets).await.text(), "ok");
        let last_words = poller.get().await.text();
        assert!(last_words.contains("disconnectReason"), "{last_words}");
    }
    assert!(server.auths().is_empty());
}

#[tokio::test]
async fn the_upgrade_takes_the_seat_along() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 1, 0).await;
    let open = Open::editor("d", "one");
    let poller = Poller::open(gateway.addr, "d").await;
    let reply = poller.authenticate(&open).await;
    assert!(reply.contains(r#""result":1"#), "{reply}");
    let target = poller.target.replace("transport=polling", "transport=websocket");
    let mut editor = gateway.dial("d").target(&target).connect().await;
    editor.send("2probe").await.unwrap();
    let (probe, _) = tokio::join!(editor.hear(), poller.get());
    assert!(format!("{probe:?}").contains("3probe"), "{probe:?}");
    editor.send("5").await.unwrap();
    let transport = |name: &'static str| {
        let gateway = &gateway;
        async move { gateway.metrics().await.get("seatgate_connections", &[("transport", name)]) }
    };
    eventually("the session is a WebSocket's", || async {
        let moved =
            transport("polling").await == Some(0.0) && transport("websocket").await == Some(1.0);
        moved.then_some(())
    })
    .await;
    assert_eq!(gateway.seats("default", "editor_connections").await, 1.0, "moved, not taken twice");
    editor.goodbye().await;
    gateway.await_seats("editor_connections", 0.0).await;
}

#[tokio::test]
async fn a_session_that_is_not_ones_own_is_unknown() {
    let server = StandIn::start().await;
    let gateway = Setup::before(server.addr)
        .default_licence(|id| LicenceFile::connections(id, 5, 5))
        .licence(LicenceFile::connections("other", 5, 5))
        .tenant("other", &["other.example"], "other")
        .start()
        .await;
    let poller = Poller::open(gateway.addr, "d").await;
    let forged = poller.target.replace("&sid=", "&sid=x");
    for (target, host) in [(&forged, "127.0.0.1"), (&poller.target, "other.example")] {
        for call in [Call::get(target), Call::post(target, "3")] {
            let answer = call.header("Host", host).send(gateway.addr).await;
            assert_eq!(answer.status, 400, "{host} {target}");
            assert_eq!(answer.text(), r#"{"code":1,"message":"Session ID unknown"}"#);
        }
    }
    // Another path and another connection are the same session.
    let elsewhere = poller.target.replace("/doc/d/", "/doc/elsewhere/");
    let answer = Call::post(&elsewhere, Open::viewer("d", "v").connect_packet());
    assert_eq!(answer.send(gateway.addr).await.text(), "ok");
}

#[tokio::test]
async fn what_no_editor_asks_for_is_refused_here() {
    let server = StandIn::start().await;
    let gateway = Gateway::connections(&server, 0, 0).await;
    for (target, code) in [
        ("/doc/d/c/?EIO=4", 0),
        ("/doc/d/c/?EIO=4&transport=webtransport", 0),
        ("/doc/d/c/?EIO=3&transport=polling", 5),
        ("/doc/d/c/?transport=polling", 5),
        ("/doc/d/c/?EIO=4&transport=polling&j=0", 3),
        ("/doc/d/c/?transport=polling&EIO=4&transport=websocket", 3),
        ("/doc/d/c/?EIO=4&transport=polling&sid=a&sid=b", 3),
    ] {
        let answer = Call::get(target).send(gateway.addr).await;
        assert_eq!(answer.status, 400, "{target}");
        assert_eq!(answer.json()["code"], code, "{target}");
    }
    let answer = Call::post("/doc/d/c/?EIO=4&transport=polling", "40").send(gateway.addr).await;
    assert_eq!((answer.status, answer.json()["code"].as_i64()), (400, Some(2)));
    assert!(server.requests().is_empty(), "{:?}", server.requests());
}

#[tokio::test]
async fn view_only_is_told_over_polling_too_and_long_answers_are_compressed() {
    let server = StandIn::start().await;
    let gateway = Setup::before(server.addr)
        .default_licence(|id| LicenceFile::connections(id, 0, 1))
        .set("enforcement.over_limit", "view")
        .start()
        .await;
    let poller = Poller::open(gateway.addr, "d").await;
    let reply = poller.authenticate(&Open::editor("d", "one")).await;
    assert!(reply.contains(r#""licenseType":5"#), "{reply}");
    assert_eq!(server.auths()[0].message["mode"], "view");
}
