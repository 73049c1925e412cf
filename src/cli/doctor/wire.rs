//! Requests of the doctor's own: HTTP/1.1 and WebSocket, plain or over TLS, within a time limit.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::gateway::tls::upstream::Dialer;
use crate::wire::websocket::{Decoded, Decoder, Opcode, Sender, write_frame};

/// How long one answer may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The largest answer that is read, in bytes.
const MOST: usize = 1 << 20;

/// The mask of frames: nobody else shares these connections.
const MASK: [u8; 4] = [0x5e, 0xa7, 0x6a, 0x7e];

/// A stream, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Whom to ask.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// As the configuration calls it.
    pub(super) name: String,
    pub(super) address: SocketAddr,
    /// The `Host` header.
    pub(super) host: String,
    pub(super) tls: Option<Arc<Dialer>>,
    /// Whether the connection begins with a PROXY header.
    pub(super) proxied: bool,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Asked<'a> {
    pub(super) method: Method,
    pub(super) target: &'a str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

impl<'a> Asked<'a> {
    pub(super) fn get(target: &'a str) -> Self {
        Self { method: Method::GET, target, headers: Vec::new(), body: String::new() }
    }

    pub(super) fn post(target: &'a str, body: impl Into<String>) -> Self {
        Self { method: Method::POST, body: body.into(), ..Self::get(target) }
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Answer {
    /// For people: the status, and the beginning of what came.
    pub(super) fn told(&self) -> String {
        let start: String = self.body.chars().take(120).collect();
        format!("{} {:?}", self.status.as_u16(), start.trim())
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("no connection to {0}: {1}")]
    Connect(String, String),
    #[error("{0} does not answer within {PATIENCE:?}")]
    Late(String),
    #[error("{0} broke off: {1}")]
    Broken(String, String),
    #[error("{0} answered {1}")]
    Refused(String, String),
}

impl Server {
    async fn connect(&self) -> Result<Box<dyn Stream>, Trouble> {
        let failed =
            |error: &dyn std::fmt::Display| Trouble::Connect(self.name.clone(), error.to_string());
        if let Some(dialer) = &self.tls {
            let stream = dialer.connect(self.address).await.map_err(|error| failed(&error))?;
            return Ok(Box::new(stream));
        }
        let mut stream = TcpStream::connect(self.address).await.map_err(|error| failed(&error))?;
        if self.proxied {
            stream.write_all(b"PROXY UNKNOWN\r\n").await.map_err(|error| failed(&error))?;
        }
        Ok(Box::new(stream))
    }

    fn broken(&self, error: impl std::fmt::Display) -> Trouble {
        Trouble::Broken(self.name.clone(), error.to_string())
    }

    async fn send(
        &self,
        asked: Asked<'_>,
    ) -> Result<http::Response<hyper::body::Incoming>, Trouble> {
        let stream = self.connect().await?;
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|error| self.broken(error))?;
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::builder()
            .method(asked.method)
            .uri(asked.target)
            .header(header::HOST, &self.host);
        for (name, value) in asked.headers {
            request = request.header(name, value);
        }
        let request =
            request.body(Full::new(Bytes::from(asked.body))).map_err(|error| self.broken(error))?;
        sender.send_request(request).await.map_err(|error| self.broken(error))
    }

    /// Asks for something.
    pub(super) async fn ask(&self, asked: Asked<'_>) -> Result<Answer, Trouble> {
        let exchange = async {
            let response = self.send(asked).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MOST).collect().await;
            let body = body.map_err(|error| self.broken(error))?.to_bytes();
            let body = String::from_utf8_lossy(&body).into_owned();
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        let late = || Trouble::Late(self.name.clone());
        timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(late()))
    }

    /// Opens a WebSocket.
    pub(super) async fn open(&self, target: &str) -> Result<WebSocket, Trouble> {
        let asked = Asked::get(target)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "c2VhdGdhdGUgZG9jdG9yIQ==");
        let exchange = async {
            let response = self.send(asked).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                let status = response.status().to_string();
                return Err(Trouble::Refused(self.name.clone(), status));
            }
            let upgraded = hyper::upgrade::on(response).await;
            let stream = TokioIo::new(upgraded.map_err(|error| self.broken(error))?);
            let decoder = Decoder::new(Sender::Server, MOST as u64);
            Ok(WebSocket { name: self.name.clone(), stream, decoder, unread: Vec::new() })
        };
        let late = || Trouble::Late(self.name.clone());
        timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(late()))
    }
}

/// An open WebSocket.
#[derive(Debug)]
pub(super) struct WebSocket {
    name: String,
    stream: TokioIo<Upgraded>,
    decoder: Decoder,
    unread: Vec<u8>,
}

impl WebSocket {
    pub(super) async fn say(&mut self, text: &str) -> Result<(), Trouble> {
        let mut frame = Vec::new();
        write_frame(&mut frame, Opcode::Text, Some(MASK), text.as_bytes());
        let broken = |error: io::Error| Trouble::Broken(self.name.clone(), error.to_string());
        self.stream.write_all(&frame).await.map_err(broken)?;
        self.stream.flush().await.map_err(broken)
    }

    /// The next message of text.
    pub(super) async fn hear(&mut self) -> Result<String, Trouble> {
        let name = self.name.clone();
        timeout(PATIENCE, self.next_message()).await.unwrap_or(Err(Trouble::Late(name)))
    }

    async fn next_message(&mut self) -> Result<String, Trouble> {
        let broken = |name: &str, why: String| Trouble::Broken(name.to_owned(), why);
        let mut message = Vec::new();
        let mut is_text = false;
        loop {
            let decoded = self.decoder.decode(&self.unread);
            match decoded.map_err(|error| broken(&self.name, error.to_string()))? {
                Decoded::Partial => {
                    self.unread.clear();
                    let mut piece = [0_u8; 4096];
                    let read = self.stream.read(&mut piece).await;
                    let read = read.map_err(|error| broken(&self.name, error.to_string()))?;
                    if read == 0 {
                        return Err(broken(&self.name, "the connection is closed".to_owned()));
                    }
                    self.unread.extend_from_slice(piece.get(..read).unwrap_or_default());
                }
                Decoded::Head { taken, head } => {
                    is_text = head.opcode.is_data();
                    self.unread.drain(..taken);
                }
                Decoded::Payload { taken, .. } => {
                    let piece: Vec<u8> = self.unread.drain(..taken).collect();
                    if is_text {
                        message.extend(piece);
                    }
                }
                Decoded::End { head } if head.opcode == Opcode::Close => {
                    return Err(broken(&self.name, "the WebSocket is closed".to_owned()));
                }
                Decoded::End { head } if head.opcode.is_data() && head.fin => {
                    return Ok(String::from_utf8_lossy(&message).into_owned());
                }
                Decoded::End { .. } => {}
            }
        }
    }
}
