//! A stand-in for the document server on a real Socket.IO server: the same messages in the same
//! order (WIRE.md, section 2), and an HTTP side that answers, echoes and records.

mod class;
mod connections;
mod messages;
mod pages;
mod sessions;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::Uri;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use parking_lot::Mutex;
use serde_json::Value;
use socketioxide::SocketIo;
use socketioxide::extract::SocketRef;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::http::find;
use connections::{ConnectionId, Connections, Tap};
use sessions::Sessions;

/// The largest message that the document server takes.
pub const MAX_PAYLOAD: usize = 100_000_000;

/// What the server does with an `auth`.
#[derive(Clone, Copy, Debug)]
pub enum AuthReply {
    /// `result: 1`.
    Accept,
    /// `waitAuth` first, then `result: 1`.
    WaitThenAccept,
    /// `disconnectReason` with this code, `41`, close.
    Refuse(u16),
    /// `error`: the session is a viewer's from here on, one that gave editing up.
    Fail,
    /// Answers only after [`StandIn::release`].
    Hold,
    /// Never answers.
    Hang,
    /// Closes the TCP connection without a word.
    Cut,
}

/// An `auth` that reached the server.
#[derive(Clone, Debug)]
pub struct SeenAuth {
    /// The event's JSON array as it came.
    pub raw: String,
    pub message: Value,
}

impl SeenAuth {
    pub fn user(&self) -> &str {
        self.message["user"]["id"].as_str().unwrap_or_default()
    }
}

/// A request that reached the server, WebSocket handshakes and polls included.
#[derive(Clone, Debug, Default)]
pub struct SeenRequest {
    pub method: String,
    /// Path and query as they came.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: SeenBody,
}

#[derive(Clone, Debug)]
pub struct SeenBody {
    pub length: u64,
    /// The first mebibyte.
    pub start: Vec<u8>,
    /// Whether it followed the pattern of [`super::pattern`].
    pub is_pattern: bool,
    /// Whether it was read to its end without an error.
    pub complete: bool,
}

impl Default for SeenBody {
    fn default() -> Self {
        Self { length: 0, start: Vec::new(), is_pattern: true, complete: false }
    }
}

impl SeenRequest {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// All values of a header, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }
}

type AuthRule = dyn Fn(&Value) -> AuthReply + Send + Sync;

struct Shared {
    auth_rule: Mutex<Arc<AuthRule>>,
    /// Members that every `auth` reply has beside the usual ones.
    reply_more: Mutex<Value>,
    auths: Mutex<Vec<SeenAuth>>,
    requests: Mutex<Vec<SeenRequest>>,
    connections: Arc<Connections>,
    sessions: Mutex<Sessions>,
    /// Counts up whenever held auths may be answered.
    released: tokio::sync::watch::Sender<u64>,
    secret: Option<String>,
    /// Paths are decoded and cleaned, as the server's own front does.
    front: bool,
    /// Whether a front of its own takes the version prefix off.
    strips_version: bool,
    /// Requests that wait for a slow answer now.
    parked: Arc<()>,
}

/// How a stand-in is set up.
#[derive(Clone, Debug)]
pub struct Builder {
    bind: SocketAddr,
    ping_interval: Duration,
    ping_timeout: Duration,
    secret: Option<String>,
    front: bool,
    strips_version: bool,
}

impl Builder {
    /// Listens on this address instead of a free one.
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.bind = address;
        self
    }

    /// The heartbeat; the document server's is 25 s and 20 s.
    pub fn heartbeat(mut self, interval: Duration, timeout: Duration) -> Self {
        self.ping_interval = interval;
        self.ping_timeout = timeout;
        self
    }

    /// The bare co-authoring service, which does not know the version prefix.
    pub fn bare(mut self) -> Self {
        self.strips_version = false;
        self
    }

    /// Turns tokens on.
    pub fn secret(mut self, secret: &str) -> Self {
        self.secret = Some(secret.to_owned());
        self
    }

    /// Reads paths as the server's own front does: decoded, one slash at a time, without dot segments.
    pub fn front(mut self) -> Self {
        self.front = true;
        self
    }

    pub async fn start(self) -> StandIn {
        let listener = TcpListener::bind(self.bind).await.expect("the stand-in's address is free");
        let addr = listener.local_addr().expect("a bound address");
        let connections = Arc::new(Connections::default());
        let shared = Arc::new(Shared {
            auth_rule: Mutex::new(Arc::new(|_: &Value| AuthReply::Accept)),
            reply_more: Mutex::default(),
            auths: Mutex::default(),
            requests: Mutex::default(),
            connections: Arc::clone(&connections),
            sessions: Mutex::default(),
            released: tokio::sync::watch::Sender::new(0),
            secret: self.secret,
            front: self.front,
            strips_version: self.strips_version,
            parked: Arc::default(),
        });
        let (socket_layer, io) = SocketIo::builder()
            .req_path("/doc")
            .ping_interval(self.ping_interval)
            .ping_timeout(self.ping_timeout)
            .max_payload(MAX_PAYLOAD as u64)
            .ws_max_message_size(MAX_PAYLOAD)
            .ws_max_frame_size(MAX_PAYLOAD)
            .build_layer();
        let state = Arc::clone(&shared);
        io.ns("/", async move |socket: SocketRef| sessions::connected(&state, &socket));
        let app = Router::new()
            .fallback(pages::answer)
            .with_state(Arc::clone(&shared))
            .layer(socket_layer)
            .layer(from_fn_with_state(Arc::clone(&shared), record));
        // The fallback's own layers see the path that `record` leaves, as behind the server's front.
        let service = app.into_make_service_with_connect_info::<ConnectionId>();
        let tap = Tap { listener, connections };
        let task = tokio::spawn(async move {
            let _ = axum::serve(tap, service).await;
        });
        StandIn { addr, shared, task }
    }
}

