//! The administration API's client: HTTP/1.1 over the Unix socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{Failure, Place};
use crate::admin::api::Problem;
use crate::config;

/// How long the gateway may take: a backup of a large store takes minutes.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// Where systemd puts the socket of the packaged unit; its $RUNTIME_DIRECTORY is only known to the
/// gateway.
const SYSTEM_FOLDER: &str = "/run/seatgate";

/// What may stand in a path or query as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A text as a part of a path or query.
pub(super) fn escape(text: &str) -> String {
    // A part that is only dots would be another path.
    if text.bytes().all(|byte| byte == b'.') {
        return text.replace('.', "%2E");
    }
    utf8_percent_encode(text, PLAIN).to_string()
}

/// A path with a query of what is stated.
pub(super) fn with_query(path: &str, pairs: &[(&str, Option<&str>)]) -> String {
    let mut target = path.to_owned();
    for (name, value) in pairs {
        if let Some(value) = value {
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(&format!("{name}={}", escape(value)));
        }
    }
    target
}

/// The gateway that runs.
#[derive(Debug)]
pub(super) struct Client {
    /// Where it may listen, the likeliest first.
    sockets: Vec<PathBuf>,
}

/// Whether a gateway listens on the socket.
#[derive(Debug)]
pub(super) enum Presence {
    Absent,
    /// One does, or did, and this user may not talk to it; why.
    Closed(String),
    Runs {
        pid: Option<i32>,
    },
}

/// A body that is sent.
pub(super) enum Sent {
    Nothing,
    Json(Vec<u8>),
    File { media_type: &'static str, content: Vec<u8> },
}

impl Sent {
    pub(super) fn json(value: &impl Serialize) -> Result<Self, Failure> {
        serde_json::to_vec(value).map(Self::Json).map_err(Failure::failed)
    }
}

impl Client {
    /// The gateway of a configuration.
    pub(super) fn new(place: &Place) -> Result<Self, Failure> {
        if let Some(socket) = &place.socket {
            return Ok(Self { sockets: vec![socket.clone()] });
        }
        let config = place.config();
        let socket =
            config::admin_socket(&config).map_err(|errors| Failure::configuration(&errors))?;
        let system = socket.file_name().map(|name| Path::new(SYSTEM_FOLDER).join(name));
        let system = system.filter(|system| *system != socket && config.starts_with("/etc"));
        Ok(Self { sockets: [socket].into_iter().chain(system).collect() })
    }

    /// The gateway of a configuration that it may be about to refuse: where it cannot be read, the
    /// gateway is sought where its socket is by default.
    pub(super) fn however_broken(place: &Place) -> Result<Self, Failure> {
        Self::new(place).or_else(|failure| {
            let socket = config::default_admin_socket();
            let sockets = [socket, Path::new(SYSTEM_FOLDER).join("admin.sock")];
            let sockets: Vec<_> = sockets.into_iter().filter(|socket| socket.exists()).collect();
            if sockets.is_empty() { Err(failure) } else { Ok(Self { sockets }) }
        })
    }

    /// Asks for something.
    pub(super) fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, Failure> {
        self.call(Method::GET, target, Sent::Nothing)
    }

    /// Asks for something that is answered soon, or not at all.
    pub(super) fn get_within<T: DeserializeOwned>(
        &self,
        target: &str,
        limit: Duration,
    ) -> Result<T, Failure> {
        self.call_within(Method::GET, target, Sent::Nothing, limit)
    }

    /// Whether a gateway listens.
    pub(super) fn presence(&self) -> Result<Presence, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(Failure::failed)?.block_on(async {
            let mut presence = Presence::Absent;
            for socket in &self.sockets {
                match UnixStream::connect(socket).await {
                    Ok(stream) => {
                        let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
                        return Ok(Presence::Runs { pid });
                    }
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        presence = Presence::Closed(unreachable_gateway(socket, &error).message);
                    }
                    Err(_) => {}
                }
            }
            Ok(presence)
        })
    }

    /// Asks for all pages of a list; `take` takes a page apart.
    pub(super) fn pages<P: DeserializeOwned, T>(
        &self,
        path: &str,
        query: &[(&str, Option<&str>)],
        take: impl Fn(P) -> (Vec<T>, Option<String>),
    ) -> Result<Vec<T>, Failure> {
        let mut all = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let mut pairs = query.to_vec();
            pairs.push(("limit", Some("1000")));
            pairs.push(("after", after.as_deref()));
            let (items, next) = take(self.get(&with_query(path, &pairs))?);
            all.extend(items);
            match next {
                Some(next) => after = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// Asks for a change.
    pub(super) fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        sent: Sent,
    ) -> Result<T, Failure> {
        self.call_within(method, target, sent, PATIENCE)
    }

    fn call_within<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        sent: Sent,
        limit: Duration,
    ) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let exchange = async {
            let answer = tokio::time::timeout(limit, self.exchange(method, target, sent)).await;
            answer.unwrap_or_else(|_| Err(Failure::failed("the gateway does not answer")))
        };
        let (status, body) = runtime.map_err(Failure::failed)?.block_on(exchange)?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| {
                Failure::failed(format!(
                    "the gateway's answer cannot be read ({error}); it may be of another version"
                ))
            });
        }
        match serde_json::from_slice::<Problem>(&body) {
            // A file's errors name file and line themselves.
            Ok(problem) if problem.error == "bad_file" => {
                Err(Failure { code: super::BAD_USAGE, message: problem.message })
            }
            Ok(problem) if status == StatusCode::BAD_REQUEST => {
                Err(Failure::usage(problem.message))
            }
            Ok(problem) => Err(Failure::failed(problem.message)),
            Err(_) => Err(Failure::failed(format!("the gateway answered {status}"))),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        target: &str,
        sent: Sent,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let stream = self.connect().await?;
        let broken = |error: hyper::Error| {
            Failure::failed(format!("the connection to the gateway broke: {error}"))
        };
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(broken)?;
        let connection = tokio::spawn(connection);
        let request =
            Request::builder().method(method).uri(target).header(header::HOST, "seatgate");
        let request = match sent {
            Sent::Nothing => request.body(Full::new(Bytes::new())),
            Sent::Json(body) => {
                request.header(header::CONTENT_TYPE, "application/json").body(Full::from(body))
            }
            Sent::File { media_type, content } => {
                request.header(header::CONTENT_TYPE, media_type).body(Full::from(content))
            }
        };
        let response =
            sender.send_request(request.map_err(Failure::failed)?).await.map_err(broken)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
        connection.abort();
        Ok((status, body))
    }

    async fn connect(&self) -> Result<UnixStream, Failure> {
        let mut first = None;
        for socket in &self.sockets {
            match UnixStream::connect(socket).await {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    // Of several reasons the most telling: there is one, and it is closed to us.
                    if first.is_none() || error.kind() == io::ErrorKind::PermissionDenied {
                        first = Some(unreachable_gateway(socket, &error));
                    }
                }
            }
        }
        Err(first.unwrap_or_else(|| Failure::failed("no socket is configured")))
    }
}

fn unreachable_gateway(socket: &Path, error: &io::Error) -> Failure {
    let socket = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::failed(format!(
            "no gateway listens on {socket}; start it with `seatgate run`, or name its \
             configuration with --config"
        )),
        io::ErrorKind::PermissionDenied => Failure::failed(format!(
            "{socket} is closed to this user; join the group that owns it, or use sudo"
        )),
        _ => Failure::failed(format!("{socket} cannot be reached: {error}")),
    }
}
