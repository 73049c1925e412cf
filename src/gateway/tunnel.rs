//! A WebSocket from the moment both handshakes are done: a task of its own, out of Pingora's hands.
//!
//! The client's stream is taken out of Pingora's session, and the request's task ends. What is
//! left of a connection is its two sockets and the pump.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};
use tokio::time::timeout;
use tokio_util::either::Either;

use super::coauthoring::Connection;
use super::corked::Corked;
use super::handshake::ServerStream;
use super::polling::Upgrade;
use super::pump::{Peer, Pump, PumpEvent, Transparent};
use super::site::{Shared, Tenant};
use crate::listen::Busy;

/// How long a client may take to take the end of a tunnel.
const CLIENT_STALL: Duration = Duration::from_secs(60);

/// How long a WebSocket that is none of the co-authoring service may be idle.
const TUNNEL_IDLE: Duration = Duration::from_secs(3600);

/// A WebSocket whose handshake with the document server is done.
pub struct Tunnel {
    pub shared: Arc<Shared>,
    pub tenant: Arc<Tenant>,
    pub address: IpAddr,
    pub inspected: bool,
    /// The polling session that the WebSocket goes on with.
    pub upgrades: Option<Upgrade>,
    pub head: Vec<u8>,
    pub early: Bytes,
    pub busy: Busy,
}

impl Tunnel {
    /// Runs the tunnel to its end.
    pub async fn run(self, client: Stream, server: ServerStream) {
        let Self { shared, tenant, address, inspected, upgrades, head, early, busy } = self;
        if inspected {
            let encrypted = client.get_ssl_digest().is_some() || matches!(server, Either::Right(_));
            let connection =
                Connection { shared, tenant, address, head, early, encrypted, upgrades };
            connection.run(client, server).await;
        } else {
            run_transparent(shared, client, server, &head, &early).await;
        }
        drop(busy);
    }
}

/// Carries a WebSocket that is none of the co-authoring service's.
async fn run_transparent(
    shared: Arc<Shared>,
    client: Stream,
    server: ServerStream,
    head: &[u8],
    early: &[u8],
) {
    let mut pump = Pump::new(client, server, Transparent::default(), early, TUNNEL_IDLE);
    pump.send(Peer::Client, head);
    let mut closing = shared.closing.subscribe();
    let event = tokio::select! {
        event = pump.next() => event,
        _ = closing.wait_for(|closing| *closing) => return,
    };
    if let PumpEvent::Ended(from) = event {
        let rest = async {
            if pump.finish(from.other()).await.is_ok() {
                pump.next().await;
            }
        };
        let _ = timeout(CLIENT_STALL, rest).await;
        let _ = timeout(CLIENT_STALL, pump.finish(Peer::Client)).await;
    }
}

/// Takes the client's stream away from Pingora, which is left with one that is closed.
///
/// # Errors
/// The client does not speak HTTP/1.1.
pub fn take_stream(session: &mut Session) -> pingora::Result<Stream> {
    let (closed, _) = tokio::io::duplex(1);
    let left = ServerSession::new_http1(Box::new(closed));
    let taken = std::mem::replace(&mut *session.downstream_session, left);
    session.set_keepalive(None);
    match taken {
        ServerSession::H1(http1) => Ok(Corked::remove(http1.into_inner())),
        ServerSession::H2(_) | ServerSession::Subrequest(_) | ServerSession::Custom(_) => {
            Error::e_explain(ErrorType::InternalError, "a WebSocket that is not over HTTP/1.1")
        }
    }
}
