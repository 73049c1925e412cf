//! An upstream of raw bytes: sees requests exactly as they arrive and answers with whatever bytes
//! a test wants, the wrong ones included.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct RawRequest {
    /// Everything up to and including the empty line.
    pub head: Vec<u8>,
    /// The body, if it had a `Content-Length`.
    pub body: Vec<u8>,
    /// How many requests this connection had carried before.
    pub nth: usize,
}

impl RawRequest {
    /// The request line without its line end.
    pub fn line(&self) -> &[u8] {
        self.head.split(|byte| *byte == b'\r').next().unwrap_or_default()
    }

    /// The second word of the request line.
    pub fn target(&self) -> &[u8] {
        self.line().split(|byte| *byte == b' ').nth(1).unwrap_or_default()
    }
}

/// What the server does with a request.
pub enum Step {
    Send(Vec<u8>),
    SendAndClose(Vec<u8>),
    Close,
    /// Never answers, keeps the connection.
    Hang,
}

type Answers = dyn Fn(&RawRequest) -> Step + Send + Sync;

pub struct RawServer {
    pub addr: SocketAddr,
    seen: Arc<Mutex<Vec<RawRequest>>>,
    task: JoinHandle<()>,
}

/// A plain answer with a length.
pub fn ok(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

impl RawServer {
    pub async fn start(answer: impl Fn(&RawRequest) -> Step + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("a bound address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let answer: Arc<Answers> = Arc::new(answer);
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&answer), Arc::clone(&log)));
            }
        });
        Self { addr, seen, task }
    }

    /// The requests that a test sent; the gateway's own questions to the server are left out.
    pub fn seen(&self) -> Vec<RawRequest> {
        let own: [&[u8]; 3] = [b"/healthcheck", b"/command", b"/coauthoring/CommandService.ashx"];
        let seen = self.seen.lock();
        seen.iter().filter(|request| !own.contains(&request.target())).cloned().collect()
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, answer: Arc<Answers>, log: Arc<Mutex<Vec<RawRequest>>>) {
    let mut buffer = Vec::new();
    for nth in 0.. {
        let Some(request) = read_request(&mut stream, &mut buffer, nth).await else { return };
        let own = request.target() == b"/healthcheck";
        let step = if own { Step::Send(ok("true")) } else { answer(&request) };
        log.lock().push(request);
        match step {
            Step::Send(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Step::SendAndClose(bytes) => {
                let _ = stream.write_all(&bytes).await;
                return;
            }
            Step::Close => return,
            Step::Hang => std::future::pending().await,
        }
    }
}

async fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    nth: usize,
) -> Option<RawRequest> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head: Vec<u8> = buffer.drain(..end).collect();
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(0);
    while buffer.len() < length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer.drain(..length).collect();
    Some(RawRequest { head, body, nth })
}
