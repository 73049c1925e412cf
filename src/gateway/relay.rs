//! Polling sessions that stay with the process that this one took over from: their requests are
//! passed on to it, over a Unix socket, until it is gone. The session's id tells whose it is.

use std::path::Path;
use std::sync::Arc;

use pingora::protocols::l4::stream::Stream as TransportStream;
use pingora::server::ShutdownWatch;
use pingora::upstreams::peer::HttpPeer;
use tokio::net::UnixListener;

use super::front::Front;
use super::site::Tenant;
use crate::listen::{self, Application as _, Tally};

/// The old process as the peer of a forwarded request.
///
/// # Errors
/// The path is too long for a socket.
pub fn peer(socket: &Path, tenant: &Tenant) -> pingora::Result<HttpPeer> {
    let mut peer = HttpPeer::new_uds(&socket.to_string_lossy(), false, String::new())?;
    let settings = &tenant.upstreams.settings;
    peer.options.connection_timeout = Some(settings.connect_timeout);
    peer.options.read_timeout = Some(settings.read_timeout);
    peer.options.write_timeout = Some(settings.read_timeout);
    // Requests are few, and the other side ends.
    peer.options.idle_timeout = Some(std::time::Duration::ZERO);
    Ok(peer)
}

/// Serves what the process `successor` passes on, for ever.
pub async fn serve(
    door: UnixListener,
    successor: u32,
    front: Arc<Front>,
    arrivals: Tally,
    shutdown: ShutdownWatch,
) {
    loop {
        let stream = match door.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "what the new process passes on cannot be accepted");
                listen::breathe().await;
                continue;
            }
        };
        let peer = stream.peer_cred().ok().and_then(|peer| peer.pid());
        if peer.and_then(|peer| u32::try_from(peer).ok()) != Some(successor) {
            tracing::warn!(?peer, "somebody else than the new process is turned away");
            continue;
        }
        let stream = TransportStream::from(stream);
        let (front, arrival) = (Arc::clone(&front), arrivals.begin());
        tokio::spawn(front.serve(Box::new(stream), arrival, shutdown.clone()));
    }
}
