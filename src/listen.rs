//! Sockets that accept connections: opened here or taken over from another process, and each
//! connection handed to its application.
//!
//! Pingora could accept too, but it opens its sockets by itself when the server runs already: a
//! port that is taken is then a panic, and sockets come from a predecessor only in its own way.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::apps::ServerApp;
use pingora::protocols::l4::stream::Stream as TransportStream;
use pingora::protocols::{GetSocketDigest as _, SocketDigest};
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::sync::watch;

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

/// The service that accepts for one application.
pub struct Doors<A> {
    application: Arc<A>,
    listeners: Mutex<Vec<TcpListener>>,
    /// Nothing is accepted while it is `true`; what comes waits in the kernel's queue.
    closed: watch::Receiver<bool>,
}

impl<A> Doors<A> {
    /// Will accept on `listeners` for `application` while `closed` does not say otherwise.
    pub fn new(
        application: Arc<A>,
        listeners: Vec<TcpListener>,
        closed: watch::Receiver<bool>,
    ) -> Self {
        Self { application, listeners: Mutex::new(listeners), closed }
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> BackgroundService for Doors<A> {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let listeners = std::mem::take(&mut *self.listeners.lock());
        let mut doors = tokio::task::JoinSet::new();
        for listener in listeners {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    let door = Door {
                        listener,
                        application: Arc::clone(&self.application),
                        closed: self.closed.clone(),
                        shutdown: shutdown.clone(),
                    };
                    doors.spawn(door.keep());
                }
                Err(error) => tracing::error!(%error, "a listener cannot be served"),
            }
        }
        let _ = shutdown.changed().await;
        doors.shutdown().await;
        self.application.cleanup().await;
    }
}

/// One socket.
struct Door<A> {
    listener: tokio::net::TcpListener,
    application: Arc<A>,
    closed: watch::Receiver<bool>,
    shutdown: ShutdownWatch,
}

impl<A: ServerApp + Send + Sync + 'static> Door<A> {
    /// Accepts for ever, but for when the door is closed.
    async fn keep(mut self) {
        let mut closed = self.closed.clone();
        while closed.wait_for(|closed| !*closed).await.is_ok() {
            tokio::select! {
                biased;
                _ = closed.wait_for(|closed| *closed) => {}
                () = self.accept() => {}
            }
        }
    }

    async fn accept(&mut self) {
        let (stream, peer) = match self.listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // It comes again at once while files are short.
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted) {
                    tracing::error!(%error, "connections cannot be accepted");
                    breathe().await;
                }
                return;
            }
        };
        let mut stream = TransportStream::from(stream);
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        let _ = digest.peer_addr.set(Some(peer.into()));
        stream.set_socket_digest(digest);
        if let Err(error) = stream.set_nodelay() {
            tracing::debug!(%error, "a connection ended before it began");
            return;
        }
        serve(Arc::clone(&self.application), Box::new(stream), self.shutdown.clone());
    }
}

/// A pause after a failure that would come again at once.
pub async fn breathe() {
    tokio::time::sleep(BREATH).await;
}

/// Hands a connection to an application, in a task of its own.
pub fn serve<A: ServerApp + Send + Sync + 'static>(
    application: Arc<A>,
    stream: pingora::protocols::Stream,
    shutdown: ShutdownWatch,
) {
    tokio::spawn(async move {
        let mut again = Some(stream);
        while let Some(stream) = again {
            again = application.process_new(stream, &shutdown).await;
        }
    });
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
