//! A stream on which small writes wait for what follows them: a head and its body leave in one
//! segment, by one system call.
//!
//! Pingora's own listener gives its streams such a buffer; a stream that is accepted elsewhere
//! has none. To a server Pingora flushes a request's head before its body is known.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    Stream, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// The most bytes that wait. Copying them costs less than a system call.
const MOST_HELD: usize = 4096;

/// A stream that holds small writes back until it is flushed, or until they are many.
#[derive(Debug)]
pub(super) struct Corked {
    stream: Stream,
    /// Bytes that wait. Idle connections keep no memory.
    held: Vec<u8>,
    /// The next flush is that of a head whose body follows.
    expects_body: bool,
    has_heard: bool,
}

impl Corked {
    /// Nothing is held yet.
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, held: Vec::new(), expects_body: false, has_heard: false }
    }

    /// The first flush, that of a request's head, waits for the body.
    pub(super) fn before_body(stream: Stream) -> Self {
        Self { expects_body: true, ..Self::new(stream) }
    }

    /// Whether the peer sent anything.
    pub(super) fn has_heard(&self) -> bool {
        self.has_heard
    }

    /// The stream without the cork, if nothing is held back on it; any other stream as it is.
    pub(super) fn remove(stream: Stream) -> Stream {
        let corked = stream.as_any().downcast_ref::<Self>();
        if corked.is_none_or(|corked| !corked.held.is_empty()) {
            return stream;
        }
        match stream.into_any().downcast::<Self>() {
            Ok(corked) => corked.stream,
            // It was looked at above.
            Err(_) => unreachable!("a stream changes its type"),
        }
    }

    /// Writes what is held and then `bytes`, until the stream takes no more; returns how many of
    /// `bytes` it took.
    fn poll_write_through(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        while !self.held.is_empty() {
            let pieces = [IoSlice::new(&self.held), IoSlice::new(bytes)];
            let stream = Pin::new(&mut self.stream);
            let taken = ready!(stream.poll_write_vectored(context, &pieces))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if let Some(of_bytes) = taken.checked_sub(self.held.len()) {
                self.held = Vec::new();
                if of_bytes > 0 || bytes.is_empty() {
                    return Poll::Ready(Ok(of_bytes));
                }
            } else {
                self.held.drain(..taken);
            }
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }
}

impl AsyncRead for Corked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.has_heard |= buffer.filled().len() > before;
        read
    }
}

impl AsyncWrite for Corked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.held.len() + bytes.len() > MOST_HELD {
            return self.poll_write_through(context, bytes);
        }
        self.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.expects_body) {
            return Poll::Ready(Ok(()));
        }
        if !self.held.is_empty() {
            ready!(self.poll_write_through(context, &[]))?;
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[async_trait]
impl Shutdown for Corked {
    async fn shutdown(&mut self) {
        if let Err(error) = self.flush().await {
            tracing::debug!(%error, "a client left before its answer");
        }
        // The one of the two that Pingora means.
        Shutdown::shutdown(&mut *self.stream).await;
    }
}

impl UniqueID for Corked {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl Ssl for Corked {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.stream.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.stream.selected_alpn_proto()
    }
}

impl GetTimingDigest for Corked {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_timing_digest()
    }
}

impl GetProxyDigest for Corked {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stream.get_proxy_digest()
    }
}

impl GetSocketDigest for Corked {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.stream.set_socket_digest(digest);
    }
}

impl Peek for Corked {}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn pair(capacity: usize) -> (Corked, tokio::io::DuplexStream) {
        let (here, there) = tokio::io::duplex(capacity);
        (Corked::new(Box::new(here)), there)
    }

    #[tokio::test]
    async fn small_writes_wait_for_the_flush_and_leave_together() {
        let (mut corked, mut peer) = pair(1 << 16);
        let mut read = [0; 64];
        corked.write_all(b"head").await.unwrap();
        let early =
            tokio::time::timeout(std::time::Duration::from_millis(20), peer.read(&mut read));
        assert!(early.await.is_err());
        corked.write_all(b"body").await.unwrap();
        corked.flush().await.unwrap();
        assert_eq!(peer.read(&mut read).await.unwrap(), 8);
        assert_eq!(&read[..8], b"headbody");
        assert_eq!(corked.held.capacity(), 0);
    }

    #[tokio::test]
    async fn a_head_waits_for_its_body_and_the_next_one_does_not() {
        let (here, mut peer) = tokio::io::duplex(64);
        let mut corked = Corked::before_body(Box::new(here));
        let mut read = [0; 64];
        corked.write_all(b"head").await.unwrap();
        corked.flush().await.unwrap();
        corked.write_all(b"body").await.unwrap();
        corked.flush().await.unwrap();
        assert_eq!(peer.read(&mut read).await.unwrap(), 8);
        corked.write_all(b"head").await.unwrap();
        corked.flush().await.unwrap();
        assert_eq!(peer.read(&mut read).await.unwrap(), 4);
    }

    /// Whatever the peer takes at a time, every byte comes, once and in order.
    #[tokio::test]
    async fn nothing_is_lost_or_doubled() {
        for capacity in [1, 7, 1000, 1 << 20] {
            let (mut corked, mut peer) = pair(capacity);
            let sizes = [10, 0, MOST_HELD - 10, 1, 20_000, 3, MOST_HELD, 5];
            let sent: Vec<u8> =
                (0..sizes.iter().sum::<usize>()).map(|place| (place % 251) as u8).collect();
            let expected = sent.clone();
            let reading = tokio::spawn(async move {
                let mut all = Vec::new();
                peer.read_to_end(&mut all).await.unwrap();
                all
            });
            let mut rest = &sent[..];
            for size in sizes {
                let (piece, after) = rest.split_at(size);
                corked.write_all(piece).await.unwrap();
                rest = after;
            }
            tokio::io::AsyncWriteExt::shutdown(&mut corked).await.unwrap();
            drop(corked);
            assert_eq!(reading.await.unwrap(), expected, "{capacity}");
        }
    }

    #[tokio::test]
    async fn the_cork_comes_off_where_nothing_is_held() {
        let (mut corked, _peer) = pair(64);
        corked.write_all(b"x").await.unwrap();
        let stream = Corked::remove(Box::new(corked));
        assert!(stream.as_any().is::<Corked>());
        let (corked, _peer) = pair(64);
        let stream = Corked::remove(Box::new(corked));
        assert!(stream.as_any().is::<tokio::io::DuplexStream>());
        assert!(Corked::remove(stream).as_any().is::<tokio::io::DuplexStream>());
    }
}