/// The running stand-in; stops when dropped.
pub struct StandIn {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl StandIn {
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    pub fn builder() -> Builder {
        Builder {
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            secret: None,
            front: false,
            strips_version: true,
        }
    }

    /// What happens to each `auth` from now on.
    pub fn on_auth(&self, rule: impl Fn(&Value) -> AuthReply + Send + Sync + 'static) {
        *self.shared.auth_rule.lock() = Arc::new(rule);
    }

    /// Members that every `auth` reply has from now on.
    pub fn add_to_replies(&self, members: Value) {
        *self.shared.reply_more.lock() = members;
    }

    /// Answers the auths that are held back.
    pub fn release(&self) {
        self.shared.released.send_modify(|count| *count += 1);
    }

    /// Every `auth` that arrived.
    pub fn auths(&self) -> Vec<SeenAuth> {
        self.shared.auths.lock().clone()
    }

    /// Every `auth` for this document that arrived.
    pub fn auths_of(&self, document: &str) -> Vec<SeenAuth> {
        let all = self.shared.auths.lock();
        all.iter().filter(|auth| auth.message["docid"] == document).cloned().collect()
    }

    /// The users of every `auth` that arrived.
    pub fn users(&self) -> Vec<String> {
        self.auths().iter().map(|auth| auth.user().to_owned()).collect()
    }

    /// Sockets that are connected now.
    pub fn sockets(&self) -> usize {
        self.shared.sessions.lock().len()
    }

    /// Events that came before the socket's `auth` or are of unknown shape.
    pub fn events(&self) -> Vec<String> {
        self.shared.sessions.lock().events.clone()
    }

    /// TCP connections that are open now.
    pub fn connections(&self) -> usize {
        self.shared.connections.open()
    }

    /// Requests that wait for their slow answer now.
    pub fn parked(&self) -> usize {
        Arc::strong_count(&self.shared.parked) - 1
    }

    /// Every request, the gateway's own questions to the server left out.
    pub fn requests(&self) -> Vec<SeenRequest> {
        let all = self.shared.requests.lock();
        all.iter().filter(|request| !is_own_question(request)).cloned().collect()
    }

    /// Every request, the gateway's own included.
    pub fn all_requests(&self) -> Vec<SeenRequest> {
        self.shared.requests.lock().clone()
    }

    pub fn forget(&self) {
        self.shared.requests.lock().clear();
        self.shared.auths.lock().clear();
    }

    /// Sends a user away as the server does: `disconnectReason`, `41`, close.
    pub fn kick(&self, user: &str, code: u16) {
        for socket in self.shared.sessions.lock().of_user(user) {
            sessions::send_away(&socket, code, "access deny");
        }
    }

    /// Cuts a user's connection without a goodbye.
    pub fn cut(&self, user: &str) {
        for socket in self.shared.sessions.lock().of_user(user) {
            sessions::cut(&self.shared, &socket);
        }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.connections.cut_all();
    }
}

/// Whether the gateway asked on its own behalf: it does so without telling of a client.
fn is_own_question(request: &SeenRequest) -> bool {
    let path = request.target.split('?').next().unwrap_or_default().to_ascii_lowercase();
    let candidate = matches!(
        path.as_str(),
        "/healthcheck" | "/index.html" | "/command" | "/coauthoring/commandservice.ashx"
    );
    candidate && request.header("x-forwarded-for").is_none()
}

/// Where a request stands in the log.
#[derive(Clone, Copy)]
struct LogIndex(usize);

/// Logs the request and takes the version prefix off, as the server's own front does.
async fn record(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<ConnectionId>,
    mut request: Request,
    next: Next,
) -> Response {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let headers = request.headers().iter();
    let headers = headers
        .map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect();
    let method = request.method().as_str().to_owned();
    let index = {
        let mut log = shared.requests.lock();
        log.push(SeenRequest { method, target: target.clone(), headers, ..SeenRequest::default() });
        log.len() - 1
    };
    shared.connections.count_request(connection);
    request.extensions_mut().insert(LogIndex(index));
    let cleaned = if shared.front { cleaned(&target) } else { target };
    let rest = without_version(&cleaned).filter(|_| shared.strips_version);
    let rest = rest.or(shared.front.then_some(cleaned.as_str()));
    if let Some(rest) = rest
        && let Ok(uri) = rest.parse::<Uri>()
    {
        *request.uri_mut() = uri;
    }
    next.run(request).await
}

/// `//a/x/../%62?q` to `/a/b?q`.
fn cleaned(target: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            name => kept.push(name),
        }
    }
    let end = if path.ends_with('/') && !kept.is_empty() { "/" } else { "" };
    format!("/{}{end}?{query}", kept.join("/"))
}

/// `/9.3.0-abc/rest` to `/rest`.
fn without_version(target: &str) -> Option<&str> {
    let (prefix, _) = target.strip_prefix('/')?.split_once('/')?;
    let (version, _) = prefix.split_once('-')?;
    let numbers: Vec<&str> = version.split('.').collect();
    let all_digits = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    (numbers.len() == 3 && numbers.iter().all(all_digits)).then(|| &target[prefix.len() + 1..])
}
