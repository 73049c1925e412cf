//! Frames and open files on the Unix socket between the two processes. Both run the same program
//! under the same user; the bounds are against a mistake, not against an enemy.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest frame, in bytes.
const LONGEST: usize = 64 << 20;

/// The most files that are passed.
pub(super) const MOST_FILES: usize = 64;

/// A message as a frame: its length in four bytes, and JSON.
pub(super) fn frame(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = u32::try_from(bytes.len().saturating_sub(4)).map_err(io::Error::other)?;
    if let Some(head) = bytes.first_chunk_mut() {
        *head = length.to_be_bytes();
    }
    Ok(bytes)
}

fn length(head: [u8; 4]) -> io::Result<usize> {
    let length = usize::try_from(u32::from_be_bytes(head)).map_err(io::Error::other)?;
    if length > LONGEST {
        return Err(io::Error::other("a frame that is too long"));
    }
    Ok(length)
}

/// Reads a frame; `None` at the end of the stream.
pub(super) async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<T>> {
    let mut head = [0; 4];
    match stream.read_exact(&mut head).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut body = vec![0; length(head)?];
    stream.read_exact(&mut body).await?;
    Ok(Some(serde_json::from_slice(&body)?))
}

/// The same on a stream that blocks.
pub(super) fn read_blocking<T: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<T> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let mut body = vec![0; length(head)?];
    stream.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

pub(super) fn write_blocking(stream: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    stream.write_all(&frame(message)?)
}

/// Sends open files along with one byte, which only carries them.
pub(super) fn send_files(stream: &UnixStream, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::other("too many files to pass on"));
    }
    let sent = sendmsg(stream, &[IoSlice::new(b"f")], &mut control, SendFlags::NOSIGNAL)?;
    if sent == 1 { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives what [`send_files`] sent.
pub(super) fn receive_files(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    if received.bytes != 1 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    Ok(files.flatten().collect())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn files_and_frames_arrive() {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let file = tempfile::tempfile().unwrap();
        send_files(&one, &[listener.as_fd(), file.as_fd()]).unwrap();
        write_blocking(&mut one, &["a", "b"]).unwrap();
        let mut files = receive_files(&other).unwrap();
        assert_eq!(files.len(), 2);
        let same = std::net::TcpListener::from(files.remove(0));
        assert_eq!(same.local_addr().unwrap(), listener.local_addr().unwrap());
        assert_eq!(read_blocking::<Vec<String>>(&mut other).unwrap(), ["a", "b"]);
        drop(one);
        assert!(read_blocking::<Vec<String>>(&mut other).is_err());
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused() {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        one.write_all(&[0xff; 8]).unwrap();
        assert!(read_blocking::<String>(&mut other).is_err());
    }
}
