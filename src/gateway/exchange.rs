//! One request to a document server that Pingora's proxy does not carry: its body was read here
//! already, or it is a question of the gateway's own.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header;
use pingora::connectors::http::Connector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use tokio::time::timeout;

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
    let (mut session, _) = connector.get_http_session(&peer).await?;
    session.set_read_timeout(Some(settings.read_timeout));
    session.set_write_timeout(Some(settings.read_timeout));
    session.write_request_header(Box::new(request)).await?;
    if !body.is_empty() {
        session.write_request_body(body, true).await?;
    }
    session.finish_request_body().await?;
    session.read_response_header().await?;
    let head = session.response_header().cloned();
    let mut head = head.ok_or_else(|| {
        pingora::Error::explain(pingora::ErrorType::ReadError, "an answer without a head")
    })?;
    let hops: Vec<_> = head.headers.keys().filter(|name| is_hop_by_hop(name)).cloned().collect();
    for name in &hops {
        head.remove_header(name);
    }
    Ok(Exchange { session, head })
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
