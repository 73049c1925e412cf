//! An editor at the wire: does the real one's flow step by step, and everything that a hostile or
//! unlucky one does.
//!
//! Reads with tungstenite (an independent decoder), writes its own frames.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

use super::frames::{self, Style};
use super::http;
use super::wait::PATIENCE;

/// What an editor says when it opens a document.
#[derive(Clone, Debug)]
pub struct Open {
    pub message: Value,
    /// The token that goes into the CONNECT packet too.
    pub token: Option<String>,
}

impl Open {
    fn new(document: &str, user: &str, mode: &str, permissions: Value, co_editing: &str) -> Self {
        let message = json!({
            "type": "auth", "docid": document,
            "documentCallbackUrl": "http://127.0.0.1:1/callback", "token": "fghhfgsjdgfjs",
            "user": {"id": user, "username": format!("Name of {user}"), "indexUser": -1},
            "editorType": 0, "lastOtherSaveTime": -1, "block": [], "sessionId": null,
            "sessionTimeConnect": null, "sessionTimeIdle": 0, "documentFormatSave": 65,
            "isCloseCoAuthoring": false,
            "openCmd": {
                "c": "open", "id": document, "userid": user, "format": "docx",
                "url": "http://127.0.0.1:1/Test.docx", "title": "Test.docx", "lcid": 9,
                "nobase64": true, "convertToOrigin": ".pdf.xps.oxps.djvu",
            },
            "lang": "en", "mode": mode, "permissions": permissions, "IsAnonymousUser": false,
            "timezoneOffset": 0, "coEditingMode": co_editing, "time": 1234,
            "supportAuthChangesAck": true,
        });
        Self { message, token: None }
    }

    pub fn editor(document: &str, user: &str) -> Self {
        Self::new(document, user, "edit", json!({"edit": true}), "fast")
    }

    pub fn live_viewer(document: &str, user: &str) -> Self {
        Self::new(document, user, "view", json!({"edit": false}), "fast")
    }

    /// A plain viewer.
    pub fn viewer(document: &str, user: &str) -> Self {
        Self::new(document, user, "view", json!({"edit": false}), "strict")
    }

    /// Sets a field of the message; `Value::Null` removes it.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        let fields = self.message.as_object_mut().expect("an auth is an object");
        match value.into() {
            Value::Null => fields.shift_remove(key),
            value => fields.insert(key.to_owned(), value),
        };
        self
    }

    pub fn permissions(self, permissions: Value) -> Self {
        self.with("permissions", permissions)
    }

    /// Sets the opening token, in the message and in CONNECT.
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self.with("jwtOpen", token)
    }

    pub fn document(&self) -> &str {
        self.message["docid"].as_str().unwrap_or("none")
    }

    /// `40{…}`
    pub fn connect_packet(&self) -> String {
        let mut payload = json!({"data": self.message});
        if let Some(token) = &self.token {
            payload["token"] = json!(token);
        }
        format!("40{payload}")
    }

    /// `42["message",{…}]`
    pub fn auth_packet(&self) -> String {
        event(&self.message)
    }
}

/// A Socket.IO event packet that carries a message.
pub fn event(message: &Value) -> String {
    format!("42{}", json!(["message", message]))
}

/// Something that the other side said.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    Text(String),
    Binary(usize),
    /// A close frame, with its code if there was one.
    Close(Option<u16>),
    /// The connection is over: without a close frame before, it was cut.
    End,
}

impl Heard {
    /// The message of a `42["message",…]`, or null.
    pub fn message(&self) -> Value {
        let Self::Text(text) = self else { return Value::Null };
        let event =
            text.strip_prefix("42").and_then(|json| serde_json::from_str::<Value>(json).ok());
        event.map_or(Value::Null, |mut event| event[1].take())
    }

    pub fn kind(&self) -> String {
        self.message()["type"].as_str().unwrap_or_default().to_owned()
    }
}

/// How an `auth` ended.
#[derive(Clone, Debug)]
pub enum Opened {
    /// The server's reply.
    Admitted(Value),
    Refused(Refusal),
}

/// The end of a refused open, as far as it was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The code of `disconnectReason`, if it came.
    pub code: Option<u64>,
    /// `41` came after it.
    pub goodbye: bool,
    /// A close frame came after that.
    pub close: bool,
}

impl Refusal {
    /// The only way of refusing that ends in one dialog and no retry (WIRE.md, section 5).
    pub fn proper(code: u64) -> Self {
        Self { code: Some(code), goodbye: true, close: true }
    }
}

