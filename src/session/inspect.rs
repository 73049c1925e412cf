//! One direction of a co-authoring WebSocket: which bytes may pass, which wait for a decision.
//!
//! Bytes in, ranges and events out; no I/O, no policy. Whatever is known not to matter passes at
//! once and unchanged. A message that may be an `auth` (or the server's reply to one) is withheld
//! until it is whole and somebody has decided about it. Nothing that follows overtakes it.

use std::ops::Range;

use crate::wire::packet::{EventType, MessageKind};
use crate::wire::scan::{MessageScanner, Progress};
use crate::wire::websocket::{
    Decoded, Decoder, FrameError, FrameHead, Opcode, Sender, unmask, write_frame,
};

/// The largest message of the co-authoring protocol, in bytes (WIRE.md section 2, `maxPayload`).
pub const MESSAGE_LIMIT: u64 = 100_000_000;

/// The most bytes of one direction that wait for a decision. The document server takes an `auth`
/// of 5 MB; real ones have about 1 kB.
pub const HOLD_LIMIT: usize = 8 * 1024 * 1024;

/// Payload bytes that are unmasked and looked at in one step.
const PIECE: usize = 4096;

/// What came of showing an [`Inspector`] some bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Flow {
    /// Bytes of the input that were dealt with; the rest is to be shown again after the event.
    pub taken: usize,
    /// The part of the input that passes on, after what [`Inspector::released`] holds.
    pub pass: Range<usize>,
    /// What happened after those bytes; no further bytes may be shown before it is answered.
    pub event: Option<Event>,
}

/// Something that the session must answer or note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole `auth` (from the client: a request; from the server: its reply) is withheld; its
    /// text is [`Inspector::text`]. Answer with [`Inspector::pass_held`] or
    /// [`Inspector::replace_held`], or end the session.
    Auth,
    /// The sender said goodbye: a Socket.IO disconnect, an Engine.IO close or a close frame.
    Goodbye,
    /// The client gives up editing and stays as a viewer (`{"type":"close"}`).
    GaveUpEditing,
}

/// Bytes that no honest peer sends; the session must end, and nothing more may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("not WebSocket as agreed: {0}")]
    Frame(#[from] FrameError),
    #[error("a message that could be read in two ways")]
    Ambiguous,
    #[error("more than {HOLD_LIMIT} bytes would wait for a decision")]
    HeldTooLong,
}

/// How the open message is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    /// Not a text message, or nothing in it can matter any more.
    Pass,
    /// Known not to matter, but still read to its end: a duplicate key could change that.
    Watch,
    /// Withheld until its type is known.
    Undecided,
    /// Withheld until it is whole and decided.
    Hold,
}

/// Looks through one direction of one connection.
#[derive(Debug)]
pub struct Inspector {
    sender: Sender,
    decoder: Decoder,
    scanner: MessageScanner,
    treatment: Treatment,
    frame: Option<FrameHead>,
    /// Whether the open message is a text message.
    reading_text: bool,
    /// Raw bytes that are withheld, in order.
    held: Vec<u8>,
    /// The unmasked text of the withheld message so far.
    text: Vec<u8>,
    /// Raw bytes that were withheld and may now pass, before the present input's.
    released: Vec<u8>,
}

impl Inspector {
    /// An inspector of what `sender` sends.
    pub fn new(sender: Sender) -> Self {
        Self {
            sender,
            decoder: Decoder::new(sender, MESSAGE_LIMIT),
            scanner: MessageScanner::new(),
            treatment: Treatment::Pass,
            frame: None,
            reading_text: false,
            held: Vec::new(),
            text: Vec::new(),
            released: Vec::new(),
        }
    }

