//! WebSocket frames (RFC 6455, section 5): heads to meaning, masks off and on, frames to bytes.
//!
//! The decoder is incremental and copies no payload: it is shown bytes as TCP cut them and says
//! what the next ones are. Known parsers (`tungstenite`, `fastwebsockets`) were looked at first:
//! they hand out whole frames in buffers of their own, where a gateway must pass bytes on
//! unchanged, hold back some of them, and never buffer a 100 MB message to look at its first word.

/// What a frame is (RFC 6455, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    /// Whether the frame carries part of a message, rather than control.
    pub fn is_data(self) -> bool {
        matches!(self, Self::Continuation | Self::Text | Self::Binary)
    }

    fn code(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Last frame of its message.
    pub fin: bool,
    pub opcode: Opcode,
    /// The key of a client's frame; a server's frame has none.
    pub mask: Option<[u8; 4]>,
    /// Payload length in bytes.
    pub length: u64,
}

/// Who sends the frames: a client masks each of them, a server none (RFC 6455, section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    Client,
    Server,
}

/// A stream of bytes that is not WebSocket as agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a reserved bit is set, though no extension was agreed")]
    ReservedBit,
    #[error("unknown opcode {0:#x}")]
    Opcode(u8),
    #[error("a client's frame is not masked, or a server's is")]
    Mask,
    #[error("a control frame is fragmented or longer than 125 bytes")]
    Control,
    #[error("a continuation without a message, or a message inside another")]
    Sequence,
    #[error("a length is not written in its shortest form, or has its highest bit set")]
    Length,
    #[error("a message is longer than {limit} bytes")]
    TooLong { limit: u64 },
}

impl FrameError {
    /// The close code that tells the sender (RFC 6455, section 7.4.1).
    pub fn close_code(self) -> u16 {
        match self {
            Self::TooLong { .. } => 1009,
            Self::ReservedBit
            | Self::Opcode(_)
            | Self::Mask
            | Self::Control
            | Self::Sequence
            | Self::Length => 1002,
        }
    }
}

/// What the decoder found at the start of the bytes it was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// The bytes end inside a frame head; all of them were taken.
    Partial,
    /// A frame head is complete after `taken` bytes.
    Head { taken: usize, head: FrameHead },
    /// `taken` payload bytes of the present frame, the first of them at `offset` in the frame.
    Payload { taken: usize, offset: u64 },
    /// The present frame is complete. Takes no bytes, and follows each frame once.
    End { head: FrameHead },
}

/// An incremental frame decoder for one direction of one connection.
#[derive(Debug)]
pub struct Decoder {
    sender: Sender,
    message_limit: u64,
    /// Bytes of a head that came in pieces.
    partial: [u8; MAX_HEAD],
    partial_length: u8,
    frame: Option<(FrameHead, u64)>,
    /// Payload bytes of the open message so far, if a message is open.
    open_message: Option<u64>,
}

/// The longest frame head: 2 bytes, an 8-byte length, a 4-byte mask.
const MAX_HEAD: usize = 14;

impl Decoder {
    /// A decoder of what `sender` sends, whose messages may have `message_limit` payload bytes.
    pub fn new(sender: Sender, message_limit: u64) -> Self {
        Self {
            sender,
            message_limit,
            partial: [0; MAX_HEAD],
            partial_length: 0,
            frame: None,
            open_message: None,
        }
    }

    /// Whether no message is open and no frame's payload is due; a part of the next frame's head
    /// may have been shown.
    pub fn is_between_messages(&self) -> bool {
        self.frame.is_none() && self.open_message.is_none()
    }

