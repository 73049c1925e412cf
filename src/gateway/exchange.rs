//! One request to a document server that Pingora's proxy does not carry: its body was read here
//! already, or it is a question of the gateway's own.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header;
use pingora::ErrorType;
use pingora::connectors::http::Connector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::client::HttpSession;
use pingora::protocols::http::v1::client::HttpSession as Http1Session;
use pingora::upstreams::peer::HttpPeer;
use tokio::time::timeout;

use super::attentive::attentive;
use super::corked::Corked;
use super::handshake::is_hop_by_hop;
use super::upstream::Upstreams;

/// Sends requests, each over a connection that no other request is on.
pub struct Dispatcher {
    connector: Connector,
    keeps: bool,
}

/// A connection that has sent its request and received an answer's head.
pub struct Exchange {
    session: HttpSession,
    pub head: ResponseHeader,
    /// The server it may be kept for.
    keep_for: Option<HttpPeer>,
}

/// The peer for a request to `address`; an upgrade is never forwarded this way, and an idle
/// connection is not trusted for as long as the document server keeps it (5 s).
pub fn peer(address: SocketAddr, upstreams: &Upstreams) -> HttpPeer {
    let settings = &upstreams.settings;
    let mut peer = HttpPeer::new(address, false, String::new());
    if let Some(dialer) = &upstreams.dialer {
        dialer.apply(&mut peer.options, &mut peer.group_key);
    }
    peer.options.connection_timeout = Some(settings.connect_timeout);
    peer.options.total_connection_timeout = Some(settings.connect_timeout);
    peer.options.read_timeout = Some(settings.read_timeout);
    peer.options.write_timeout = Some(settings.read_timeout);
    peer.options.idle_timeout = Some(POOL_IDLE);
    peer.options.http_upstream_request_policy =
        pingora::upstreams::peer::HttpUpstreamRequestPolicy::deny_upgrades();
    peer
}

/// The document server closes an idle connection after 5 s (WIRE.md section 1); one that has been
/// idle for longer than this could close under the next request.
const POOL_IDLE: Duration = Duration::from_secs(4);

/// From this size on a body may not fit into the sockets' buffers, so that a server could answer while it
/// is still being written.
const ATTENTIVE_FROM: usize = 64 * 1024;

/// The most interim answers (RFC 9110, section 15.2) before a final one.
const MAX_INTERIM: usize = 16;

impl Dispatcher {
    /// One that makes a connection for each request. A command must not be sent twice, and
    /// nobody knows what became of one whose connection was closing.
    pub fn once() -> Self {
        Self { connector: Connector::new(None), keeps: false }
    }

    /// One that uses connections again that were [kept](Self::keep).
    pub fn keeping() -> Self {
        Self { connector: Connector::new(None), keeps: true }
    }

    /// Sends `request` with `body` and reads the answer's head.
    ///
    /// # Errors
    /// No connection, or no answer in time.
    pub async fn send(
        &self,
        address: SocketAddr,
        upstreams: &Upstreams,
        mut request: RequestHeader,
        body: Bytes,
    ) -> pingora::Result<Exchange> {
        let peer = peer(address, upstreams);
        let hops: Vec<_> =
            request.headers.keys().filter(|name| is_hop_by_hop(name)).cloned().collect();
        for name in &hops {
            request.remove_header(name);
        }
        request.remove_header(&header::EXPECT);
        if body.is_empty() && matches!(request.method, http::Method::GET | http::Method::HEAD) {
            request.remove_header(&header::CONTENT_LENGTH);
        } else {
            request.insert_header(header::CONTENT_LENGTH, body.len())?;
        }
        let is_large = body.len() > ATTENTIVE_FROM;
        // Pingora tells the connections of its pool apart by their descriptors, and those over TLS have none.
        let keeps = self.keeps && !is_large && upstreams.dialer.is_none();
        if !keeps {
            request.insert_header(header::CONNECTION, "close")?;
        }
        let (session, is_used) = self.connector.get_http_session(&peer).await?;
        let mut session = match session {
            HttpSession::H1(http1) if is_large => {
                HttpSession::H1(Http1Session::new(attentive(http1.into_inner())))
            }
            HttpSession::H1(http1) => {
                let stream = Corked::remove(http1.into_inner());
                let has_body = !body.is_empty();
                let stream =
                    if has_body { Corked::before_body(stream) } else { Corked::new(stream) };
                HttpSession::H1(Http1Session::new(Box::new(stream)))
            }
            session => session,
        };
        // A used connection may have been closing: what can be asked again is asked again.
        let again = (is_used && request.method == http::Method::GET).then(|| request.clone());
        let asked = ask(&mut session, request, body, upstreams).await;
        let (session, mut head) = match (asked, again) {
            (Ok(head), _) => (session, head),
            (Err(error), Some(request)) if was_closed(&error) => {
                if !heard_nothing(session) {
                    return Err(error);
                }
                let (mut session, _) = self.connector.get_http_session(&peer).await?;
                let head = ask(&mut session, request, Bytes::new(), upstreams).await?;
                (session, head)
            }
            (Err(error), _) => return Err(error),
        };
        let hops: Vec<_> =
            head.headers.keys().filter(|name| is_hop_by_hop(name)).cloned().collect();
        for name in &hops {
            head.remove_header(name);
        }
        Ok(Exchange { session, head, keep_for: keeps.then_some(peer) })
    }

