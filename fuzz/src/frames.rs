//! WebSocket frames read a second time, plainly and from the whole stream (RFC 6455, section 5).

/// One whole frame, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) fin: bool,
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
    /// Bytes of the stream up to its end.
    pub(crate) end: usize,
}

/// What a stream holds.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) frames: Vec<Frame>,
    /// What follows the frames breaks the protocol, however it goes on.
    pub(crate) broken: bool,
}

/// Reads what a client (or a server) sent, up to the first fault.
pub(crate) fn read(bytes: &[u8], from_client: bool, message_limit: u64) -> Stream {
    let mut stream = Stream::default();
    let mut at = 0;
    let mut open: Option<u64> = None;
    loop {
        let Some(&[first, second]) = bytes[at..].first_chunk::<2>() else { return stream };
        let length_bytes = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let masked = second & 0x80 != 0;
        let head = 2 + length_bytes + if masked { 4 } else { 0 };
        let Some(rest) = bytes.get(at..at + head) else { return stream };
        let long = rest[2..2 + length_bytes]
            .iter()
            .fold(0, |sum: u64, byte| sum.wrapping_shl(8) | u64::from(*byte));
        let length = if length_bytes == 0 { u64::from(second & 0x7f) } else { long };
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        let is_control = opcode >= 8;
        let shortest = match length_bytes {
            2 => length >= 126,
            8 => length > 0xffff && length >> 63 == 0,
            _ => true,
        };
        let known = matches!(opcode, 0 | 1 | 2 | 8 | 9 | 10);
        let in_place = is_control || (opcode == 0) == open.is_some();
        let control_ok = !is_control || (fin && length <= 125);
        let total = open.unwrap_or(0).saturating_add(length);
        let reserved = first & 0x70 != 0;
        let good =
            !reserved && known && shortest && masked == from_client && in_place && control_ok;
        if !good || (!is_control && total > message_limit) {
            stream.broken = true;
            return stream;
        }
        if !is_control {
            open = Some(total);
        }
        let start = at + head;
        let Some(payload) = usize::try_from(length)
            .ok()
            .and_then(|length| start.checked_add(length))
            .and_then(|end| bytes.get(start..end))
        else {
            return stream;
        };
        let mut payload = payload.to_vec();
        if masked {
            let key = &rest[head - 4..];
            for (index, byte) in payload.iter_mut().enumerate() {
                *byte ^= key[index % 4];
            }
        }
        at = start + payload.len();
        if !is_control && fin {
            open = None;
        }
        stream.frames.push(Frame { fin, opcode, payload, end: at });
    }
}

/// A data message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) is_text: bool,
    pub(crate) payload: Vec<u8>,
}

/// The whole messages in `frames`, fragments joined.
pub(crate) fn messages(frames: &[Frame]) -> Vec<Message> {
    let mut found = Vec::new();
    let mut open: Option<Message> = None;
    for frame in frames.iter().filter(|frame| frame.opcode < 8) {
        let message =
            open.get_or_insert(Message { is_text: frame.opcode == 1, payload: Vec::new() });
        message.payload.extend_from_slice(&frame.payload);
        if frame.fin {
            found.extend(open.take());
        }
    }
    found
}

/// One frame; a client's is masked with `mask`.
pub(crate) fn write(fin: bool, opcode: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![u8::from(fin) << 7 | opcode];
    let flag = u8::from(mask.is_some()) << 7;
    match payload.len() {
        length @ 0..=125 => bytes.push(flag | length as u8),
        length @ 126..=0xffff => {
            bytes.push(flag | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(flag | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(mask.unwrap_or_default().iter().take(if mask.is_some() { 4 } else { 0 }));
    let key = mask.unwrap_or_default();
    bytes.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ key[index % 4]));
    bytes
}
