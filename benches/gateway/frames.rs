//! WebSocket frames in a buffer, for both ends; whole frames only, as small as it can be.

use std::io;
use std::ops::Range;

use seatgate::wire::websocket::{Opcode, unmask, write_frame};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// The mask of every client's frame: fixed, so that frames can be made before they are sent.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What a buffer holds at first; idle connections should cost the bench little.
const FIRST_ROOM: usize = 2048;

pub(crate) const TEXT: u8 = 0x1;
pub(crate) const CLOSE: u8 = 0x8;

/// A whole frame that lies in the buffer until the next call of [`Frames::fill`].
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Range<usize>,
}

/// Bytes read from a connection, cut into frames.
pub(crate) struct Frames {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Frames {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; FIRST_ROOM], start: 0, end: 0 }
    }

    /// With more room, for what comes in bulk.
    pub(crate) fn with_room(room: usize) -> Self {
        Self { buffer: vec![0; room], start: 0, end: 0 }
    }

    /// Makes room for more at a time.
    pub(crate) fn reserve(&mut self, room: usize) {
        if self.buffer.len() < room {
            self.buffer.resize(room, 0);
        }
    }

    /// What was read and not taken.
    pub(crate) fn unread(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Takes bytes that are no frame.
    pub(crate) fn skip(&mut self, length: usize) {
        self.start = (self.start + length).min(self.end);
    }

    /// Reads once; 0 at the end of the stream.
    pub(crate) async fn fill(&mut self, stream: &mut TcpStream) -> io::Result<usize> {
        let read = stream.read(self.room()).await?;
        self.end += read;
        Ok(read)
    }

    /// The same from a stream that blocks.
    pub(crate) fn fill_from(&mut self, stream: &mut impl io::Read) -> io::Result<usize> {
        let read = stream.read(self.room())?;
        self.end += read;
        Ok(read)
    }

    /// Where the next bytes go; never empty.
    fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    /// The next frame, unmasked, if all of it is here.
    pub(crate) fn take(&mut self) -> Option<Frame> {
        let bytes = self.buffer.get_mut(self.start..self.end)?;
        let (first, second) = (*bytes.first()?, *bytes.get(1)?);
        let (length, mut head) = match second & 0x7f {
            126 => (usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)), 4),
            127 => (usize::try_from(u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)).ok()?, 10),
            short => (usize::from(short), 2),
        };
        let mut mask = None;
        if second & 0x80 != 0 {
            mask = Some(*bytes.get(head..)?.first_chunk::<4>()?);
            head += 4;
        }
        let payload = bytes.get_mut(head..head.checked_add(length)?)?;
        if let Some(mask) = mask {
            unmask(payload, mask, 0);
        }
        let begin = self.start + head;
        self.start = begin + length;
        Some(Frame { opcode: first & 0x0f, payload: begin..begin + length })
    }

    /// The payload of the frame that was taken last.
    pub(crate) fn payload(&self, frame: &Frame) -> &[u8] {
        self.buffer.get(frame.payload.clone()).unwrap_or_default()
    }
}

/// Appends a client's text frame.
pub(crate) fn client_text(out: &mut Vec<u8>, text: &str) {
    write_frame(out, Opcode::Text, Some(MASK), text.as_bytes());
}

/// Appends a client's close frame.
pub(crate) fn client_close(out: &mut Vec<u8>) {
    write_frame(out, Opcode::Close, Some(MASK), &[]);
}

/// Appends a server's text frame.
pub(crate) fn server_text(out: &mut Vec<u8>, text: &[u8]) {
    write_frame(out, Opcode::Text, None, text);
}

/// Appends a server's close frame.
pub(crate) fn server_close(out: &mut Vec<u8>) {
    write_frame(out, Opcode::Close, None, &[]);
}