    /// Says what the first of `input`'s bytes are. Call again with the bytes after `taken`;
    /// an empty input yields [`Decoded::End`] where it is due, else [`Decoded::Partial`].
    ///
    /// # Errors
    /// A violation of the protocol; the decoder must not be used afterwards.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, FrameError> {
        let Some((head, done)) = self.frame else { return self.decode_head(input) };
        if done == head.length {
            self.frame = None;
            if head.opcode.is_data() && head.fin {
                self.open_message = None;
            }
            return Ok(Decoded::End { head });
        }
        if input.is_empty() {
            return Ok(Decoded::Partial);
        }
        let left = usize::try_from(head.length - done).unwrap_or(usize::MAX);
        let taken = left.min(input.len());
        self.frame = Some((head, done + taken as u64));
        Ok(Decoded::Payload { taken, offset: done })
    }

    fn decode_head(&mut self, input: &[u8]) -> Result<Decoded, FrameError> {
        let before = usize::from(self.partial_length);
        let mut taken = 0;
        loop {
            let length = usize::from(self.partial_length);
            let bytes = self.partial.get(..length).unwrap_or_default();
            let needed = head_length(bytes);
            if length >= 2 && length == needed {
                let head = self.parse_head(bytes)?;
                self.admit_head(&head)?;
                self.partial_length = 0;
                self.frame = Some((head, 0));
                debug_assert!(taken + before >= 2);
                return Ok(Decoded::Head { taken, head });
            }
            let Some(byte) = input.get(taken) else { return Ok(Decoded::Partial) };
            if let Some(slot) = self.partial.get_mut(length) {
                *slot = *byte;
            }
            self.partial_length += 1;
            taken += 1;
        }
    }

    fn parse_head(&self, bytes: &[u8]) -> Result<FrameHead, FrameError> {
        let (&[first, second], rest) = bytes.split_first_chunk::<2>().ok_or(FrameError::Length)?;
        if first & 0x70 != 0 {
            return Err(FrameError::ReservedBit);
        }
        let opcode = match first & 0x0F {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xA => Opcode::Pong,
            other => return Err(FrameError::Opcode(other)),
        };
        let (length, rest) = match second & 0x7F {
            126 => {
                let (bytes, rest) = rest.split_first_chunk::<2>().ok_or(FrameError::Length)?;
                let length = u64::from(u16::from_be_bytes(*bytes));
                (if length < 126 { return Err(FrameError::Length) } else { length }, rest)
            }
            127 => {
                let (bytes, rest) = rest.split_first_chunk::<8>().ok_or(FrameError::Length)?;
                let length = u64::from_be_bytes(*bytes);
                if length <= 0xFFFF || length >> 63 != 0 {
                    return Err(FrameError::Length);
                }
                (length, rest)
            }
            short => (u64::from(short), rest),
        };
        let mask = if second & 0x80 != 0 {
            Some(*rest.first_chunk::<4>().ok_or(FrameError::Length)?)
        } else {
            None
        };
        if mask.is_some() != (self.sender == Sender::Client) {
            return Err(FrameError::Mask);
        }
        Ok(FrameHead { fin: first & 0x80 != 0, opcode, mask, length })
    }

    /// Checks a head against the frames before it.
    fn admit_head(&mut self, head: &FrameHead) -> Result<(), FrameError> {
        if !head.opcode.is_data() {
            return if head.fin && head.length <= 125 { Ok(()) } else { Err(FrameError::Control) };
        }
        let before = match (head.opcode, self.open_message) {
            (Opcode::Continuation, Some(before)) => before,
            (Opcode::Text | Opcode::Binary, None) => 0,
            _ => return Err(FrameError::Sequence),
        };
        let total = before.saturating_add(head.length);
        if total > self.message_limit {
            return Err(FrameError::TooLong { limit: self.message_limit });
        }
        self.open_message = Some(total);
        Ok(())
    }
}

/// The length of the head that starts with `bytes`, as far as they tell; at least 2.
fn head_length(bytes: &[u8]) -> usize {
    let Some(&second) = bytes.get(1) else { return 2 };
    let length = match second & 0x7F {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length + if second & 0x80 != 0 { 4 } else { 0 }
}

/// The key that a client's payload is masked with, turned to some byte of it.
#[derive(Clone, Copy, Debug)]
pub struct Mask(u32);

impl Mask {
    /// The mask at the byte of a payload that has this `offset`.
    pub fn new(key: [u8; 4], offset: u64) -> Self {
        // The next byte's key is the lowest.
        Self(u32::from_le_bytes(key).rotate_right(8 * (offset % 4) as u32))
    }

    /// What the byte at `index` from here on is masked with.
    pub fn at(self, index: usize) -> u8 {
        (self.0 >> (8 * (index % 4))) as u8
    }
}

/// Takes the mask off (or puts it on) in place; `offset` is the position of the first byte in
/// its frame's payload.
pub fn unmask(bytes: &mut [u8], mask: [u8; 4], offset: u64) {
    let mask = Mask::new(mask, offset);
    let word = u64::from(mask.0) << 32 | u64::from(mask.0);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_le_bytes(*chunk) ^ word).to_le_bytes();
    }
    for (at, byte) in rest.iter_mut().enumerate() {
        *byte ^= mask.at(at);
    }
}

