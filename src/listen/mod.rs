//! Sockets that accept connections: opened here or taken over from another process, and each
//! connection handed to its application.
//!
//! | module | what it is |
//! |---|---|
//! | this one | opening a socket, and a task for each connection |
//! | `tally` | [`Tally`]: what is under way, from the moment it was accepted |
//! | `door` | one socket, and [`Access`]: whether anybody is let in there |
//! | `doors` | [`Doors`]: accepting in the runtime of a service, for what has little to do |
//! | `workers` | [`Workers`]: threads that serve the public, each with a runtime of its own |
//! | `pulse` | [`Pulse`]: whether those threads still turn |
//!
//! Pingora could accept too, but it opens its sockets by itself when the server runs already: a
//! port that is taken is then a panic, and sockets come from a predecessor only in its own way.

mod door;
mod doors;
mod pulse;
mod tally;
mod workers;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::l4::stream::Stream as TransportStream;
use pingora::protocols::{GetSocketDigest as _, SocketDigest, Stream};
use pingora::server::ShutdownWatch;
use tokio::net::TcpStream;

pub use door::Access;
pub use doors::Doors;
pub use pulse::Pulse;
pub use tally::{Busy, Tally};
pub use workers::{Entrance, Workers};

/// Connections that the kernel keeps for a socket before they are accepted; it cuts this down to
/// `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// How long nothing is accepted after the process ran out of files.
const BREATH: Duration = Duration::from_millis(100);

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; {}", mend(.source))]
pub struct ListenError {
    pub address: SocketAddr,
    pub source: io::Error,
}

fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another program has it: stop that, or choose another port",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one, or grant it"
        }
        io::ErrorKind::AddrNotAvailable => "this host does not have that address",
        _ => "choose another address",
    }
}

/// An application that connections are handed to.
pub trait Application: Send + Sync + 'static {
    /// Serves a connection to its end.
    ///
    /// `arrival` counts it among those that were accepted and have asked nothing yet: whoever
    /// drains the process waits for them. It is to be dropped when the first request is complete
    /// and counts for itself.
    fn serve(
        self: Arc<Self>,
        stream: Stream,
        arrival: Busy,
        shutdown: ShutdownWatch,
    ) -> impl Future<Output = ()> + Send;
}

/// Opens a socket. Connections wait in its queue until [`Doors`] accepts them.
///
/// # Errors
/// The address cannot be listened on.
pub fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let listen = |source| ListenError { address, source };
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).map_err(listen)?;
    socket.set_reuse_address(true).map_err(listen)?;
    socket.bind(&address.into()).map_err(listen)?;
    socket.listen(BACKLOG).map_err(listen)?;
    socket.set_nonblocking(true).map_err(listen)?;
    Ok(socket.into())
}

/// A pause after a failure that would come again at once.
pub async fn breathe() {
    tokio::time::sleep(BREATH).await;
}

/// Makes a connection one that Pingora takes; `None` if it ended already.
fn transport(stream: TcpStream, peer: SocketAddr) -> Option<Stream> {
    let mut stream = TransportStream::from(stream);
    let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
    let _ = digest.peer_addr.set(Some(peer.into()));
    stream.set_socket_digest(digest);
    if let Err(error) = stream.set_nodelay() {
        tracing::debug!(%error, "a connection ended before it began");
        return None;
    }
    Some(Box::new(stream))
}

/// Tells that nothing can be accepted, and waits a moment where the reason would come again at once.
async fn cannot_accept(error: &io::Error) {
    if error.kind() != io::ErrorKind::ConnectionAborted {
        tracing::error!(%error, "connections cannot be accepted");
        breathe().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_told_with_a_way_out() {
        let first = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address).unwrap_err().to_string();
        assert!(
            error.contains(&address.to_string()) && error.contains("another program"),
            "{error}"
        );
        let error = bind(SocketAddr::from(([192, 0, 2, 1], 0))).unwrap_err().to_string();
        assert!(error.contains("does not have that address"), "{error}");
    }
}
