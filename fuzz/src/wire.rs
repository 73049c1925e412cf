//! Targets: WebSocket frames, single packets, bodies of the polling transport.

use seatgate::session::inspect::{Event, Inspector, Violation};
use seatgate::wire::packet::{EventType, MessageKind};
use seatgate::wire::scan::{MessageScanner, classify};
use seatgate::wire::websocket::{Decoded, Decoder, FrameError, Opcode, Sender, unmask};

use super::frames::{self, Frame};
use super::input::{Input, pieces};
use super::server::{self, Reading};

/// Small enough to be reached.
const MESSAGE_LIMIT: u64 = 1_000;

/// Frames of either sender, in any pieces: heads and payloads are those of the plain reading, faults are
/// found at the same frame, and cutting changes nothing. No message that the server takes for an
/// `auth` goes by without its event.
pub fn websocket(data: &[u8]) {
    let mut input = Input::new(data);
    let from_client = input.byte() & 1 == 0;
    let cuts = input.cuts();
    let bytes = input.rest();
    let sender = if from_client { Sender::Client } else { Sender::Server };

    let plain = frames::read(bytes, from_client, MESSAGE_LIMIT);
    let (decoded, fault) = decode(sender, &pieces(bytes, &cuts));
    assert_eq!(decoded, plain.frames);
    assert_eq!(fault.is_some(), plain.broken, "{fault:?}");

    let whole = inspect(sender, &[bytes]);
    let cut = inspect(sender, &pieces(bytes, &cuts));
    assert_eq!(whole.violation, cut.violation);
    assert_eq!(whole.events, cut.events);
    assert!(bytes.starts_with(&whole.passed) && bytes.starts_with(&cut.passed));
    let complete = frames::read(&cut.passed, from_client, u64::MAX);
    assert!(!complete.broken, "nothing broken passes");
    if from_client {
        let messages = frames::messages(&complete.frames);
        let auths = messages.iter().filter(|message| {
            message.is_text
                && std::str::from_utf8(&message.payload)
                    .is_ok_and(|text| server::read(text).is_message("auth"))
        });
        let told = cut.events.iter().filter(|(_, event)| *event == Event::Auth);
        assert!(auths.count() <= told.count(), "an auth went by");
    }
}

/// The frames up to the first fault, and the fault.
fn decode(sender: Sender, pieces: &[&[u8]]) -> (Vec<Frame>, Option<FrameError>) {
    let mut decoder = Decoder::new(sender, MESSAGE_LIMIT);
    let mut found = Vec::new();
    let mut payload = Vec::new();
    let mut mask = None;
    let mut end = 0;
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let taken = match decoder.decode(rest) {
                Err(fault) => return (found, Some(fault)),
                Ok(Decoded::Partial) => {
                    end += rest.len();
                    break;
                }
                Ok(Decoded::Head { taken, head }) => {
                    mask = head.mask;
                    taken
                }
                Ok(Decoded::Payload { taken, offset }) => {
                    assert_eq!(offset as usize, payload.len());
                    let mut part = rest[..taken].to_vec();
                    if let Some(mask) = mask {
                        unmask(&mut part, mask, offset);
                    }
                    payload.append(&mut part);
                    taken
                }
                Ok(Decoded::End { head }) => {
                    let opcode = match head.opcode {
                        Opcode::Continuation => 0,
                        Opcode::Text => 1,
                        Opcode::Binary => 2,
                        Opcode::Close => 8,
                        Opcode::Ping => 9,
                        Opcode::Pong => 10,
                    };
                    let payload = std::mem::take(&mut payload);
                    found.push(Frame { fin: head.fin, opcode, payload, end });
                    0
                }
            };
            end += taken;
            rest = &rest[taken..];
        }
    }
    (found, None)
}

/// What came of showing an inspector some pieces.
struct Seen {
    passed: Vec<u8>,
    /// Events, each after how many bytes of the input.
    events: Vec<(usize, Event)>,
    violation: Option<Violation>,
}

/// Shows pieces; each `auth` passes.
fn inspect(sender: Sender, pieces: &[&[u8]]) -> Seen {
    let mut inspector = Inspector::new(sender);
    let mut seen = Seen { passed: Vec::new(), events: Vec::new(), violation: None };
    let mut shown = 0;
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let flow = match inspector.inspect(rest) {
                Ok(flow) => flow,
                Err(violation) => {
                    seen.violation = Some(violation);
                    return seen;
                }
            };
            seen.passed.append(inspector.released());
            seen.passed.extend_from_slice(&rest[flow.pass.clone()]);
            shown += flow.taken;
            rest = &rest[flow.taken..];
            let Some(event) = flow.event else { break };
            seen.events.push((shown, event));
            if event == Event::Auth {
                inspector.pass_held();
                seen.passed.append(inspector.released());
            }
        }
        assert!(rest.is_empty());
    }
    seen
}

/// One packet, in any pieces: what the server takes for an `auth` is known as one or refused, and what
/// frees a seat here ends editing there.
pub fn scan(data: &[u8]) {
    let mut input = Input::new(data);
    let cuts = input.cuts();
    let packet = input.rest();
    let kind = classify(packet);
    let mut scanner = MessageScanner::new();
    for piece in pieces(packet, &cuts) {
        scanner.feed(piece);
    }
    assert_eq!(scanner.finish(), kind);
    // A WebSocket whose text is not UTF-8 ends.
    if let Ok(text) = std::str::from_utf8(packet) {
        compare(&server::read(text), kind, text);
    }
}

/// A polling body: nothing is lost in taking it apart, and each packet is what the server takes it for.
pub fn payload(data: &[u8]) {
    use seatgate::wire::payload::{join, packets};
    let found: Vec<_> = packets(data).collect();
    assert_eq!(join(found.iter().map(|(packet, _)| *packet)), data);
    // Node decodes a body before it is taken apart, and puts something in place of what is not UTF-8.
    let text = String::from_utf8_lossy(data);
    let read: Vec<_> = text.split('\x1e').collect();
    assert_eq!(read.len(), found.len());
    for (packet, (_, kind)) in read.iter().zip(found) {
        if !packet.starts_with('b') {
            compare(&server::read(packet), kind, packet);
        }
    }
}

fn compare(reading: &Reading, kind: MessageKind, text: &str) {
    use MessageKind::{BinaryEvent, EngineClose, Malformed, Upgrade};
    if reading.is_message("auth") {
        let auth = EventType::Auth;
        let known = kind == MessageKind::Event(auth)
            || matches!(kind, BinaryEvent { event, .. } if event == auth)
            || kind == Malformed;
        assert!(known, "{kind:?}: the server takes this for an auth: {text}");
    }
    let ends = *reading == Reading::Ends || text.len() > 256;
    match kind {
        MessageKind::Event(EventType::Close) => {
            assert!(ends || reading.is_message("close"), "{text}");
        }
        MessageKind::Disconnect => assert!(ends || *reading == Reading::Disconnect, "{text}"),
        EngineClose => assert!(matches!(reading, Reading::Engine('1')), "{text}"),
        Upgrade => assert!(matches!(reading, Reading::Engine('5')), "{text}"),
        BinaryEvent { attachments, .. } => {
            if let Reading::Event { attachments: theirs, .. } = reading {
                assert_eq!(*theirs, Some(f64::from(attachments)), "{text}");
            }
        }
        _ => {}
    }
}