    /// Looks at `input` up to its end or the first event.
    ///
    /// # Errors
    /// A violation: nothing of `input` may pass, and the session must end.
    pub fn inspect(&mut self, input: &[u8]) -> Result<Flow, Violation> {
        // Where the withheld part of the input starts, if some of it is withheld.
        let mut hold = if self.held.is_empty() { None } else { Some(0) };
        let mut at = 0;
        let mut event = None;
        while event.is_none() {
            let rest = input.get(at..).unwrap_or_default();
            match self.decoder.decode(rest)? {
                Decoded::Partial => {
                    if !rest.is_empty() {
                        // The bytes of a frame's head wait until it is whole.
                        hold = hold.or(Some(at));
                    }
                    at = input.len();
                    break;
                }
                Decoded::Head { taken, head } => {
                    hold = hold.or(Some(at));
                    at += taken;
                    self.begin_frame(head);
                    if self.may_pass_frame(head) {
                        self.release(&mut hold);
                    }
                }
                Decoded::Payload { taken, offset } => {
                    let payload = rest.get(..taken).unwrap_or_default();
                    at += taken;
                    if self.read_payload(payload, offset)? {
                        self.release(&mut hold);
                    }
                }
                Decoded::End { head } => {
                    self.frame = None;
                    event = self.end_frame(head)?;
                    if self.treatment != Treatment::Hold && self.treatment != Treatment::Undecided {
                        self.release(&mut hold);
                    }
                }
            }
        }
        let pass = 0..hold.unwrap_or(at);
        if let Some(withheld) = input.get(pass.end..at) {
            self.withhold(withheld)?;
        }
        Ok(Flow { taken: at, pass, event })
    }

    /// The text of the message that [`Event::Auth`] told of, fragments joined, masks off.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Bytes that may pass before the present input's; the caller takes them out.
    pub fn released(&mut self) -> &mut Vec<u8> {
        &mut self.released
    }

    /// Lets the withheld message pass, byte for byte.
    pub fn pass_held(&mut self) {
        self.end_hold();
        append(&mut self.released, &mut self.held);
    }

    /// Lets `text` pass in place of the withheld message, in one frame.
    pub fn replace_held(&mut self, text: &[u8]) {
        // The mask hides nothing from the server that takes it off; its key may be any.
        let mask = match self.sender {
            Sender::Client => Some([0x5e, 0xa7, 0x9a, 0x7e]),
            Sender::Server => None,
        };
        self.end_hold();
        self.held = Vec::new();
        write_frame(&mut self.released, Opcode::Text, mask, text);
    }

    /// Whether the bytes that passed so far end between two messages, so that a message of our
    /// own may follow them. The bytes of a frame's head and of an undecided message never pass.
    pub fn at_message_boundary(&self) -> bool {
        match self.treatment {
            Treatment::Undecided | Treatment::Hold => true,
            Treatment::Pass | Treatment::Watch => self.decoder.is_between_messages(),
        }
    }

    fn begin_frame(&mut self, head: FrameHead) {
        self.frame = Some(head);
        match head.opcode {
            Opcode::Text => {
                self.scanner.reset();
                self.text.clear();
                self.treatment = Treatment::Undecided;
                self.reading_text = true;
            }
            Opcode::Binary => self.treatment = Treatment::Pass,
            Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => {}
        }
    }

    /// Whether a frame passes as it comes. A control frame between the fragments of a withheld
    /// message waits with them, so that the order of bytes never changes.
    fn may_pass_frame(&self, head: FrameHead) -> bool {
        match self.treatment {
            Treatment::Pass | Treatment::Watch => true,
            Treatment::Undecided | Treatment::Hold => {
                !head.opcode.is_data() && self.held.is_empty()
            }
        }
    }

    /// Reads a part of the present frame's payload; returns whether what is withheld may pass.
    fn read_payload(&mut self, payload: &[u8], offset: u64) -> Result<bool, Violation> {
        let Some(head) = self.frame else { return Ok(false) };
        if !head.opcode.is_data() || self.treatment == Treatment::Pass {
            return Ok(false);
        }
        let mut buffer = [0; PIECE];
        let mut offset = offset;
        let mut release = false;
        for piece in payload.chunks(PIECE) {
            let Some(plain) = buffer.get_mut(..piece.len()) else { continue };
            plain.copy_from_slice(piece);
            if let Some(mask) = head.mask {
                unmask(plain, mask, offset);
            }
            offset += piece.len() as u64;
            release |= self.read_text(plain)?;
            if self.treatment == Treatment::Pass {
                break;
            }
        }
        Ok(release)
    }

