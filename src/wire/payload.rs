//! The bodies of Engine.IO's polling transport: packets in a row, a record separator between them
//! (WIRE.md section 2, "Polling").

use super::packet::{MessageKind, RECORD_SEPARATOR};
use super::scan;

/// The packets of a body, each with its kind, as `engine.io-parser` splits them.
pub fn packets(body: &[u8]) -> impl Iterator<Item = (&[u8], MessageKind)> {
    body.split(|byte| *byte == RECORD_SEPARATOR).map(|packet| (packet, scan::classify(packet)))
}

/// A body of several packets.
pub fn join<'a>(packets: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut body = Vec::new();
    for (index, packet) in packets.into_iter().enumerate() {
        if index > 0 {
            body.push(RECORD_SEPARATOR);
        }
        body.extend_from_slice(packet);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::packet::EventType;

    #[test]
    fn a_body_is_its_packets() {
        let body = b"40{}\x1e42[\"message\",{\"type\":\"auth\"}]\x1ebAAEC\x1e3";
        let kinds: Vec<_> = packets(body).map(|(_, kind)| kind).collect();
        let expected = [
            MessageKind::Connect,
            MessageKind::Event(EventType::Auth),
            MessageKind::Attachment,
            MessageKind::Pong,
        ];
        assert_eq!(kinds, expected);
        assert_eq!(join(packets(body).map(|(packet, _)| packet)), body);
        assert_eq!(packets(b"").count(), 1, "an empty body is one empty packet");
    }
}
