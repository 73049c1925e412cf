//! The stand-in's TCP connections: each has a number, counts its requests and can be cut.
//!
//! They also mend two things in which the Socket.IO server of the stand-in differs from the
//! document server's when it ends a WebSocket session: that one sends a close frame right after
//! its `41`, and no `1` before a close.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use parking_lot::Mutex;
use socket2::{SockRef, Socket};
use tokio::io::{self, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ConnectionId(u64);

struct Entry {
    handle: Socket,
    requests: usize,
}

#[derive(Default)]
pub(super) struct Connections {
    entries: Mutex<(u64, HashMap<ConnectionId, Entry>)>,
}

impl Connections {
    fn add(&self, stream: &TcpStream) -> ConnectionId {
        let handle = SockRef::from(stream).try_clone().expect("a file descriptor is free");
        let (last, entries) = &mut *self.entries.lock();
        *last += 1;
        let id = ConnectionId(*last);
        entries.insert(id, Entry { handle, requests: 0 });
        id
    }

    pub(super) fn open(&self) -> usize {
        self.entries.lock().1.len()
    }

    pub(super) fn count_request(&self, id: ConnectionId) {
        if let Some(entry) = self.entries.lock().1.get_mut(&id) {
            entry.requests += 1;
        }
    }

    pub(super) fn requests(&self, id: ConnectionId) -> usize {
        self.entries.lock().1.get(&id).map_or(0, |entry| entry.requests)
    }

    pub(super) fn cut(&self, id: ConnectionId) {
        if let Some(entry) = self.entries.lock().1.get(&id) {
            let _ = entry.handle.shutdown(Shutdown::Both);
        }
    }

    pub(super) fn cut_all(&self) {
        for entry in self.entries.lock().1.values() {
            let _ = entry.handle.shutdown(Shutdown::Both);
        }
    }
}

pub(super) struct Tap {
    pub(super) listener: TcpListener,
    pub(super) connections: Arc<Connections>,
}

impl Listener for Tap {
    type Io = Tapped;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Tapped, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let _ = stream.set_nodelay(true);
        let id = self.connections.add(&stream);
        let connections = Arc::clone(&self.connections);
        (Tapped { stream, id, connections, pending: Vec::new(), closed: false }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

pub(super) struct Tapped {
    stream: TcpStream,
    id: ConnectionId,
    connections: Arc<Connections>,
    /// Bytes that were taken but not yet written.
    pending: Vec<u8>,
    /// A close frame was sent; whatever follows is dropped.
    closed: bool,
}

/// `41` as an unmasked text frame.
const GOODBYE: &[u8] = b"\x81\x0241";
/// `1` likewise.
const ENGINE_CLOSE: &[u8] = b"\x81\x011";
const CLOSE_FRAME: &[u8] = b"\x88\x00";

impl Tapped {
    fn poll_pending(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.pending))?;
            self.pending.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl Connected<IncomingStream<'_, Tap>> for ConnectionId {
    fn connect_info(stream: IncomingStream<'_, Tap>) -> Self {
        stream.io().id
    }
}

impl Drop for Tapped {
    fn drop(&mut self) {
        self.connections.entries.lock().1.remove(&self.id);
    }
}

impl AsyncRead for Tapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_pending(context))?;
        if self.closed {
            return Poll::Ready(Ok(bytes.len()));
        }
        if bytes.ends_with(GOODBYE) {
            self.pending = [bytes, CLOSE_FRAME].concat();
            self.closed = true;
        } else if let Some(start) = bytes.strip_suffix(ENGINE_CLOSE) {
            self.pending = start.to_vec();
        } else {
            return Pin::new(&mut self.stream).poll_write(context, bytes);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