/// Appends a whole, final frame to `out`; `mask` is required of a client's frame.
pub fn write_frame(out: &mut Vec<u8>, opcode: Opcode, mask: Option<[u8; 4]>, payload: &[u8]) {
    let flag = if mask.is_some() { 0x80 } else { 0 };
    out.push(0x80 | opcode.code());
    match payload.len() {
        length @ 0..=125 => out.push(flag | length as u8),
        length @ 126..=0xFFFF => {
            out.push(flag | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(flag | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    let Some(mask) = mask else { return out.extend_from_slice(payload) };
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(payload) = out.get_mut(start..) {
        unmask(payload, mask, 0);
    }
}

/// Appends a close frame with a code to `out`.
pub fn write_close(out: &mut Vec<u8>, mask: Option<[u8; 4]>, code: u16) {
    write_frame(out, Opcode::Close, mask, &code.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes `bytes` cut at `cuts`: heads and unmasked payloads of whole frames.
    fn decode_all(
        sender: Sender,
        bytes: &[u8],
        cuts: &[usize],
    ) -> Result<Vec<(FrameHead, Vec<u8>)>, FrameError> {
        let mut decoder = Decoder::new(sender, 1 << 40);
        let mut frames = Vec::new();
        let mut payload = Vec::new();
        let mut start = 0;
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        for end in ends {
            let mut chunk = &bytes[start..end];
            start = end;
            let mut mask = None;
            loop {
                match decoder.decode(chunk)? {
                    Decoded::Partial => break,
                    Decoded::Head { taken, .. } => chunk = &chunk[taken..],
                    Decoded::Payload { taken, offset } => {
                        let mut part = chunk[..taken].to_vec();
                        mask = mask.or(decoder.frame.and_then(|(head, _)| head.mask));
                        if let Some((head, _)) = decoder.frame
                            && let Some(mask) = head.mask
                        {
                            unmask(&mut part, mask, offset);
                        }
                        payload.extend(part);
                        chunk = &chunk[taken..];
                    }
                    Decoded::End { head } => frames.push((head, std::mem::take(&mut payload))),
                }
            }
        }
        Ok(frames)
    }

    #[test]
    fn refuses_what_the_protocol_forbids() {
        let cases: [(&[u8], FrameError); 9] = [
            (&[0xC1, 0x80], FrameError::ReservedBit),
            (&[0x83, 0x80], FrameError::Opcode(3)),
            (&[0x81, 0x01], FrameError::Mask),
            (&[0x09, 0x80], FrameError::Control),
            (&[0x88, 0xFE, 0x00, 0x7E], FrameError::Control),
            (&[0x80, 0x80], FrameError::Sequence),
            (&[0x81, 0xFE, 0x00, 0x05], FrameError::Length),
            (&[0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0, 9], FrameError::Length),
            (&[0x81, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0], FrameError::Length),
        ];
        for (head, expected) in cases {
            let mut bytes = head.to_vec();
            bytes.extend_from_slice(&[0; 4]);
            assert_eq!(decode_all(Sender::Client, &bytes, &[]), Err(expected), "{head:x?}");
        }
        let mut message_in_message = Vec::new();
        write_frame(&mut message_in_message, Opcode::Text, Some([1; 4]), b"a");
        message_in_message[0] = 0x01;
        let second = message_in_message.clone();
        message_in_message.extend(second);
        assert_eq!(decode_all(Sender::Client, &message_in_message, &[]), Err(FrameError::Sequence));
        assert_eq!(
            decode_all(Sender::Server, &[0x81, 0x80, 0, 0, 0, 0], &[]),
            Err(FrameError::Mask)
        );
    }

    #[test]
    fn bounds_a_message_over_its_fragments() {
        let mut decoder = Decoder::new(Sender::Server, 10);
        assert!(matches!(decoder.decode(&[0x01, 6]), Ok(Decoded::Head { taken: 2, .. })));
        assert!(matches!(decoder.decode(b"abcdef"), Ok(Decoded::Payload { taken: 6, offset: 0 })));
        assert!(matches!(decoder.decode(&[]), Ok(Decoded::End { .. })));
        assert!(!decoder.is_between_messages());
        assert_eq!(decoder.decode(&[0x80, 5]), Err(FrameError::TooLong { limit: 10 }));
    }

    fn frames() -> impl Strategy<Value = Vec<(Vec<u8>, [u8; 4], bool)>> {
        prop::collection::vec(
            (
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..200),
                    (65_530usize..65_540).prop_map(|length| vec![7; length])
                ],
                any::<[u8; 4]>(),
                any::<bool>(),
            ),
            1..5,
        )
    }

    proptest! {
        #[test]
        fn any_chunking_decodes_alike(
            frames in frames(),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
            client in any::<bool>(),
        ) {
            let sender = if client { Sender::Client } else { Sender::Server };
            let mut bytes = Vec::new();
            for (payload, mask, binary) in &frames {
                let opcode = if *binary { Opcode::Binary } else { Opcode::Text };
                write_frame(&mut bytes, opcode, client.then_some(*mask), payload);
                write_frame(&mut bytes, Opcode::Ping, client.then_some(*mask), b"p");
            }
            let decoded = decode_all(sender, &bytes, &cuts);
            let decoded = decoded.map_err(|error| TestCaseError::fail(error.to_string()))?;
            let payloads: Vec<_> = decoded
                .into_iter()
                .filter(|(head, _)| head.opcode.is_data())
                .map(|(_, payload)| payload)
                .collect();
            let expected: Vec<_> = frames.into_iter().map(|(payload, ..)| payload).collect();
            prop_assert_eq!(payloads, expected);
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_chunking_does_not_matter(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            cuts in prop::collection::vec(any::<usize>(), 0..6),
        ) {
            prop_assert_eq!(
                decode_all(Sender::Client, &bytes, &[]).ok(),
                decode_all(Sender::Client, &bytes, &cuts).ok()
            );
        }

        #[test]
        fn masking_twice_changes_nothing(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
            mask in any::<[u8; 4]>(),
            offset in any::<u64>(),
        ) {
            let mut masked = bytes.clone();
            unmask(&mut masked, mask, offset);
            for (index, (plain, hidden)) in bytes.iter().zip(&masked).enumerate() {
                let key = mask[((offset % 4) as usize + index) % 4];
                prop_assert_eq!(plain ^ key, *hidden);
            }
            unmask(&mut masked, mask, offset);
            prop_assert_eq!(masked, bytes);
        }
    }
}
