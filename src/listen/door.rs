//! One socket where connections are accepted.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Busy, Tally};

/// A socket that can be closed for a while: what comes then waits in the kernel's queue.
pub(super) struct Door {
    listener: TcpListener,
    closed: watch::Receiver<bool>,
    arrivals: Tally,
    /// Counts the door while it is open: somebody may just be coming in.
    open: Option<Busy>,
}

impl Door {
    /// Will accept on `listener`, in the present runtime, while `closed` is `false`.
    ///
    /// # Errors
    /// The runtime cannot watch the socket.
    pub(super) fn new(
        listener: std::net::TcpListener,
        closed: watch::Receiver<bool>,
        arrivals: Tally,
    ) -> io::Result<Self> {
        let listener = TcpListener::from_std(listener)?;
        Ok(Self { listener, closed, arrivals, open: None })
    }

    /// The next connection, and what counts it from its acceptance on; `None` if nobody is left who
    /// could open the door again. It closes when this is called next, not while the last one is
    /// still on its way to whoever serves it.
    pub(super) async fn next(&mut self) -> Option<io::Result<(TcpStream, SocketAddr, Busy)>> {
        loop {
            if self.open.is_none() {
                self.closed.wait_for(|closed| !*closed).await.ok()?;
                self.open = Some(self.arrivals.begin());
            }
            tokio::select! {
                biased;
                closed = self.closed.wait_for(|closed| *closed) => {
                    closed.ok()?;
                    self.open = None;
                }
                accepted = self.listener.accept() => {
                    return Some(accepted.map(|(stream, peer)| (stream, peer, self.arrivals.begin())));
                }
            }
        }
    }
}