impl Opened {
    pub fn is_admitted(&self) -> bool {
        matches!(self, Self::Admitted(_))
    }

    /// The server's reply; panics on a refusal.
    pub fn reply(self) -> Value {
        match self {
            Self::Admitted(reply) => reply,
            Self::Refused(refusal) => panic!("expected to be admitted, was refused: {refusal:?}"),
        }
    }

    /// Panics unless refused in the proper way with 4004.
    pub fn assert_refused(&self) {
        match self {
            Self::Admitted(_) => panic!("expected a refusal, was admitted"),
            Self::Refused(refusal) => assert_eq!(*refusal, Refusal::proper(4004)),
        }
    }
}

/// Where and how to connect.
#[derive(Clone, Debug)]
pub struct Dial {
    to: SocketAddr,
    target: String,
    headers: Vec<(String, String)>,
    source: Option<IpAddr>,
}

impl Dial {
    /// The target that an editor of `document` uses.
    pub fn new(to: SocketAddr, document: &str) -> Self {
        let target = format!("/doc/{document}/c/?shardkey={document}&EIO=4&transport=websocket");
        Self { to, target, headers: Vec::new(), source: None }
    }

    pub fn target(mut self, target: &str) -> Self {
        self.target = target.to_owned();
        self
    }

    pub fn host(self, host: &str) -> Self {
        self.header("Host", host)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn from(mut self, source: &str) -> Self {
        self.source = Some(source.parse().expect("an address"));
        self
    }

    /// Connects and upgrades. The error is what tungstenite makes of a refused handshake.
    pub async fn try_connect(&self) -> Result<Editor, tungstenite::Error> {
        let stream = http::connect(self.to, self.source).await?;
        let url = format!("ws://{}{}", self.to, self.target);
        let mut request = url.into_client_request()?;
        for (name, value) in &self.headers {
            let name = ::http::HeaderName::try_from(name.as_str()).expect("a header name");
            request.headers_mut().insert(name, value.parse().expect("a header value"));
        }
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let handshake = tokio_tungstenite::client_async_with_config(request, stream, Some(config));
        let (socket, _) = tokio::time::timeout(PATIENCE, handshake)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer to the handshake"))??;
        Ok(Editor { socket, answers_pings: true })
    }

    pub async fn connect(&self) -> Editor {
        self.try_connect().await.expect("a WebSocket to the server")
    }

    /// Does the whole flow up to the answer to `auth`.
    pub async fn open(&self, open: &Open) -> (Editor, Opened) {
        let mut editor = self.connect().await;
        editor.greet(open).await;
        let opened = editor.authenticate(open).await;
        (editor, opened)
    }

    /// As [`Dial::open`], for an open that must succeed.
    pub async fn admit(&self, open: &Open) -> Editor {
        let (editor, opened) = self.open(open).await;
        opened.reply();
        editor
    }

    /// As [`Dial::open`], for an open that must be refused in the proper way.
    pub async fn refuse(&self, open: &Open) {
        let (_, opened) = self.open(open).await;
        opened.assert_refused();
    }
}

/// A connected client.
pub struct Editor {
    socket: WebSocketStream<TcpStream>,
    /// Whether [`Editor::hear`] answers the server's heartbeats.
    pub answers_pings: bool,
}

impl Editor {
    /// The next thing that the server says; heartbeats are answered and left out.
    pub async fn hear(&mut self) -> Heard {
        self.hear_within(PATIENCE).await.expect("the server said nothing for too long")
    }

