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
use super::handshake::is_hop_by_hop;
use super::upstream::Upstreams;

/// A connection that has sent its request and received an answer's head.
pub struct Exchange {
    session: HttpSession,
    pub head: ResponseHeader,
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

/// Sends `request` with `body` over a connection of its own and reads the answer's head.
///
/// # Errors
/// No connection, or no answer in time.
pub async fn send(
    connector: &Connector,
    address: SocketAddr,
    upstreams: &Upstreams,
    mut request: RequestHeader,
    body: Bytes,
) -> pingora::Result<Exchange> {
    // A command must not be sent twice, so it never takes a pooled connection that may be closing.
    let settings = &upstreams.settings;
    let mut peer = peer(address, upstreams);
    peer.options.idle_timeout = Some(Duration::ZERO);
    let hops: Vec<_> = request.headers.keys().filter(|name| is_hop_by_hop(name)).cloned().collect();
    for name in &hops {
        request.remove_header(name);
    }
    request.remove_header(&header::EXPECT);
    if body.is_empty() && matches!(request.method, http::Method::GET | http::Method::HEAD) {
        request.remove_header(&header::CONTENT_LENGTH);
    } else {
        request.insert_header(header::CONTENT_LENGTH, body.len())?;
    }
    request.insert_header(header::CONNECTION, "close")?;
    let (session, _) = connector.get_http_session(&peer).await?;
    let mut session = match session {
        HttpSession::H1(http1) if body.len() > ATTENTIVE_FROM => {
            HttpSession::H1(Http1Session::new(attentive(http1.into_inner())))
        }
        session => session,
    };
    session.set_read_timeout(Some(settings.read_timeout));
    session.set_write_timeout(Some(settings.read_timeout));
    session.write_request_header(Box::new(request)).await?;
    let written = write_body(&mut session, body).await;
    // A server that takes no more of a body may have said why.
    let read = match written {
        Err(error) if *error.etype() == ErrorType::WriteTimedout => Err(error),
        Err(error) => read_head(&mut session).await.map_err(|_| error),
        Ok(()) => read_head(&mut session).await,
    };
    let mut head = read?;
    let hops: Vec<_> = head.headers.keys().filter(|name| is_hop_by_hop(name)).cloned().collect();
    for name in &hops {
        head.remove_header(name);
    }
    Ok(Exchange { session, head })
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
