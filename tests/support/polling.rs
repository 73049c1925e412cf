//! An editor on Engine.IO's HTTP long-polling (WIRE.md section 2, "Polling").

use std::collections::VecDeque;
use std::net::SocketAddr;

use serde_json::Value;

use super::editor::{Dial, Editor, Heard, Open, Opened, Refusal};
use super::http::{Answer, Call};
use super::wait::within;

/// What stands between the packets of one body.
pub const SEPARATOR: char = '\x1e';

/// A polling session.
pub struct Poller {
    to: SocketAddr,
    host: Option<String>,
    /// Path and query with the session's id.
    pub target: String,
    pub sid: String,
    heard: VecDeque<String>,
}

impl Poller {
    /// Does the handshake.
    pub async fn connect(to: SocketAddr, document: &str) -> Self {
        let target = format!("/doc/{document}/c/?shardkey={document}&EIO=4&transport=polling");
        Self::connect_to(to, &target, None).await
    }

    /// Does the handshake at a target and under a host name of one's own.
    pub async fn connect_to(to: SocketAddr, target: &str, host: Option<&str>) -> Self {
        let answer = with_host(Call::get(target), host).send(to).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let text = answer.text();
        let opening = text.strip_prefix('0').expect("an opening packet");
        let opening: Value = serde_json::from_str(opening).expect("the opening packet is JSON");
        let sid = opening["sid"].as_str().expect("a session id").to_owned();
        let host = host.map(str::to_owned);
        let heard = VecDeque::new();
        Self { to, host, target: format!("{target}&sid={sid}"), sid, heard }
    }

    /// Posts packets in one body.
    pub async fn post(&self, packets: &[&str]) -> Answer {
        let body = packets.join(&SEPARATOR.to_string());
        let call =
            Call::post(&self.target, body).header("Content-Type", "text/plain;charset=UTF-8");
        with_host(call, self.host.as_deref()).send(self.to).await
    }

    /// Asks once for what the server has to say.
    pub async fn poll(&self) -> Answer {
        with_host(Call::get(&self.target), self.host.as_deref()).send(self.to).await
    }

    /// The next packet; heartbeats are answered and left out. [`Heard::End`]: the session is over.
    pub async fn hear(&mut self) -> Heard {
        within("the server says something", self.hear_on()).await
    }

    async fn hear_on(&mut self) -> Heard {
        loop {
            while let Some(packet) = self.heard.pop_front() {
                match packet.as_str() {
                    "2" => drop(self.post(&["3"]).await),
                    "6" => {}
                    "1" => return Heard::Close(None),
                    _ => return Heard::Text(packet),
                }
            }
            let answer = self.poll().await;
            if answer.status != 200 {
                return Heard::End;
            }
            self.heard.extend(answer.text().split(SEPARATOR).map(str::to_owned));
        }
    }

    /// CONNECT, its answer, the `license` message.
    pub async fn greet(&mut self, open: &Open) {
        self.post(&[&open.connect_packet()]).await;
        let heard = self.hear().await;
        assert!(matches!(&heard, Heard::Text(text) if text.starts_with("40{")), "heard {heard:?}");
        let heard = self.hear().await;
        assert_eq!(heard.kind(), "license", "heard {heard:?}");
    }

    /// Sends `auth` and waits for what becomes of it.
    pub async fn authenticate(&mut self, open: &Open) -> Opened {
        self.post(&[&open.auth_packet()]).await;
        self.verdict().await
    }

    pub async fn verdict(&mut self) -> Opened {
        let mut refusal = Refusal { code: None, goodbye: false, close: false };
        loop {
            let heard = self.hear().await;
            match &heard {
                // What follows is only the end of the transport.
                Heard::Text(text) if text == "41" => {
                    refusal.goodbye = refusal.code.is_some();
                    return Opened::Refused(refusal);
                }
                Heard::Text(_) => match heard.kind().as_str() {
                    "auth" => return Opened::Admitted(heard.message()),
                    "disconnectReason" => refusal.code = heard.message()["code"].as_u64(),
                    _ => {}
                },
                Heard::Close(_) => refusal.close = true,
                Heard::End | Heard::Binary(_) => return Opened::Refused(refusal),
            }
        }
    }

    /// The whole flow of an open.
    pub async fn open(to: SocketAddr, open: &Open) -> (Self, Opened) {
        let mut poller = Self::connect(to, open.document()).await;
        poller.greet(open).await;
        let opened = poller.authenticate(open).await;
        (poller, opened)
    }

    /// Moves the session to a WebSocket.
    pub async fn upgrade(&self) -> Editor {
        let target = self.target.replace("transport=polling", "transport=websocket");
        let dial = Dial::new(self.to, "").target(&target);
        let dial = match &self.host {
            Some(host) => dial.host(host),
            None => dial,
        };
        let mut editor = dial.connect().await;
        editor.send("2probe").await.expect("the probe can be sent");
        assert_eq!(editor.hear().await, Heard::Text("3probe".to_owned()));
        editor.send("5").await.expect("the upgrade can be sent");
        editor
    }
}

fn with_host(call: Call, host: Option<&str>) -> Call {
    match host {
        Some(host) => call.header("Host", host),
        None => call,
    }
}