    /// As [`Editor::hear`]; `None` if nothing was said in time.
    pub async fn hear_within(&mut self, limit: Duration) -> Option<Heard> {
        tokio::time::timeout(limit, async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) if text.as_str() == "2" => {
                        if self.answers_pings {
                            let _ = self.send("3").await;
                        }
                    }
                    Some(Ok(Message::Text(text))) => return Heard::Text(text.as_str().to_owned()),
                    Some(Ok(Message::Binary(bytes))) => return Heard::Binary(bytes.len()),
                    Some(Ok(Message::Close(frame))) => {
                        return Heard::Close(frame.map(|frame| frame.code.into()));
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                    Some(Err(_)) | None => return Heard::End,
                }
            }
        })
        .await
        .ok()
    }

    /// The next message of this type, others are skipped; panics if the connection ends before.
    pub async fn hear_message(&mut self, kind: &str) -> Value {
        loop {
            let heard = self.hear().await;
            assert!(
                matches!(heard, Heard::Text(_) | Heard::Binary(_)),
                "waited for {kind}, heard {heard:?}"
            );
            if heard.kind() == kind {
                return heard.message();
            }
        }
    }

    /// What is left to hear until the connection ends.
    pub async fn hear_out(&mut self) -> Vec<Heard> {
        let mut all = Vec::new();
        loop {
            let heard = self.hear().await;
            let over = heard == Heard::End;
            all.push(heard);
            if over {
                return all;
            }
        }
    }

    /// Engine.IO's opening packet, CONNECT, its answer, the `license` message.
    pub async fn greet(&mut self, open: &Open) {
        self.handshake().await;
        self.send(&open.connect_packet()).await.expect("CONNECT can be sent");
        self.connected().await;
    }

    /// Engine.IO's opening packet.
    pub async fn handshake(&mut self) -> Value {
        let heard = self.hear().await;
        let Heard::Text(text) = &heard else { panic!("no opening packet but {heard:?}") };
        let json = text.strip_prefix('0').expect("an opening packet");
        serde_json::from_str(json).expect("the opening packet is JSON")
    }

    /// The answer to CONNECT and the `license` message.
    pub async fn connected(&mut self) {
        let heard = self.hear().await;
        assert!(matches!(&heard, Heard::Text(text) if text.starts_with("40{")), "heard {heard:?}");
        let heard = self.hear().await;
        assert_eq!(heard.kind(), "license", "heard {heard:?}");
    }

    /// Sends `auth` and waits for what becomes of it.
    pub async fn authenticate(&mut self, open: &Open) -> Opened {
        // A gateway may already be closing: the answer tells.
        let _ = self.send(&open.auth_packet()).await;
        self.verdict().await
    }

    /// Waits for what becomes of an `auth` that was sent.
    pub async fn verdict(&mut self) -> Opened {
        let mut refusal = Refusal { code: None, goodbye: false, close: false };
        loop {
            let heard = self.hear().await;
            match &heard {
                Heard::Text(text) if text == "41" => {
                    assert!(refusal.code.is_some(), "41 before a disconnectReason");
                    refusal.goodbye = true;
                }
                Heard::Text(_) => match heard.kind().as_str() {
                    "auth" => return Opened::Admitted(heard.message()),
                    "disconnectReason" => refusal.code = heard.message()["code"].as_u64(),
                    _ => {}
                },
                Heard::Close(_) => refusal.close = true,
                Heard::End => return Opened::Refused(refusal),
                Heard::Binary(_) => {}
            }
        }
    }

    /// Sends a text message in one frame.
    pub async fn send(&mut self, text: &str) -> io::Result<()> {
        self.send_raw(&frames::Frame::text(text).encode()).await
    }

    pub async fn say(&mut self, message: &Value) {
        self.send(&event(message)).await.expect("a message can be sent");
    }

    /// Sends a message cut and masked in the given style.
    pub async fn send_styled(&mut self, text: &str, style: &Style) -> io::Result<()> {
        let bytes = frames::message(frames::TEXT, text.as_bytes(), style);
        let chunk = style.chunk.unwrap_or(usize::MAX).max(1);
        for chunk in bytes.chunks(chunk) {
            self.send_raw(chunk).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Writes bytes as they are below the WebSocket.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        let write = self.socket.get_mut().write_all(bytes);
        tokio::time::timeout(4 * PATIENCE, write)
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "nobody reads")))
    }

    /// The client's own address.
    pub fn address(&self) -> SocketAddr {
        self.socket.get_ref().local_addr().expect("a connected socket")
    }

    /// Leaves as the editor does: `41`, a close frame, and the end of the connection.
    pub async fn goodbye(mut self) {
        let _ = self.send("41").await;
        let _ = self.send_raw(&frames::Frame::new(frames::CLOSE, &[]).encode()).await;
        while self.hear().await != Heard::End {}
    }

    /// Vanishes by a TCP reset.
    pub fn reset(self) {
        let linger = SockRef::from(self.socket.get_ref()).set_linger(Some(Duration::ZERO));
        linger.expect("linger can be set");
    }

    /// Vanishes by closing the TCP connection without a word.
    pub async fn hang_up(mut self) {
        let _ = self.socket.get_mut().shutdown().await;
    }

    /// Stops talking and reading, but keeps the connection as long as the result lives.
    pub fn fall_silent(self) -> WebSocketStream<TcpStream> {
        self.socket
    }
}