    fn read_text(&mut self, plain: &[u8]) -> Result<bool, Violation> {
        if self.treatment == Treatment::Hold {
            self.text.extend_from_slice(plain);
            // Read on: a second `type` would make it ambiguous.
            return match self.scanner.feed(plain) {
                Progress::Malformed => Err(Violation::Ambiguous),
                Progress::Undecided | Progress::Harmless { .. } | Progress::Auth => Ok(false),
            };
        }
        match self.scanner.feed(plain) {
            Progress::Undecided => {
                self.text.extend_from_slice(plain);
                Ok(false)
            }
            Progress::Auth => {
                self.text.extend_from_slice(plain);
                self.treatment = Treatment::Hold;
                Ok(false)
            }
            Progress::Harmless { watch } => {
                let released = self.treatment == Treatment::Undecided;
                // What the server itself sends is not written to deceive.
                self.treatment = if watch && self.sender == Sender::Client {
                    Treatment::Watch
                } else {
                    Treatment::Pass
                };
                self.text = Vec::new();
                Ok(released)
            }
            Progress::Malformed => Err(Violation::Ambiguous),
        }
    }

    fn end_frame(&mut self, head: FrameHead) -> Result<Option<Event>, Violation> {
        match head.opcode {
            Opcode::Close => return Ok(Some(Event::Goodbye)),
            Opcode::Ping | Opcode::Pong => return Ok(None),
            Opcode::Continuation | Opcode::Text | Opcode::Binary if !head.fin => return Ok(None),
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {}
        }
        if !std::mem::take(&mut self.reading_text) {
            return Ok(None);
        }
        self.treatment = Treatment::Pass;
        match self.scanner.finish() {
            MessageKind::Event(EventType::Auth)
            | MessageKind::BinaryEvent { event: EventType::Auth, .. } => {
                self.treatment = Treatment::Hold;
                Ok(Some(Event::Auth))
            }
            // A binary `close` takes effect with its last attachment, which may never come.
            MessageKind::Event(EventType::Close) if self.sender == Sender::Client => {
                Ok(Some(Event::GaveUpEditing))
            }
            MessageKind::Disconnect => Ok(Some(Event::Goodbye)),
            MessageKind::Malformed if self.sender == Sender::Client => Err(Violation::Ambiguous),
            _ => Ok(None),
        }
    }

    fn end_hold(&mut self) {
        self.treatment = Treatment::Pass;
        self.text = Vec::new();
    }

    fn release(&mut self, hold: &mut Option<usize>) {
        *hold = None;
        append(&mut self.released, &mut self.held);
    }

    fn withhold(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        if self.held.len() + bytes.len() > HOLD_LIMIT {
            return Err(Violation::HeldTooLong);
        }
        self.held.extend_from_slice(bytes);
        Ok(())
    }
}

