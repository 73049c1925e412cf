//! One socket where connections are accepted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Busy, Tally};

/// How many of those who wait already are let in when a door is closed for good: they may come faster
/// than they are taken up.
const LAST: usize = 4_096;

/// Whether anybody is let in at a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    Open,
    /// Not now: whoever comes waits in the kernel's queue.
    Paused,
    /// Never again: who waits already is let in, and then the socket is closed.
    Closed,
    /// The same, but that another process has the sockets with these addresses as well: who waits
    /// there is for it to let in, which knows sessions that this one does not.
    Left(Arc<[SocketAddr]>),
}

impl Access {
    /// Whether it is for good.
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Open | Self::Paused => false,
            Self::Closed | Self::Left(_) => true,
        }
    }
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
                access = self.access.wait_for(|access| *access != Access::Open) => access.ok()?.clone(),
                accepted = self.listener.accept() => {
                    return Some(accepted.map(|(stream, peer)| (stream, peer, self.arrivals.begin())));
                }
            };
            match access {
                Access::Open | Access::Paused => self.open = None,
                Access::Closed => return self.last(),
                Access::Left(to_others) => {
                    let address = self.listener.local_addr().ok()?;
                    return if to_others.contains(&address) { None } else { self.last() };
                }
            }
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener as Socket, TcpStream as Client};

    use super::*;

    /// A door that closed as `access` says with somebody waiting, and another hold of its socket.
    fn closed(access: impl Fn(SocketAddr) -> Access) -> (Door, Socket, Client) {
        let socket = super::super::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = socket.local_addr().unwrap();
        let other = socket.try_clone().unwrap();
        let client = Client::connect(address).unwrap();
        let (_, access) = watch::channel(access(address));
        (Door::new(socket, access, Tally::default()).unwrap(), other, client)
    }

    #[tokio::test]
    async fn who_waits_at_a_door_that_closes_is_let_in_by_whoever_has_the_socket_on() {
        let elsewhere = |_| Access::Left([SocketAddr::from((Ipv4Addr::LOCALHOST, 1))].into());
        for access in [&(|_| Access::Closed) as &dyn Fn(SocketAddr) -> Access, &elsewhere] {
            let (mut door, _other, client) = closed(access);
            let (_, peer, _) = door.next().await.unwrap().unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
            assert!(door.next().await.is_none());
        }
        let (mut door, other, client) = closed(|address| Access::Left([address].into()));
        assert!(door.next().await.is_none());
        let (_, peer) = other.accept().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
    }
}
