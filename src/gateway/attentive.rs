//! A connection to a document server that hears an answer which comes before the request is whole.
//!
//! A server may refuse a large body after its first bytes and then read no more of it. Who writes on and
//! looks for an answer only afterwards waits for ever, or loses the answer with a connection that is reset.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use pingora::protocols::Stream;
use pingora::protocols::l4::stream::Stream as TransportStream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of an early answer that are taken before the writer stops.
const MOST_EARLY: usize = 4 * 1024;

/// Writing to it fails once the other side has answered and takes nothing; reading then begins with what it
/// said.
#[derive(Debug)]
struct Attentive {
    stream: Stream,
    early: BytesMut,
}

/// Makes a connection attentive.
pub fn attentive(stream: Stream) -> Stream {
    let socket = Attentive { stream, early: BytesMut::new() };
    Box::new(TransportStream::from(VirtualSocketStream::new(Box::new(socket))))
}

impl Attentive {
    /// Looks for an answer while nothing can be written.
    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.early.len() < MOST_EARLY {
            let mut space = [0; MOST_EARLY];
            let mut buffer = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    self.early.extend_from_slice(buffer.filled());
                    if is_final(&self.early) {
                        return Poll::Ready(());
                    }
                }
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }
}

/// Whether an answer has begun that is no interim one, such as 100 or 103.
fn is_final(mut early: &[u8]) -> bool {
    loop {
        match early.get(9) {
            None => return false,
            Some(b'1') => {}
            Some(_) => return true,
        }
        let Some(end) = memchr::memmem::find(early, b"\r\n\r\n") else { return false };
        early = early.get(end + 4..).unwrap_or_default();
    }
}

impl VirtualSocket for Attentive {
    fn set_socket_option(&self, _option: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Attentive {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.early.len().min(buffer.remaining());
        buffer.put_slice(self.early.get(..length).unwrap_or_default());
        self.early.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Attentive {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Ready(written) => Poll::Ready(written),
            Poll::Pending => {
                ready!(self.poll_answer(context));
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interim_answers_are_not_the_last_word() {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let answer = "HTTP/1.1 413 Payload Too Large\r\n\r\n";
        for (early, expected) in [
            (String::new(), false),
            ("HTTP/1.1 ".to_owned(), false),
            (hints.to_owned(), false),
            (hints.repeat(2), false),
            (answer.to_owned(), true),
            (format!("{hints}{answer}"), true),
            ("HTTP/1.1 4".to_owned(), true),
        ] {
            assert_eq!(is_final(early.as_bytes()), expected, "{early:?}");
        }
    }
}