/// Moves all of `from` to the end of `to`, and gives `from`'s memory back.
fn append(to: &mut Vec<u8>, from: &mut Vec<u8>) {
    if to.is_empty() {
        *to = std::mem::take(from);
    } else {
        to.append(from);
        *from = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AUTH: &str = r#"42["message",{"type":"auth","docid":"k","token":"t","user":{"id":"u"}}]"#;
    const CURSOR: &str = r#"42["message",{"type":"cursor","cursor":"10;AgAAAA=="}]"#;

    /// A message in frames cut at the given places.
    fn frames(sender: Sender, opcode: Opcode, text: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mask = (sender == Sender::Client).then_some([9, 8, 7, 6]);
        let mut out = Vec::new();
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(text.len());
        let mut start = 0;
        let last = ends.len() - 1;
        for (index, end) in ends.into_iter().enumerate() {
            let at = out.len();
            write_frame(&mut out, opcode, mask, &text[start..end]);
            if index > 0 {
                out[at] &= 0xF0;
            }
            if index < last {
                out[at] &= 0x7F;
            }
            start = end;
        }
        out
    }

    fn frame(text: &str) -> Vec<u8> {
        frames(Sender::Client, Opcode::Text, text.as_bytes(), &[])
    }

    /// Shows `bytes` in chunks; returns what passed and what happened. Each `auth` passes.
    fn run(
        inspector: &mut Inspector,
        bytes: &[u8],
        chunks: &[usize],
    ) -> Result<(Vec<u8>, Vec<(usize, Event)>), Violation> {
        let mut passed = Vec::new();
        let mut events = Vec::new();
        let mut ends: Vec<usize> = chunks.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(bytes.len());
        let mut start = 0;
        for end in ends {
            let mut chunk = &bytes[start..end];
            start = end;
            loop {
                let flow = inspector.inspect(chunk)?;
                passed.append(inspector.released());
                passed.extend_from_slice(&chunk[flow.pass.clone()]);
                assert!(flow.pass.end <= flow.taken);
                chunk = &chunk[flow.taken..];
                let Some(event) = flow.event else { break };
                events.push((passed.len(), event));
                if event == Event::Auth {
                    inspector.pass_held();
                }
            }
        }
        passed.append(inspector.released());
        Ok((passed, events))
    }

    #[test]
    fn what_does_not_matter_passes_at_once() {
        let mut inspector = Inspector::new(Sender::Client);
        for text in ["3", CURSOR, "40{}", r#"42["message",{"type":"saveChanges","changes":"["#] {
            let bytes = frame(text);
            let flow = inspector.inspect(&bytes);
            if text.ends_with('[') {
                assert_eq!(flow, Err(Violation::Ambiguous), "an event that never ends");
            } else {
                let expected = Flow { taken: bytes.len(), pass: 0..bytes.len(), event: None };
                assert_eq!(flow, Ok(expected), "{text}");
            }
        }
    }

    #[test]
    fn an_auth_waits_and_nothing_overtakes_it() {
        let mut inspector = Inspector::new(Sender::Client);
        let auth = frame(AUTH);
        let bytes = [frame("3"), auth.clone(), frame(CURSOR)].concat();
        let before = frame("3").len();
        let flow = inspector.inspect(&bytes).unwrap();
        assert_eq!(flow.event, Some(Event::Auth));
        assert_eq!((flow.pass, flow.taken), (0..before, before + auth.len()));
        assert_eq!(inspector.text(), AUTH.as_bytes());
        inspector.pass_held();
        assert_eq!(*inspector.released(), auth);
    }

    #[test]
    fn a_replaced_auth_is_one_masked_frame() {
        let mut inspector = Inspector::new(Sender::Client);
        let bytes = frames(Sender::Client, Opcode::Text, AUTH.as_bytes(), &[3, 20]);
        assert_eq!(inspector.inspect(&bytes).unwrap().event, Some(Event::Auth));
        inspector.replace_held(b"42[\"other\"]");
        let replaced = std::mem::take(inspector.released());
        let mut second = Inspector::new(Sender::Client);
        let flow = second.inspect(&replaced).unwrap();
        assert_eq!(flow, Flow { taken: replaced.len(), pass: 0..replaced.len(), event: None });
    }

    #[test]
    fn goodbyes_and_giving_up_are_told() {
        let close = r#"42["message",{"type":"close"}]"#;
        let binary_close = r#"451-["message",{"type":"close","x":{"_placeholder":true,"num":0}}]"#;
        for (text, expected) in [
            ("41", Some(Event::Goodbye)),
            (close, Some(Event::GaveUpEditing)),
            (binary_close, None),
            ("1", None),
        ] {
            let flow = Inspector::new(Sender::Client).inspect(&frame(text)).unwrap();
            assert_eq!(flow.event, expected, "{text}");
        }
        let mut bytes = Vec::new();
        write_frame(&mut bytes, Opcode::Close, Some([1; 4]), &[]);
        let flow = Inspector::new(Sender::Client).inspect(&bytes).unwrap();
        assert_eq!((flow.event, flow.pass), (Some(Event::Goodbye), 0..bytes.len()));
    }

    #[test]
    fn an_ambiguous_message_never_passes_whole() {
        let twice = r#"42["message",{"type":"cursor","x":1,"type":"auth"}]"#;
        assert_eq!(
            Inspector::new(Sender::Client).inspect(&frame(twice)),
            Err(Violation::Ambiguous)
        );
        // In two pieces: the first may pass, the last must not.
        let bytes = frame(twice);
        let mut inspector = Inspector::new(Sender::Client);
        let cut = bytes.len() - 18;
        assert!(inspector.inspect(&bytes[..cut]).is_ok_and(|flow| flow.pass.end <= cut));
        assert_eq!(inspector.inspect(&bytes[cut..]), Err(Violation::Ambiguous));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut inspector = Inspector::new(Sender::Client);
        let text = format!(r#"42["message",{{"x":"{}"}}]"#, "y".repeat(HOLD_LIMIT + 100_000));
        let bytes = frame(&text);
        let refused = bytes.chunks(60_000).find_map(|chunk| inspector.inspect(chunk).err());
        assert_eq!(refused, Some(Violation::HeldTooLong));
        // The same bytes after a type that is known not to matter are nobody's business.
        let text =
            format!(r#"42["message",{{"type":"z","x":"{}"}}]"#, "y".repeat(HOLD_LIMIT + 100_000));
        let bytes = frame(&text);
        let mut inspector = Inspector::new(Sender::Client);
        for chunk in bytes.chunks(60_000) {
            inspector.inspect(chunk).unwrap();
            assert!(inspector.held.len() < 64, "nothing is kept");
        }
    }

    #[test]
    fn our_words_fit_between_the_servers() {
        let mut inspector = Inspector::new(Sender::Server);
        assert!(inspector.at_message_boundary());
        let message = frames(Sender::Server, Opcode::Text, CURSOR.as_bytes(), &[40]);
        for cut in 1..message.len() {
            let mut inspector = Inspector::new(Sender::Server);
            let flow = inspector.inspect(&message[..cut]).unwrap();
            let passed_part = flow.pass.end > 0 && flow.pass.end < message.len();
            assert_eq!(inspector.at_message_boundary(), !passed_part, "{cut}");
        }
        inspector.inspect(&message).unwrap();
        assert!(inspector.at_message_boundary());
    }

    proptest! {
        #[test]
        fn any_chunking_passes_the_same_bytes_and_events(
            messages in prop::collection::vec(
                (
                    prop_oneof![
                        Just(AUTH.as_bytes().to_vec()),
                        Just(CURSOR.as_bytes().to_vec()),
                        Just(b"41".to_vec()),
                        Just(b"3".to_vec()),
                        prop::collection::vec(any::<u8>(), 0..40),
                    ],
                    any::<bool>(),
                    prop::collection::vec(any::<usize>(), 0..3),
                ),
                1..6,
            ),
            chunks in prop::collection::vec(any::<usize>(), 0..12),
            client in any::<bool>(),
        ) {
            let sender = if client { Sender::Client } else { Sender::Server };
            let bytes: Vec<u8> = messages
                .iter()
                .flat_map(|(text, binary, cuts)| {
                    let opcode = if *binary { Opcode::Binary } else { Opcode::Text };
                    frames(sender, opcode, text, cuts)
                })
                .collect();
            let whole = run(&mut Inspector::new(sender), &bytes, &[]);
            let pieces = run(&mut Inspector::new(sender), &bytes, &chunks);
            match (whole, pieces) {
                (Ok((passed, events)), Ok((passed_in_pieces, events_in_pieces))) => {
                    prop_assert_eq!(&passed, &bytes);
                    prop_assert_eq!(passed_in_pieces, bytes);
                    prop_assert_eq!(events, events_in_pieces);
                }
                (Err(one), Err(other)) => prop_assert_eq!(one, other),
                (one, other) => prop_assert!(false, "{one:?} {other:?}"),
            }
        }

        #[test]
        fn no_byte_of_an_auth_passes_before_the_verdict(
            cuts in prop::collection::vec(any::<usize>(), 0..4),
            chunks in prop::collection::vec(any::<usize>(), 0..10),
        ) {
            let before = frame(CURSOR);
            let auth = frames(Sender::Client, Opcode::Text, AUTH.as_bytes(), &cuts);
            let bytes = [before.clone(), auth].concat();
            let mut inspector = Inspector::new(Sender::Client);
            let (passed, events) =
                run(&mut inspector, &bytes, &chunks).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(events, vec![(before.len(), Event::Auth)]);
            prop_assert_eq!(passed, bytes);
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            chunks in prop::collection::vec(any::<usize>(), 0..6),
        ) {
            let _ = run(&mut Inspector::new(Sender::Client), &bytes, &chunks);
            let _ = run(&mut Inspector::new(Sender::Server), &bytes, &chunks);
        }
    }
}
