//! One socket where connections are accepted.

use std::io;
use std::net::SocketAddr;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Busy, Tally};

/// How many of those who wait already are let in when a door is closed for good: another process may
/// have the socket as well, and somebody wait there all the time.
const LAST: usize = 4_096;

/// Whether anybody is let in at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Open,
    /// Not now: whoever comes waits in the kernel's queue.
    Paused,
    /// Never again: who waits already is let in, and then the socket is closed.
    Closed,
}

/// A socket where connections are accepted.
pub(super) struct Door {
    listener: TcpListener,
    access: watch::Receiver<Access>,
    arrivals: Tally,
    /// Counts the door while it is open: somebody may just be coming in.
    open: Option<Busy>,
    /// How many are still let in once it is closed for good.
    last: usize,
}

impl Door {
    /// Will accept on `listener`, in the present runtime, as `access` says.
    ///
    /// # Errors
    /// The runtime cannot watch the socket.
    pub(super) fn new(
        listener: std::net::TcpListener,
        access: watch::Receiver<Access>,
        arrivals: Tally,
    ) -> io::Result<Self> {
        let listener = TcpListener::from_std(listener)?;
        Ok(Self { listener, access, arrivals, open: None, last: LAST })
    }

    /// The next connection, and what counts it from its acceptance on; `None` if there will be none.
    /// It closes when this is called next, not while the last one is still on its way to whoever
    /// serves it.
    pub(super) async fn next(&mut self) -> Option<io::Result<(TcpStream, SocketAddr, Busy)>> {
        loop {
            if self.open.is_none() {
                let _ = self.access.wait_for(|access| *access != Access::Paused).await.ok()?;
                self.open = Some(self.arrivals.begin());
            }
            let access = tokio::select! {
                biased;
                access = self.access.wait_for(|access| *access != Access::Open) => *access.ok()?,
                accepted = self.listener.accept() => {
                    return Some(accepted.map(|(stream, peer)| (stream, peer, self.arrivals.begin())));
                }
            };
            if access == Access::Closed {
                return self.last();
            }
            self.open = None;
        }
    }

    /// One that waits already.
    fn last(&mut self) -> Option<io::Result<(TcpStream, SocketAddr, Busy)>> {
        self.last = self.last.checked_sub(1)?;
        // Asked of the kernel itself: the runtime may not know yet that somebody waits.
        let (socket, peer) = SockRef::from(&self.listener).accept().ok()?;
        let take = || {
            socket.set_nonblocking(true)?;
            let peer = peer.as_socket().ok_or(io::ErrorKind::Unsupported)?;
            Ok((TcpStream::from_std(socket.into())?, peer, self.arrivals.begin()))
        };
        Some(take())
    }
}
