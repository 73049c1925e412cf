//! WebSocket frames as bytes, right or wrong on purpose (RFC 6455, section 5.2).

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;

/// One frame. The default is what a client should send: final, masked, no reserved bit.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub opcode: u8,
    pub fin: bool,
    /// The three reserved bits, `0b100` is RSV1.
    pub reserved: u8,
    pub mask: Option<[u8; 4]>,
    pub payload: &'a [u8],
    /// Says this length instead of the payload's own.
    pub claimed_length: Option<u64>,
}

impl<'a> Frame<'a> {
    pub fn new(opcode: u8, payload: &'a [u8]) -> Self {
        Self {
            opcode,
            fin: true,
            reserved: 0,
            mask: Some([0x37, 0xfa, 0x21, 0x3d]),
            payload,
            claimed_length: None,
        }
    }

    pub fn text(payload: &'a str) -> Self {
        Self::new(TEXT, payload.as_bytes())
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.payload.len() + 14);
        bytes.push(u8::from(self.fin) << 7 | self.reserved << 4 | self.opcode);
        let masked = u8::from(self.mask.is_some()) << 7;
        let length = self.claimed_length.unwrap_or(self.payload.len() as u64);
        match length {
            0..=125 => bytes.push(masked | length as u8),
            126..=0xffff => {
                bytes.push(masked | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(masked | 127);
                bytes.extend(length.to_be_bytes());
            }
        }
        match self.mask {
            None => bytes.extend(self.payload),
            Some(mask) => {
                bytes.extend(mask);
                let start = bytes.len();
                bytes.extend(self.payload);
                for (byte, key) in bytes[start..].iter_mut().zip(mask.iter().cycle()) {
                    *byte ^= key;
                }
            }
        }
        bytes
    }
}

/// How a message is cut and masked; none of it may change what the message means.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Largest payload of one frame.
    pub fragment: Option<usize>,
    /// Largest write to the socket.
    pub chunk: Option<usize>,
    pub mask: [u8; 4],
    /// Puts a WebSocket ping between the fragments.
    pub pings_between: bool,
}

/// The frames of one message in the given style.
pub fn message(opcode: u8, payload: &[u8], style: &Style) -> Vec<u8> {
    let size = style.fragment.unwrap_or(usize::MAX).max(1);
    let mut pieces: Vec<&[u8]> = payload.chunks(size).collect();
    if pieces.is_empty() {
        pieces.push(&[]);
    }
    let last = pieces.len() - 1;
    let mut bytes = Vec::new();
    for (index, piece) in pieces.into_iter().enumerate() {
        let opcode = if index == 0 { opcode } else { CONTINUATION };
        let frame = Frame::new(opcode, piece);
        bytes.extend(Frame { fin: index == last, mask: Some(style.mask), ..frame }.encode());
        if style.pings_between && index < last {
            bytes.extend(Frame { mask: Some(style.mask), ..Frame::new(PING, b"p") }.encode());
        }
    }
    bytes
}