    /// Keeps the connection of an exchange whose answer was read to its end, if it is good for
    /// another one; returns the answer's head.
    pub async fn keep(&self, exchange: Exchange) -> ResponseHeader {
        if let Some(peer) = exchange.keep_for {
            self.connector.release_http_session(exchange.session, &peer, Some(POOL_IDLE)).await;
        }
        exchange.head
    }
}

/// Whether the connection was closed before an answer came.
fn was_closed(error: &pingora::Error) -> bool {
    matches!(
        error.etype(),
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError
    )
}

/// Whether not a byte came: what a server began to answer it has done, and given away.
fn heard_nothing(session: HttpSession) -> bool {
    let HttpSession::H1(http1) = session else { return false };
    let stream = http1.into_inner();
    stream.as_any().downcast_ref().is_some_and(|stream: &Corked| !stream.has_heard())
}

async fn ask(
    session: &mut HttpSession,
    request: RequestHeader,
    body: Bytes,
    upstreams: &Upstreams,
) -> pingora::Result<ResponseHeader> {
    let limit = Some(upstreams.settings.read_timeout);
    session.set_read_timeout(limit);
    session.set_write_timeout(limit);
    session.write_request_header(Box::new(request)).await?;
    let written = write_body(session, body).await;
    // A server that takes no more of a body may have said why.
    match written {
        Err(error) if *error.etype() == ErrorType::WriteTimedout => Err(error),
        Err(error) => read_head(session).await.map_err(|_| error),
        Ok(()) => read_head(session).await,
    }
}

async fn write_body(session: &mut HttpSession, body: Bytes) -> pingora::Result<()> {
    if !body.is_empty() {
        session.write_request_body(body, true).await?;
    }
    session.finish_request_body().await
}

/// Reads an answer's head; interim answers before it are nobody's here.
async fn read_head(session: &mut HttpSession) -> pingora::Result<ResponseHeader> {
    for _ in 0..MAX_INTERIM {
        session.read_response_header().await?;
        match session.response_header() {
            Some(head) if head.status.is_informational() => {}
            Some(head) => return Ok(head.clone()),
            None => break,
        }
    }
    pingora::Error::e_explain(ErrorType::ReadError, "an answer without a head")
}

impl Exchange {
    /// The next piece of the answer's body; `None` at its end.
    ///
    /// # Errors
    /// The server broke off, or was silent for too long.
    pub async fn next(&mut self) -> pingora::Result<Option<Bytes>> {
        self.session.read_response_body().await
    }

    /// The whole body, if it has at most `limit` bytes and comes within `within`.
    ///
    /// # Errors
    /// It is longer, late, or broken off.
    pub async fn whole_body(mut self, limit: usize, within: Duration) -> pingora::Result<Bytes> {
        let read = async {
            let mut body = BytesMut::new();
            while let Some(piece) = self.next().await? {
                if body.len() + piece.len() > limit {
                    return pingora::Error::e_explain(
                        pingora::ErrorType::ReadError,
                        "the answer is longer than expected",
                    );
                }
                body.extend_from_slice(&piece);
            }
            Ok(body.freeze())
        };
        match timeout(within, read).await {
            Ok(body) => body,
            Err(_) => pingora::Error::e_explain(
                pingora::ErrorType::ReadTimedout,
                "the answer's body did not come in time",
            ),
        }
    }
}
